package flow

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/traffic"
)

// A twin is two flows, who joins them by carriers, and how many hand-overs came to their end.
type twin struct {
	t     *testing.T
	rng   *rand.Rand
	flows [2]*Flow
	link  *faultnet.Link
	lives int          // hand-overs that have begun
	whole atomic.Int32 // sides of them that have come to their end

	mu   sync.Mutex
	next map[net.Conn]bool // carriers that follow a living one
}

func newTwin(t *testing.T, rng *rand.Rand, window int) *twin {
	w := &twin{t: t, rng: rng, next: make(map[net.Conn]bool)}
	for i := range w.flows {
		w.flows[i] = New(&Config{Window: window, ResumeWindow: time.Hour, OnSettled: w.settled})
	}
	t.Cleanup(func() {
		for _, f := range w.flows {
			f.Close(net.ErrClosed)
		}
		for _, f := range w.flows {
			f.Wait()
		}
	})
	return w
}

func (w *twin) settled(conn net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next[conn] {
		w.whole.Add(1)
	}
}

// follows notes that conn follows a living carrier.
func (w *twin) follows(conn net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next[conn] = true
}

// join gives both a new carrier, as two sides do that agree on what each has received: in order if both still have the one
// before and live is wanted. Now and then it breaks in the middle of a segment, or one side does not get to know of it.
func (w *twin) join(live, whole bool) {
	w.link = faultnet.NewLink(faultnet.LinkOptions{
		Delay:       time.Duration(w.rng.IntN(1e6)),
		Buffer:      256 + w.rng.IntN(1<<w.rng.IntN(18)),
		CutDelivers: w.rng.IntN(2) == 0,
	})
	if !whole && w.rng.IntN(3) == 0 {
		w.link.CutAfter(int64(w.rng.IntN(1 << w.rng.IntN(20))))
	}
	x, y := w.link.Ends()
	a, b := w.flows[0], w.flows[1]
	fromA, liveA := a.Received()
	fromB, liveB := b.Received()
	if live = live && liveA && liveB; !live {
		require.NoError(w.t, b.Pause())
		fromB, _ = b.Received()
	} else {
		w.lives++
		w.follows(x)
		w.follows(y)
	}
	_ = b.Attach(y, fromA, live)
	if !whole && w.rng.IntN(10) == 0 {
		_ = x.Close() // the answer to the hello was lost
		return
	}
	time.Sleep(time.Duration(w.rng.IntN(1e6)))
	_ = a.Attach(x, fromB, live)
}

// upset does to the flows what happens to them.
func (w *twin) upset() {
	switch w.rng.IntN(9) {
	case 0:
		w.flows[0].Detach(io.ErrUnexpectedEOF)
	case 1:
		w.flows[1].Detach(io.ErrUnexpectedEOF)
	case 2:
		w.link.Cut()
	}
}

// until joins and upsets so many times, and then keeps both joined until done.
func (w *twin) until(cuts int, stop func(), done <-chan struct{}) {
	w.join(false, true)
	for range cuts {
		time.Sleep(time.Duration(w.rng.IntN(1 << w.rng.IntN(25))))
		w.join(w.rng.IntN(4) > 0, false)
		if w.rng.IntN(5) == 0 {
			time.Sleep(30 * time.Millisecond) // enough for a hand-over that nothing upsets
		}
		time.Sleep(time.Duration(w.rng.IntN(1 << w.rng.IntN(25))))
		w.upset()
	}
	stop()
	for {
		w.join(false, true)
		select {
		case <-done:
			return
		case <-time.After(time.Minute):
		}
	}
}

// Both directions at once, over carriers that break anywhere, and over hand-overs that come to their end or break in the
// middle: what arrives is what was written.
//
// Row: S3, S4, S5, S6
func TestFlowSurvivesRandomCuts(t *testing.T) {
	t.Parallel() // beside those that wait for real
	for _, window := range []int{4 << 10, 64 << 10, 1 << 20} {
		for cuts, rounds := range map[int]int{1: 20, 10: 10, 100: 3, 1000: 1} {
			for range rounds {
				synctest.Test(t, func(t *testing.T) { surviveCuts(t, window, cuts) })
			}
		}
	}
}

func surviveCuts(t *testing.T, window, cuts int) {
	seed := rand.Uint64()
	w := newTwin(t, rand.New(rand.NewPCG(seed, 1)), window)
	var stopped atomic.Bool
	var totals [2]atomic.Int64
	for i := range totals {
		totals[i].Store(-1)
	}
	var all sync.WaitGroup
	done := make(chan struct{})
	for i, f := range w.flows {
		other := w.flows[1-i]
		all.Go(func() {
			traffic.Write(t, f, seed+uint64(i), &stopped, func(n int) { totals[i].Store(int64(n)) })
		})
		all.Go(func() {
			traffic.Read(t, other, seed+uint64(i), func() (int, bool) {
				n := totals[i].Load()
				return int(n), n >= 0
			})
			go func() { _, _ = other.Read(make([]byte, 1)) }() // acknowledgements come in this way
		})
	}
	finished := make(chan struct{})
	go func() {
		w.until(cuts, func() { stopped.Store(true) }, done)
		close(finished)
	}()
	all.Wait()
	close(done)
	<-finished
	_, resentA := w.flows[0].Kept()
	_, resentB := w.flows[1].Kept()
	t.Logf("window %d, %d cuts, seed %d: %d and %d bytes, %d and %d again; %d hand-overs, %d sides whole", window, cuts, seed,
		totals[0].Load(), totals[1].Load(), resentA, resentB, w.lives, w.whole.Load())
	if cuts == 1000 {
		require.Greater(t, w.lives, 200, "seed %d", seed)
		require.Greater(t, int(w.whole.Load()), w.lives/4, "seed %d", seed)
	}
}

func TestOneGoroutineHoldsTheBaton(t *testing.T) {
	var b baton
	require.False(t, b.take(true), "a goroutine that was passed nothing has taken it")
	require.True(t, b.take(false))
	require.False(t, b.take(false))
	require.False(t, b.take(true))
	b = batonPassed
	require.False(t, b.take(false), "a Write has taken what was passed to another")
	require.True(t, b.take(true))
}
