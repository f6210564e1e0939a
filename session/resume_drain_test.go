package session

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
)

// Defect S-d. Row: U12. The last word is read before a carrier that takes no more writes is given up.
func TestCloseIsToldToASideThatIsWriting(t *testing.T) { testCloseIsTold(t, false, true) }

// Defect S-d. Row: U12. Close says so within its time, whatever waits to be sent.
func TestCloseIsToldByASideThatIsWriting(t *testing.T) { testCloseIsTold(t, true, false) }

func testCloseIsTold(t *testing.T, closerWrites, otherWrites bool) {
	for _, side := range []string{"dialing", "accepting"} {
		t.Run(side, func(t *testing.T) {
			for i := range 50 {
				inBubble(t, func(t *testing.T) {
					r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Buffer: 8 << 10, Delay: 5 * time.Millisecond})
					flood := func(st *Stream, writes bool) {
						if writes {
							go func() { _, _ = io.Copy(io.Discard, st) }()
							_, _ = io.CopyN(st, zeros{}, 1<<30)
						} else {
							_, _ = io.Copy(io.Discard, st)
						}
					}
					closes, other := r.dialer, r.accepted
					dialerWrites, acceptorWrites := closerWrites, otherWrites
					if side == "accepting" {
						closes, other = other, closes
						dialerWrites, acceptorWrites = acceptorWrites, dialerWrites
					}
					r.mux.SetStream("flood", func(st *Stream) { flood(st, acceptorWrites) })
					st, err := r.dialer.OpenStream(t.Context(), "flood", nil)
					require.NoError(t, err)
					go flood(st, dialerWrites)
					time.Sleep(time.Second + time.Duration(i)*time.Millisecond)
					require.NoError(t, closes.Close())
					began := time.Now()
					require.True(t, wantLost(t, other).Remote, "%v", other.Err())
					require.Less(t, time.Since(began), time.Second)
					require.NotContains(t, r.states(other), StateDetached)
				})
			}
		})
	}
}

// Defect S-d. The last word leaves, though another goroutine than the session's writer may be at the carrier.
func TestCloseIsToldToASideThatWaitsForItsReader(t *testing.T) {
	for range 100 {
		inBubble(t, func(t *testing.T) {
			r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Buffer: 8 << 10, Delay: 5 * time.Millisecond})
			r.mux.SetStream("flood", func(st *Stream) { _, _ = io.CopyN(st, zeros{}, 1<<30) })
			st, err := r.dialer.OpenStream(t.Context(), "flood", nil)
			require.NoError(t, err)
			_, err = io.ReadFull(st, make([]byte, 1<<20))
			require.NoError(t, err)
			require.NoError(t, r.dialer.Close())
			began := time.Now()
			require.True(t, wantLost(t, r.accepted).Remote, "%v", r.accepted.Err())
			require.Less(t, time.Since(began), time.Second)
		})
	}
}

// Defect S-d. A write that fails may be noticed before the last words have been read: they are read all the same.
func TestCloseIsToldToASideWhoseWriteFailsFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, opts: faultnet.LinkOptions{Delay: 5 * time.Millisecond}}
		r.mux.SetStream("flood", func(st *Stream) { _, _ = io.CopyN(st, zeros{}, 1<<30) })
		r.wrap = func(_ int, here, there net.Conn) (net.Conn, net.Conn) {
			return here, &fakeConn{Conn: there, read: func(p []byte) (int, error) { // one frame after the other, and each late
				n, err := there.Read(p[:min(len(p), 16)])
				time.Sleep(time.Millisecond)
				return n, err
			}}
		}
		r.dial(Config{}, AcceptorConfig{})
		st, err := r.dialer.OpenStream(t.Context(), "flood", nil)
		require.NoError(t, err)
		go func() { _, _ = io.Copy(io.Discard, st) }()
		time.Sleep(time.Second)
		require.NoError(t, r.dialer.Close())
		began := time.Now()
		require.True(t, wantLost(t, r.accepted).Remote, "%v", r.accepted.Err())
		require.Less(t, time.Since(began), time.Second)
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What is queued is given CloseTimeout to leave, also when another goroutine than the session's writer sends it.
func TestCloseGivesTimeToWhatTheFlowStillSends(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, opts: faultnet.LinkOptions{Buffer: 4 << 10, Delay: time.Millisecond}}
		r.mux.SetLink("tell", func(*Message) {})
		r.mux.SetStream("flood", func(st *Stream) { _, _ = io.CopyN(st, zeros{}, 1<<30) })
		r.dial(Config{CloseTimeout: 10 * time.Second}, AcceptorConfig{})
		st, err := r.dialer.OpenStream(t.Context(), "flood", nil)
		require.NoError(t, err)
		go func() { _, _ = io.Copy(io.Discard, st) }()
		time.Sleep(100 * time.Millisecond)
		const n = 300
		for range n {
			require.NoError(t, r.dialer.Send(t.Context(), "tell", make([]byte, 2000)))
		}
		require.NoError(t, r.dialer.Close())
		wantLost(t, r.accepted)
		synctest.Wait()
		require.EqualValues(t, n, r.accepted.Snapshot().MessagesIn, "messages that were queued before Close")
	})
}

