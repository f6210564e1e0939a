package resume

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// twin is two flows and what joins them by carriers.
type twin struct {
	t    *testing.T
	a, b *Flow
	rng  *rand.Rand
}

func newTwin(t *testing.T, window int) *twin {
	cfg := FlowConfig{Window: window, Patience: time.Hour}
	w := &twin{t: t, a: NewFlow(cfg), b: NewFlow(cfg)}
	t.Cleanup(func() {
		w.a.Close(net.ErrClosed)
		w.b.Close(net.ErrClosed)
		w.a.Wait()
		w.b.Wait()
	})
	return w
}

// join gives both a new carrier, as two sides do that agree on what each has received: in order when both still have the
// one before, if wanted.
func (w *twin) join(live bool) {
	link := faultnet.NewLink(faultnet.LinkOptions{Delay: time.Duration(w.rng.IntN(1e6)), Buffer: 256 + w.rng.IntN(1<<w.rng.IntN(18))})
	if w.rng.IntN(2) == 0 {
		link.CutAfter(int64(w.rng.IntN(1 << w.rng.IntN(20))))
	}
	x, y := link.Ends()
	fromA, liveA := w.a.Received()
	fromB, liveB := w.b.Received()
	if live = live && liveA && liveB; !live {
		require.NoError(w.t, w.a.Pause())
		require.NoError(w.t, w.b.Pause())
		fromA, _ = w.a.Received()
		fromB, _ = w.b.Received()
	}
	_ = w.b.Attach(y, fromA, live)
	_ = w.a.Attach(x, fromB, live)
}

func TestFlowSurvivesRandomCuts(t *testing.T) {
	for _, window := range []int{4 << 10, 64 << 10, 1 << 20} {
		for _, cuts := range []int{1, 10, 100, 1000} {
			synctest.Test(t, func(t *testing.T) {
				seed := rand.Uint64()
				t.Logf("window %d, %d cuts, seed %d", window, cuts, seed)
				rng := rand.New(rand.NewPCG(seed, 1))
				w := newTwin(t, window)
				w.rng = rng
				done := make(chan struct{})
				var wg sync.WaitGroup
				for i, f := range []*Flow{w.a, w.b} {
					other := [...]*Flow{w.b, w.a}[i]
					data := make([]byte, 300<<10)
					_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
					sizes := rand.New(rand.NewPCG(seed, uint64(i)))
					wg.Go(func() {
						for rest := data; len(rest) > 0; {
							n := min(len(rest), 1+sizes.IntN(1<<sizes.IntN(15)))
							k, err := f.Write(rest[:n])
							require.NoError(t, err)
							require.Equal(t, n, k)
							rest = rest[n:]
							if sizes.IntN(4) == 0 {
								time.Sleep(time.Duration(sizes.IntN(1e6)))
							}
						}
					})
					wg.Go(func() {
						got := make([]byte, len(data))
						_, err := io.ReadFull(other, got)
						require.NoError(t, err)
						require.Equal(t, sha256.Sum256(data), sha256.Sum256(got))
						go func() { _, _ = other.Read(make([]byte, 1)) }()
					})
				}
				var joiner sync.WaitGroup
				joiner.Go(func() {
					for range cuts {
						w.join(rng.IntN(2) == 0)
						time.Sleep(time.Duration(rng.IntN(2e5)))
						if rng.IntN(2) == 0 {
							w.a.Detach(io.ErrUnexpectedEOF)
						}
						if rng.IntN(2) == 0 {
							w.b.Detach(io.ErrUnexpectedEOF)
						}
					}
					for {
						select {
						case <-done:
							return
						default:
						}
						if !w.a.Attached() || !w.b.Attached() {
							w.join(false)
						}
						time.Sleep(time.Millisecond)
					}
				})
				wg.Wait()
				close(done)
				joiner.Wait()
				t.Logf("resent %d %d", w.a.out.resent, w.b.out.resent)
			})
		}
	}
}
