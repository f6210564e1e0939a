package soak

import (
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/heap"
	"github.com/peerlane/peerlane/internal/test/testnet"
)

var (
	soakFor  = flag.Duration("soak.for", 3*time.Second, "how long there is work")
	soakFrom = flag.Duration("soak.from", 0, "when what is in use is measured first; 0: it is not, as for less than a minute it still grows")
	soakSeed = flag.Uint64("soak.seed", 1, "what decides about the faults, and what the work does")
)

const (
	// growth is how much more may be in use at the end.
	growth = 0.02
	// settling is how long what has ended may take to be gone: connections that are closing, and timers of libp2p.
	settling = 2 * time.Minute
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// use is what is in use at one time.
type use struct {
	heap        int64
	goroutines  int
	descriptors int // -1 where they cannot be counted
}

func inUse() use {
	u := use{heap: heap.InUse(), goroutines: runtime.NumGoroutine(), descriptors: -1}
	if all, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.descriptors = len(all) - 1 // one of them reads this
	}
	return u
}

func (u use) String() string {
	return fmt.Sprintf("heap %.2f MB, %d goroutines, %d descriptors", float64(u.heap)/1e6, u.goroutines, u.descriptors)
}

// most is the use that u may have grown to.
func (u use) most() use {
	more := func(n int) int { return n + int(math.Ceil(growth*float64(n))) }
	return use{heap: int64(float64(u.heap) * (1 + growth)), goroutines: more(u.goroutines), descriptors: more(u.descriptors)}
}

// within reports whether u is no more than most.
func (u use) within(most use) bool {
	return u.heap <= most.heap && u.goroutines <= most.goroutines && u.descriptors <= most.descriptors
}

// least returns the smaller of each.
func least(a, b use) use {
	return use{min(a.heap, b.heap), min(a.goroutines, b.goroutines), min(a.descriptors, b.descriptors)}
}

// Whatever the lanes and the networks do, for however long, nothing of it stays.
//
// Row: N25
func TestNothingGrows(t *testing.T) {
	pairs := []*pair{
		newPair(t, testnet.TCPNoise, *soakSeed),
		newPair(t, testnet.QUIC, *soakSeed+1),
	}
	each := func(f func(*pair)) {
		var all sync.WaitGroup
		for _, p := range pairs {
			all.Go(func() { f(p) })
		}
		all.Wait()
	}
	if *soakFrom > 0 {
		each(func(p *pair) { p.work(*soakFrom) })
		first := settled(use{}, min(*soakFrom/2, 45*time.Second))
		t.Logf("after %v: %v", *soakFrom, first)
		each(func(p *pair) { p.work(*soakFor - *soakFrom) })
		last := settled(first.most(), 0)
		t.Logf("after %v: %v", *soakFor, last)
		if !last.within(first.most()) {
			dump(t)
			require.Fail(t, "it has grown", "%v, and at most %v", last, first.most())
		}
	} else {
		each(func(p *pair) { p.work(*soakFor) })
	}
	for _, p := range pairs {
		t.Logf("%s: %v", p.transport, p.sum())
		p.check()
	}
}

// settled returns the least that is in use, of each, once it is no more than most. It waits for that as long as things take to be
// gone; where most is the zero use, it waits until nothing has become less for as long as quiet.
func settled(most use, quiet time.Duration) use {
	now := inUse()
	began, still := time.Now(), time.Now()
	for time.Since(began) < settling && !now.within(most) && (most != use{} || time.Since(still) < quiet) {
		time.Sleep(time.Second)
		next := least(now, inUse())
		if next.goroutines < now.goroutines || next.descriptors < now.descriptors || float64(next.heap) < 0.999*float64(now.heap) {
			still = time.Now()
		}
		now = next
	}
	return now
}

// dump writes what is in use to files, and says where they are.
func dump(t *testing.T) {
	for _, name := range []string{"goroutine", "heap"} {
		f, err := os.CreateTemp("", "soak-*."+name)
		require.NoError(t, err)
		require.NoError(t, pprof.Lookup(name).WriteTo(f, 1))
		require.NoError(t, f.Close())
		t.Logf("see %s", f.Name())
	}
}