func testCutDuringDrain(t *testing.T, shut func(r *road) error, away time.Duration, awayFirst bool) {
	r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
	release := make(chan struct{})
	r.mux.SetCall(func(m *Message) ([]byte, error) {
		<-release
		return echo(m)
	})
	r.dial(Config{}, AcceptorConfig{})
	got := make(chan error, 1)
	go func() {
		answer, err := r.dialer.Call(t.Context(), "", []byte("work"))
		if err == nil && string(answer) != "work" {
			err = io.ErrUnexpectedEOF
		}
		got <- err
	}()
	synctest.Wait()
	done := make(chan error, 1)
	go func() { done <- shut(r) }()
	synctest.Wait()
	r.block(true)
	r.link(-1).Cut()
	time.Sleep(away)
	if !awayFirst {
		close(release)
		synctest.Wait()
		time.Sleep(away)
	}
	r.block(false)
	if awayFirst {
		r.await(r.dialer, StateResumed)
		close(release)
	}
	require.NoError(t, <-got)
	require.NoError(t, <-done)
	<-r.dialer.Done()
	<-r.accepted.Done()
	<-r.dialer.Done()
	<-r.accepted.Done()
	require.ErrorIs(t, r.dialer.Err(), ErrGoingAway)
	require.ErrorIs(t, r.accepted.Err(), ErrGoingAway)
	r.wantNothingLeft()
}

var shutters = map[string]func(r *road) error{
	"dialing side":   func(r *road) error { return r.dialer.Shutdown(within(r.t, time.Minute)) },
	"accepting side": func(r *road) error { return r.accepted.Shutdown(within(r.t, time.Minute)) },
	"acceptor":       func(r *road) error { return r.acceptor.Shutdown(within(r.t, time.Minute)) },
}

func TestADrainFinishesAfterACutWhatIsInFlight(t *testing.T) {
	for name, shut := range shutters {
		for _, away := range []time.Duration{0, 9 * time.Second} {
			t.Run(name+", away for "+away.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T) { testCutDuringDrain(t, shut, away, true) })
			})
		}
	}
}

// The handler has answered while there was no carrier: the drain is not over before the answer has arrived.
func TestADrainFinishesWhatWasAnsweredWhileThereWasNoCarrier(t *testing.T) {
	for name, shut := range shutters {
		for _, away := range []time.Duration{0, 9 * time.Second} {
			t.Run(name+", away for "+away.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T) { testCutDuringDrain(t, shut, away, false) })
			})
		}
	}
}

// The answer has left the session and is lost with the carrier: the drain is not over before it has arrived.
func TestADrainDoesNotEndBeforeItsLastAnswerHasArrived(t *testing.T) {
	for name, shut := range shutters {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
				release := make(chan struct{})
				r.mux.SetCall(func(m *Message) ([]byte, error) {
					<-release
					return echo(m)
				})
				r.dial(Config{}, AcceptorConfig{})
				got := make(chan error, 1)
				go func() {
					_, err := r.dialer.Call(t.Context(), "", []byte("work"))
					got <- err
				}()
				synctest.Wait()
				done := make(chan error, 1)
				go func() { done <- shut(r) }()
				synctest.Wait()
				r.link(-1).Freeze()
				close(release)
				synctest.Wait() // the answer is on its way
				r.link(-1).Cut()
				require.NoError(t, <-got)
				require.NoError(t, <-done)
			})
		})
	}
}

