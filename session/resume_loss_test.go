package session

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	mrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

// Row: S5. Row: S6. A process that stands still for longer than the heartbeat allows loses its carrier and nothing else.
func TestAFreezeLosesNothing(t *testing.T) {
	for _, frozen := range []time.Duration{time.Second, 10 * time.Second, 30 * time.Second} {
		inBubble(t, func(t *testing.T) {
			cfg := Config{RequestTimeout: -1}
			r := newRoad(t, cfg, AcceptorConfig{Config: cfg}, faultnet.LinkOptions{Delay: 5 * time.Millisecond})
			r.mux.SetCall(echo)
			var told []byte
			r.mux.SetLink("tell", func(m *Message) { told = append(told, m.Value...) })
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 1000 {
						_, err := r.dialer.Call(t.Context(), "", []byte("x"))
						require.NoError(t, err)
					}
				})
			}
			var want []byte
			wg.Go(func() {
				for i := range 3000 {
					want = append(want, byte(i))
					require.NoError(t, r.dialer.Send(t.Context(), "tell", []byte{byte(i)}))
					time.Sleep(time.Millisecond)
				}
				require.NoError(t, r.dialer.Flush(t.Context()))
			})
			time.Sleep(time.Second)
			r.block(true)
			r.link(-1).Freeze()
			time.Sleep(frozen)
			r.link(-1).Thaw()
			r.block(false)
			wg.Wait()
			require.Equal(t, want, told)
		})
	}
}

// Row: S5. Defect S-f: what does not fit waits, and what is lost is lost on both sides at the same time.
func TestASessionWithoutAnyRouteEndsOnBothSidesWhenItsTimeIsOver(t *testing.T) {
	const window = 20 * time.Second
	inBubble(t, func(t *testing.T) {
		r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, opts: faultnet.LinkOptions{Delay: 5 * time.Millisecond}}
		stop := make(chan struct{})
		r.mux.SetCall(func(*Message) ([]byte, error) { <-stop; return nil, nil })
		cfg := Config{Heartbeat: time.Second, HeartbeatTimeout: 3 * time.Second, RequestTimeout: -1}
		accept := cfg
		cfg.ResumeWindow, accept.ResumeWindow = window, time.Hour
		r.dial(cfg, AcceptorConfig{Config: accept})
		errs := make(chan error, 2)
		go func() {
			_, err := r.dialer.Call(t.Context(), "", []byte("x"))
			errs <- err
		}()
		time.Sleep(time.Second)
		r.block(true)
		r.link(0).Freeze()
		began := time.Now()
		go func() {
			r.await(r.dialer, StateDetached)
			_, err := r.dialer.Call(t.Context(), "", []byte("y"))
			errs <- err
		}()
		for _, s := range []*Session{r.dialer, r.accepted} {
			wantLost(t, s)
			require.Len(t, r.states(s), 3)
			r.mu.Lock() // the other side may end at the same time
			steps := slices.Clone(r.steps[s])
			r.mu.Unlock()
			require.Equal(t, StateDetached, steps[1].State)
			require.LessOrEqual(t, steps[1].At.Sub(began), 4*time.Second, "found late")
			require.Equal(t, window, steps[2].At.Sub(steps[1].At), "ended at another time than the shorter ResumeWindow says")
		}
		for range 2 {
			require.ErrorIs(t, <-errs, ErrSessionLost)
		}
		close(stop)
		r.serving.Wait()
		r.wantNothingLeft()
	})
}

