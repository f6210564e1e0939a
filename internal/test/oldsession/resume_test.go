package oldsession_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/oldsession"
	"github.com/peerlane/peerlane/session"
)

// traffic uses every lane that outlives its carrier, in both directions at once, and fails unless all of it arrives once and
// in order.
func traffic(t *testing.T, w *world) {
	t.Helper()
	var wg sync.WaitGroup
	for name, way := range w.ways() {
		wg.Go(func() {
			for i := range 20 {
				body := pattern(uint64(i), i*1500)
				got, err := way.from.call(t.Context(), "echo", body)
				if err != nil || !bytes.Equal(body, got) {
					t.Errorf("%s: call %d: %d bytes came back: %v", name, i, len(got), err)
				}
			}
		})
		wg.Go(func() {
			for i := range 100 {
				if err := way.from.send(t.Context(), "", fmt.Appendf(nil, "%0*d", i*20, i)); err != nil {
					t.Errorf("%s: message %d: %v", name, i, err)
				}
			}
			if err := way.from.flush(t.Context()); err != nil {
				t.Errorf("%s: flush: %v", name, err)
			}
		})
		for _, kind := range []string{"shared", "resumable"} {
			if kind == "shared" || name == "from alice" {
				wg.Go(func() {
					st, err := openAnyhow(t, way.from, kind)
					if err != nil {
						t.Errorf("%s %s: %v", kind, name, err)
						return
					}
					echoes(t, st, pattern(5, 150_000))
				})
			}
		}
	}
	wg.Wait()
	for name, way := range w.ways() {
		messages, _ := way.to.taken()
		require.Len(t, messages, 100, name)
		for i, got := range messages {
			require.Equal(t, fmt.Sprintf("%0*d", i*20, i), string(got), name)
		}
		_, failures := way.back.taken()
		require.Empty(t, failures, name)
	}
}

// openAnyhow opens a stream, and tries again when its own carrier is cut in the middle of the hello.
func openAnyhow(t *testing.T, from side, kind string) (st lane, err error) {
	for range 20 {
		if st, err = from.open(t.Context(), kind, "echo"); err == nil || kind == "shared" {
			break
		}
	}
	return st, err
}