// The first thing after the hello fails: the session is there, and looks for another carrier.
func TestACarrierThatFailsRightAfterTheHelloIsReplaced(t *testing.T) {
	for range 200 {
		inBubble(t, func(t *testing.T) {
			r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
			r.mux.SetCall(echo)
			r.wrap = func(i int, here, there net.Conn) (net.Conn, net.Conn) {
				if i > 0 {
					return here, there
				}
				writes := 0
				return &fakeConn{Conn: here, write: func(p []byte) (int, error) {
					if writes++; writes == 2 {
						return 0, io.ErrClosedPipe
					}
					return here.Write(p)
				}}, there
			}
			r.dial(Config{}, AcceptorConfig{})
			answer, err := r.dialer.Call(t.Context(), "", []byte("x"))
			require.NoError(t, err)
			require.Equal(t, "x", string(answer))
			for _, s := range []*Session{r.dialer, r.accepted} {
				require.Equal(t, []State{StateConnected, StateDetached, StateResumed}, r.states(s))
			}
		})
	}
}

// A peer that ends the session with a code right after its ACK.
func TestACarrierThatIsResetWithACodeRightAfterTheHelloEndsTheSession(t *testing.T) {
	for range 200 {
		inBubble(t, func(t *testing.T) {
			r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
			r.wrap = func(i int, here, there net.Conn) (net.Conn, net.Conn) {
				writes := 0
				return &fakeConn{Conn: here, write: func(p []byte) (int, error) {
					if writes++; writes == 2 {
						return 0, &Error{Op: "carrier", Remote: true, Code: codes.Protocol}
					}
					return here.Write(p)
				}}, there
			}
			r.dial(Config{}, AcceptorConfig{Config: Config{ResumeWindow: time.Second}})
			require.ErrorIs(t, wantLost(t, r.dialer), ErrProtocol)
			wantLost(t, r.accepted)
			synctest.Wait()
			r.wantNothingLeft()
		})
	}
}

func TestACarrierMayBeCutRightAfterClose(t *testing.T) {
	for _, closer := range []string{"dialer", "acceptor", "both"} {
		t.Run(closer, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Delay: 100 * time.Millisecond})
				began := time.Now()
				var wg sync.WaitGroup
				if closer != "acceptor" {
					wg.Go(func() { require.NoError(t, r.dialer.Close()) })
				}
				if closer != "dialer" {
					wg.Go(func() { require.NoError(t, r.accepted.Close()) })
				}
				wg.Wait()
				r.link(-1).Cut() // a host that closes drops what its streams have not sent
				<-r.dialer.Done()
				<-r.accepted.Done()
				require.LessOrEqual(t, time.Since(began), 200*time.Millisecond, "one round trip")
				r.wantNothingLeft()
			})
		})
	}
}

func TestCloseWaitsForNobodyWhileThereIsNoCarrier(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.lose()
		began := time.Now()
		require.NoError(t, r.dialer.Close())
		require.Zero(t, time.Since(began))
		require.NoError(t, r.accepted.Close())
		require.Zero(t, time.Since(began))
		r.wantNothingLeft()
	})
}

// A dialing side that gave up before the ACK arrived does not know the session, and never comes back.
func TestASessionThatTheDialingSideNeverKnewEndsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, err := NewAcceptor(nil)
		require.NoError(t, err)
		link := &codedLink{link: faultnet.NewLink(faultnet.LinkOptions{Delay: 100 * time.Millisecond})}
		here, there := link.link.Ends()
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = a.Serve(&codedEnd{there, link, 1}, "alice")
		}()
		open := func(context.Context, Want) (net.Conn, error) { return nil, errNoRoute }
		_, err = Dial(within(t, 150*time.Millisecond), &codedEnd{here, link, 0}, "bob", open, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		<-served
		require.Empty(t, a.Sessions())
	})
}