// Row: S5. Row: U12. Without a route again and again: no handler runs twice, and every outcome is true.
func TestOutcomesAreTrueWhenSessionsAreLost(t *testing.T) {
	const sessions, calls = 100, 100
	inBubble(t, func(t *testing.T) {
		seed := mrand.Uint64()
		t.Logf("seed %d", seed)
		rng := mrand.New(mrand.NewPCG(seed, 0))
		var outcomes [5]int
		answered := 0
		for range sessions {
			a, o := lostCycle(t, rng, calls)
			answered += a
			for i, n := range o {
				outcomes[i] += n
			}
		}
		t.Logf("%d answered, %d not sent, %d unknown", answered, outcomes[NotSent], outcomes[Unknown])
		require.Equal(t, sessions*calls, answered+outcomes[NotSent]+outcomes[Unknown])
		require.NotZero(t, outcomes[NotSent])
		require.NotZero(t, outcomes[Unknown])
		require.NotZero(t, answered)
	})
}

// lostCycle runs calls on a session that is cut some times, and then for ever.
func lostCycle(t *testing.T, rng *mrand.Rand, calls int) (answered int, outcomes [5]int) {
	r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()},
		opts: faultnet.LinkOptions{Delay: time.Millisecond, CutDelivers: rng.IntN(2) == 0}}
	var mu sync.Mutex
	runs := map[uint64]int{}
	r.mux.SetCall(func(m *Message) ([]byte, error) {
		id := binary.BigEndian.Uint64(m.Value)
		mu.Lock()
		runs[id]++
		mu.Unlock()
		time.Sleep(time.Duration(id%7) * time.Millisecond)
		return echo(m)
	})
	cfg := Config{ResumeWindow: 2 * time.Second, ReplayWindow: 4 << 10, MaxInFlight: 16}
	r.dial(cfg, AcceptorConfig{Config: cfg})
	results := make([]error, calls)
	var wg sync.WaitGroup
	for i := range calls {
		size := 8 + rng.IntN(1<<rng.IntN(16))
		after := time.Duration(rng.IntN(60)) * time.Millisecond
		wg.Go(func() {
			time.Sleep(after)
			body := make([]byte, size)
			_, _ = rand.Read(body)
			binary.BigEndian.PutUint64(body, uint64(i))
			_, results[i] = r.dialer.Call(t.Context(), "", body)
		})
	}
	for range rng.IntN(4) {
		time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond)
		r.link(-1).CutAfter(int64(rng.IntN(20_000)))
	}
	time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
	r.block(true)
	r.link(-1).CutAfter(int64(rng.IntN(20_000)))
	time.Sleep(100 * time.Millisecond)
	r.link(-1).Cut()
	wg.Wait()
	wantLost(t, r.dialer)
	wantLost(t, r.accepted)
	r.serving.Wait()
	r.wantNothingLeft()
	for i, err := range results {
		n := runs[uint64(i)]
		if err == nil {
			answered++
			require.Equal(t, 1, n, "answered call %d", i)
			continue
		}
		var e *Error
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, ErrSessionLost)
		outcomes[e.Outcome]++
		switch e.Outcome {
		case NotSent:
			require.Zero(t, n, "call %d: %v", i, err)
		case Delivered:
			require.Equal(t, 1, n, "call %d: %v", i, err)
		default:
			require.LessOrEqual(t, n, 1, "call %d: %v", i, err)
		}
	}
	return answered, outcomes
}

// Row: S5.
func TestAnAcceptorThatWasRestartedEndsTheSessionAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
		stop := make(chan struct{})
		r.mux.SetCall(func(*Message) ([]byte, error) { <-stop; return nil, nil })
		r.dial(Config{}, AcceptorConfig{})
		got := make(chan error, 2)
		call := func() {
			_, err := r.dialer.Call(t.Context(), "", []byte("x"))
			got <- err
		}
		go call()
		synctest.Wait()
		other, err := NewAcceptor(&AcceptorConfig{Config: Config{Local: "bob", Mux: r.mux}})
		require.NoError(t, err)
		r.block(true)
		r.link(-1).Cut()
		r.await(r.dialer, StateDetached)
		r.set(func() { r.acceptor, other = other, r.acceptor })
		began := time.Now()
		r.block(false)
		wantLost(t, r.dialer)
		require.Less(t, time.Since(began), 100*time.Millisecond)
		asError(t, <-got, Unknown)
		call()
		asError(t, <-got, NotSent)
		close(stop)
		_ = r.accepted.Close()
		synctest.Wait()
		require.Empty(t, other.Sessions())
		require.Zero(t, other.cfg.Quota.Snapshot().Sessions)
	})
}