func random(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// Row: T1
func TestNothingOfOldAndNewIsLostWithTheirCarriers(t *testing.T) {
	slow := faultnet.LinkOptions{Delay: time.Millisecond, Rate: 2 << 20}
	for name, tm := range map[string]terms{"default": {link: slow}, "small": {link: slow, limits: small}} {
		t.Run(name, func(t *testing.T) {
			each(t, tm, func(t *testing.T, w *world) {
				rng, times := random(t), random(t)
				w.onLink(func(i int, l *faultnet.Link) {
					if i%3 == 0 && i < 30 {
						l.CutAfter(int64(rng.IntN(20_000))) // in a hello, or between any two bytes
					}
				})
				stop := make(chan struct{})
				var cutting sync.WaitGroup
				cutting.Go(func() {
					for range 30 {
						select {
						case <-stop:
							return
						case <-time.After(time.Duration(times.IntN(100)) * time.Millisecond):
							w.cut()
						}
					}
				})
				traffic(t, w)
				close(stop)
				cutting.Wait()
				require.Greater(t, w.alice.carriers(), 1)
			})
		})
	}
}

// Row: T2
func TestOldAndNewMoveWhileTheCarrierLives(t *testing.T) {
	for _, cuts := range []bool{false, true} {
		t.Run(fmt.Sprintf("cuts %v", cuts), func(t *testing.T) {
			each(t, terms{link: faultnet.LinkOptions{Delay: 5 * time.Millisecond, Rate: 1 << 20}}, func(t *testing.T, w *world) {
				rng := random(t)
				stop := make(chan struct{})
				var moving sync.WaitGroup
				moving.Go(func() {
					for range 30 {
						select {
						case <-stop:
							return
						case <-time.After(time.Duration(rng.IntN(60)) * time.Millisecond):
						}
						if cuts && rng.IntN(3) == 0 {
							time.AfterFunc(time.Duration(rng.IntN(20))*time.Millisecond, w.newest().Cut)
						}
						if err := w.alice.move(); err != nil && !cuts {
							t.Errorf("move: %v", err)
						}
					}
				})
				traffic(t, w)
				close(stop)
				moving.Wait()
				require.Greater(t, w.alice.carriers(), 5)
				for _, s := range []side{w.alice, w.bob} {
					if s, ok := s.(*newSide); ok && !cuts {
						require.Zero(t, s.losses, "each direction goes on where it was")
					}
				}
			})
		})
	}
}

// A link that holds everything back is found by silence on both sides, and the session goes on over another.
func TestOldAndNewLeaveASilentCarrier(t *testing.T) {
	each(t, terms{link: delayed}, func(t *testing.T, w *world) {
		time.Sleep(time.Hour) // a heartbeat keeps it
		require.Equal(t, 1, w.alice.carriers())
		st, err := w.alice.open(t.Context(), "resumable", "echo")
		require.NoError(t, err)
		time.Sleep(time.Hour)
		w.mu.Lock()
		for _, l := range w.links {
			l.Freeze()
		}
		w.mu.Unlock()
		began := time.Now()
		_, err = w.alice.call(t.Context(), "echo", nil)
		require.NoError(t, err)
		echoes(t, st, pattern(1, 1000))
		require.Less(t, time.Since(began), 30*time.Second)
		require.Equal(t, 2, w.alice.carriers())
	})
}

// Without another carrier both sides end, as lost, when the shorter patience is over.
func TestOldAndNewAreLostWithoutACarrier(t *testing.T) {
	each(t, terms{link: delayed}, func(t *testing.T, w *world) {
		st, err := w.alice.open(t.Context(), "resumable", "echo")
		require.NoError(t, err)
		w.mu.Lock()
		w.blocked = true
		w.mu.Unlock()
		began := time.Now()
		w.cut()
		_, err = st.Read(make([]byte, 1))
		require.Error(t, err)
		for _, s := range []side{w.alice, w.bob} {
			<-s.done()
			require.InDelta(t, time.Minute, time.Since(began), float64(time.Second))
			require.True(t, errors.Is(s.err(), session.ErrSessionLost) || errors.Is(s.err(), oldsession.ErrLost), "%v", s.err())
		}
	})
}

// A session without resumption ends with its carrier.
func TestAMortalSessionOfOldAndNewEndsWithItsCarrier(t *testing.T) {
	each(t, terms{link: delayed, mortal: true}, func(t *testing.T, w *world) {
		w.cut()
		for _, s := range []side{w.alice, w.bob} {
			<-s.done()
			require.True(t, errors.Is(s.err(), session.ErrSessionLost) || errors.Is(s.err(), oldsession.ErrLost), "%v", s.err())
		}
	})
}

// A drain lets what is in flight end, over further carriers too, and refuses what is new.
//
// Row: T7
func TestADrainOfOldAndNewLosesNothing(t *testing.T) {
	for _, from := range []string{"from alice", "from bob"} {
		t.Run(from, func(t *testing.T) {
			each(t, terms{link: delayed}, func(t *testing.T, w *world) {
				way := w.ways()[from]
				release := make(chan struct{})
				way.to.message = func([]byte) error {
					<-release
					return nil
				}
				require.NoError(t, way.from.send(t.Context(), "", []byte("before")))
				st, err := way.from.open(t.Context(), "shared", "echo")
				require.NoError(t, err)
				synctest.Wait()
				way.from.drain()
				time.Sleep(time.Second)
				for _, s := range []side{w.alice, w.bob} {
					require.NoError(t, s.err())
					_, err := s.open(t.Context(), "shared", "echo")
					require.Error(t, err)
					_, err = s.call(t.Context(), "echo", nil)
					require.Error(t, err)
				}
				w.newest().Cut()
				echoes(t, st, pattern(6, 100_000))
				time.Sleep(10 * time.Second)
				require.NoError(t, way.from.err())
				close(release)
				began := time.Now()
				<-w.alice.done()
				<-w.bob.done()
				require.Less(t, time.Since(began), 5*time.Second)
				_, failures := way.back.taken()
				require.Empty(t, failures)
			})
		})
	}
}