// A session that was draining when it lost its carrier has nothing to wait for, once nothing is in flight.
func TestADrainThatLosesItsCarrierWithNothingInFlightEnds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		_, err := r.dialer.Ping(t.Context())
		require.NoError(t, err)
		handling, release := make(chan struct{}), make(chan struct{})
		r.mux.SetLink("slow", func(m *Message) {
			close(handling)
			<-release
		})
		require.NoError(t, r.dialer.Send(t.Context(), "slow", nil))
		<-handling
		stopped := make(chan error, 1)
		go func() { stopped <- r.acceptor.Shutdown(t.Context()) }()
		synctest.Wait()
		r.block(true) // the peer's process has ended
		r.link(-1).Cut()
		synctest.Wait()
		began := time.Now()
		close(release)
		require.NoError(t, <-stopped)
		require.LessOrEqual(t, time.Since(began), 2*partingGrace)
		r.dialer.Abort()
	})
}

// What Shutdown cuts off is over for the peer when Shutdown returns, though the host be closed then and whatever was on its way be lost:
// the peer does not look for the session until its resume window ends.
func TestThePeerKnowsWhatShutdownHasCutOff(t *testing.T) {
	for name, shutdown := range map[string]func(*road, context.Context) error{
		"session":  func(r *road, ctx context.Context) error { return r.accepted.Shutdown(ctx) },
		"acceptor": func(r *road, ctx context.Context) error { return r.acceptor.Shutdown(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Delay: 100 * time.Millisecond})
				handling := make(chan struct{})
				r.mux.SetCall(func(m *Message) ([]byte, error) {
					close(handling)
					<-m.Context().Done()
					return nil, m.Context().Err()
				})
				answered := make(chan error, 1)
				go func() {
					_, err := r.dialer.Call(t.Context(), "", nil)
					answered <- err
				}()
				<-handling
				over, cancel := context.WithCancel(t.Context())
				cancel()
				began := time.Now()
				require.ErrorIs(t, shutdown(r, over), context.Canceled)
				require.LessOrEqual(t, time.Since(began), partingGrace)
				r.block(true)
				r.link(-1).Vanish() // with what is on its way
				began = time.Now()
				var failed *Error
				require.ErrorAs(t, <-answered, &failed)
				require.Equal(t, codes.GoingAway, failed.Code)
				require.Zero(t, time.Since(began))
			})
		})
	}
}

// A peer that is silent holds up what Shutdown cuts off for no longer than the grace period.
func TestASilentPeerIsNotWaitedForByShutdown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.mux.SetCall(func(m *Message) ([]byte, error) {
			<-m.Context().Done()
			return nil, m.Context().Err()
		})
		answered := make(chan error, 1)
		go func() {
			_, err := r.dialer.Call(t.Context(), "", nil)
			answered <- err
		}()
		synctest.Wait()
		r.block(true)
		r.link(-1).Vanish()
		over, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		require.ErrorIs(t, r.acceptor.Shutdown(over), context.Canceled)
		require.Equal(t, partingGrace, time.Since(began))
		r.dialer.Abort()
		require.ErrorIs(t, <-answered, ErrClosed)
	})
}

// A request that was made while there was no carrier, and that no carrier was ever given, has not run.
func TestARequestThatNoCarrierWasGivenIsNotSent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{RequestTimeout: -1}, AcceptorConfig{}, faultnet.LinkOptions{})
		r.mux.SetCall(func(*Message) ([]byte, error) { return nil, nil })
		_, err := r.dialer.Call(t.Context(), "", nil)
		require.NoError(t, err)
		r.lose()
		results := make(chan error, 2)
		go func() {
			_, err := r.dialer.Call(t.Context(), "", []byte("x"))
			results <- err
		}()
		go func() { results <- errors.Join(r.dialer.Send(t.Context(), "x", nil), r.dialer.Flush(t.Context())) }()
		synctest.Wait()
		r.accepted.Abort() // the peer's process starts again, and knows nothing of the session
		r.block(false)
		for range 2 {
			err := <-results
			require.ErrorIs(t, err, ErrSessionLost)
			asError(t, err, NotSent)
		}
	})
}