// Row: S3. Every byte of the hello that brings the session back, and of its answer, and of what follows.
func TestACutAtAnyByteOfAResumptionLosesNothing(t *testing.T) {
	for _, delivers := range []bool{false, true} {
		for at := range int64(300) {
			inBubble(t, func(t *testing.T) {
				r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()},
					opts: faultnet.LinkOptions{Delay: time.Millisecond, CutDelivers: delivers}}
				r.prepare = func(i int, l *faultnet.Link) {
					if i == 1 || i == 2 {
						l.CutAfter(at)
					}
				}
				runs := 0
				r.mux.SetCall(func(m *Message) ([]byte, error) { runs++; return echo(m) })
				r.ours.SetCall(echo)
				r.dial(Config{}, AcceptorConfig{})
				var wg sync.WaitGroup
				for _, s := range []*Session{r.dialer, r.accepted} {
					wg.Go(func() {
						for i := range 5 {
							answer, err := s.Call(t.Context(), "", []byte{byte(i)})
							require.NoError(t, err, "cut at %d", at)
							require.Equal(t, []byte{byte(i)}, answer)
						}
					})
				}
				time.Sleep(3 * time.Millisecond)
				r.link(0).Cut()
				wg.Wait()
				require.Equal(t, 5, runs)
				require.NoError(t, r.dialer.Err())
				require.NoError(t, r.accepted.Err())
			})
		}
	}
}

// A session that never was is no session: the hello of the first carrier is not resumed.
func TestACutInTheMiddleOfTheFirstHelloLeavesNothing(t *testing.T) {
	for at := int64(1); at < 160; at++ {
		inBubble(t, func(t *testing.T) {
			a, err := NewAcceptor(&AcceptorConfig{Config: Config{ResumeWindow: time.Second}})
			require.NoError(t, err)
			link := faultnet.NewLink(faultnet.LinkOptions{CutDelivers: at%2 == 0})
			link.CutAfter(at)
			here, there := link.Ends()
			served := make(chan struct{})
			go func() {
				_ = a.Serve(there, "alice")
				close(served)
			}()
			open := func(context.Context, Want) (net.Conn, error) { return nil, errNoRoute }
			s, err := Dial(t.Context(), here, "bob", open, &Config{ResumeWindow: time.Second})
			if err == nil {
				wantLost(t, s)
				<-s.readerDone
				s.awaitCarriers()
			} else {
				asError(t, err, NotSent)
			}
			<-served
			time.Sleep(time.Second)
			require.Empty(t, a.Sessions())
			require.Empty(t, a.promised)
			require.Zero(t, a.cfg.Quota.Snapshot().Sessions)
		})
	}
}

// Row: S5. The shorter window of both sides holds, and a side that has none makes a session that ends with its carrier.
// Claim: session.Config.ResumeWindow
func TestTheShorterResumeWindowHolds(t *testing.T) {
	const s = time.Second
	for _, c := range []struct{ dial, accept, want time.Duration }{
		{10 * s, 20 * s, 10 * s}, {20 * s, 10 * s, 10 * s}, {0, 5 * s, 5 * s}, {0, 0, 60 * s}, {time.Millisecond, 0, time.Millisecond},
		{time.Microsecond, 0, time.Microsecond}, {1000 * time.Hour, 30 * time.Minute, 30 * time.Minute},
		{-1, 10 * s, -1}, {10 * s, -1, -1}, {-1, -1, -1},
	} {
		inBubble(t, func(t *testing.T) {
			r := newRoad(t, Config{ResumeWindow: c.dial}, AcceptorConfig{Config: Config{ResumeWindow: c.accept}}, faultnet.LinkOptions{})
			r.block(true)
			began := time.Now()
			r.link(0).Cut()
			for _, side := range []*Session{r.dialer, r.accepted} {
				require.Equal(t, c.want > 0, side.Snapshot().Resumable, "%v", c)
				wantLost(t, side)
				require.InDelta(t, max(c.want, 0), time.Since(began), float64(time.Millisecond), "%v", c)
				states := []State{StateConnected, StateDetached, StateEnded}
				if c.want < 0 {
					states = []State{StateConnected, StateEnded}
				}
				require.Equal(t, states, r.states(side), "%v", c)
			}
			r.serving.Wait()
			r.wantNothingLeft()
		})
	}
}

