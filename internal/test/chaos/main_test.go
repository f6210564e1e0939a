package chaos

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
)

var (
	runFor  = flag.Duration("chaos.for", 0, "how long runs are begun; 0: for as long as -chaos.runs takes")
	runs    = flag.Int("chaos.runs", 0, "how many runs there are at most; 0: as many as -chaos.for allows, or without that 4 at once")
	runSeed = flag.Uint64("chaos.seed", 0, "the seed of the first run, the next has the next; 0: random")
)

const (
	// together is how many runs there are if no flag says so. They mostly wait.
	together = 4
	// watchdog is how long a run may take: many times what the longest wait in it should.
	watchdog = 2 * time.Minute
	// leakPatience is how long what a run has started may live on: a ping of a superseded connection has 3 s.
	leakPatience = 30 * time.Second
)

func TestMain(m *testing.M) {
	procs.Parallel(together)
	goleak.VerifyTestMain(m)
}

// Nothing is lost silently on real hosts: what a call accepted with a nil error was delivered in order and once, or is named in an error;
// an end in order follows all of what was written; what was delivered is not named as not sent; and everything ends.
//
// Row: N12, N24
func TestNothingIsLostSilentlyOnRealHosts(t *testing.T) {
	first := *runSeed
	if first == 0 {
		first = rand.Uint64()>>1 | 1
	}
	var sum totals
	began := time.Now()
	if *runFor == 0 && *runs == 0 {
		leavesNothing(t, fmt.Sprint("seeds from ", first), func(t *testing.T) {
			for i := range uint64(together) {
				t.Run(fmt.Sprint(first+i), func(t *testing.T) {
					t.Parallel()
					oneRun(t, first+i, &sum)
				})
			}
		})
	}
	for i := 0; (i < *runs || *runs == 0 && *runFor > 0) && (*runFor == 0 || time.Since(began) < *runFor) && !t.Failed(); i++ {
		seed := first + uint64(i)
		leavesNothing(t, fmt.Sprint(seed), func(t *testing.T) { oneRun(t, seed, &sum) })
	}
	t.Logf("%v: seeds from %d: %s", time.Since(began).Round(time.Second), first, sum.String())
}

// oneRun makes the run of a seed.
func oneRun(t *testing.T, seed uint64, sum *totals) {
	again := fmt.Sprintf("go test ./internal/test/chaos -count=1 -v -args -chaos.seed=%d -chaos.runs=1", seed)
	m := newModel(t, seed, sum)
	dog := time.AfterFunc(watchdog, func() {
		stacks := make([]byte, 64<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		fmt.Fprintf(os.Stderr, "%s\n\n%s\nseed %d has not ended within %v; again: %s\n", stacks, m.history(), seed, watchdog, again)
		os.Exit(1)
	})
	defer dog.Stop()
	m.run()
	if t.Failed() {
		t.Errorf("again: %s", again)
	}
	if t.Failed() || *runs == 1 {
		t.Logf("%s", m.history())
	}
}

// leavesNothing runs f as a subtest, to the end of the last goroutine that it has started.
func leavesNothing(t *testing.T, name string, f func(t *testing.T)) {
	before := goleak.IgnoreCurrent()
	if !t.Run(name, f) {
		return
	}
	if err := leaked(before); err != nil {
		t.Errorf("%s has left goroutines: %v", name, err)
	}
}

// leaked waits until no goroutine is left but those of before, and returns an error that tells of them when they stay.
func leaked(before goleak.Option) error {
	for began := time.Now(); ; {
		err := goleak.Find(before)
		if err == nil || time.Since(began) > leakPatience {
			return err
		}
	}
}