// Row: S1. A peer that does not set the capability, whatever else it says, has sessions that end with their carrier.
func TestAPeerWithoutTheCapabilityHasNoSegments(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{Config: Config{Mux: echoing()}}, frame.CapZstd, generous)
		require.False(t, w.s.Snapshot().Resumable)
		w.request(1, "", "plain frames")
		require.Contains(t, string(w.want(frame.TypeResponse, 1).body), "plain frames")
		_ = w.conn.Close()
		require.ErrorIs(t, w.wantEnd(), ErrSessionLost)
	})
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{}, frame.CapZstd, generous)
		require.False(t, w.s.Snapshot().Resumable)
		_ = w.conn.Close()
		require.ErrorIs(t, w.wantEnd(), ErrSessionLost)
	})
}

func echoing() *Mux {
	m := NewMux()
	m.SetCall(echo)
	return m
}

// Defect S-g: an Opener that hangs, and a peer that does not answer, are given up.
func TestAnAttemptThatHangsIsGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{HandshakeTimeout: time.Second}, AcceptorConfig{}, faultnet.LinkOptions{})
		began := time.Now()
		open, hang := r.dialer.carriers.open, 0
		r.dialer.carriers.open = func(ctx context.Context, want Want) (net.Conn, error) {
			switch hang++; hang {
			case 1:
				<-ctx.Done()
				return nil, ctx.Err()
			case 2:
				a, _ := faultnet.Pipe(faultnet.LinkOptions{})
				return a, nil
			}
			return open(ctx, want)
		}
		r.link(0).Cut()
		r.await(r.dialer, StateResumed)
		require.Equal(t, 3, hang)
		require.LessOrEqual(t, time.Since(began), maxReattach+2*time.Second)
	})
}

// Row: U12.
func TestCloseOfADetachedSessionEndsIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.lose()
		began := time.Now()
		require.NoError(t, r.dialer.Close())
		require.LessOrEqual(t, time.Since(began), time.Second)
		require.ErrorIs(t, r.dialer.Err(), net.ErrClosed)
		require.NoError(t, r.accepted.Close())
		require.ErrorIs(t, r.accepted.Err(), net.ErrClosed)
		r.serving.Wait()
		r.wantNothingLeft()
		require.ErrorIs(t, r.dialer.AwaitCarrier(t.Context()), ErrClosed)
	})
	inBubble(t, func(t *testing.T) { // in the middle of an attempt
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.dialer.carriers.open = func(ctx context.Context, want Want) (net.Conn, error) {
			a, _ := faultnet.Pipe(faultnet.LinkOptions{})
			return a, nil
		}
		r.link(0).Cut()
		r.await(r.dialer, StateDetached)
		synctest.Wait()
		began := time.Now()
		require.NoError(t, r.dialer.Close())
		require.LessOrEqual(t, time.Since(began), time.Second)
	})
}

// A side that closes while the other is away is not waited for longer than it takes to ask for it.
func TestADialerThatComesBackToASessionThatWasClosedLearnsOfIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.lose()
		require.NoError(t, r.accepted.Close())
		r.block(false)
		began := time.Now()
		wantLost(t, r.dialer)
		require.Less(t, time.Since(began), time.Second)
		require.False(t, errors.Is(r.dialer.Err(), net.ErrClosed))
	})
}
