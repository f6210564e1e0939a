package session

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

// Row: N6
func TestShutdownDeliversWhatSendHasTaken(t *testing.T) {
	for _, window := range []int{200, 1 << 20} {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{}, AcceptorConfig{Config: Config{MessageWindow: window}})
			var got []string
			p.mux.SetLink("log", func(m *Message) {
				time.Sleep(10 * time.Millisecond)
				got = append(got, string(m.Value))
			})
			for i := range 100 {
				go func() { _ = p.dialer.Send(t.Context(), "log", fmt.Appendf(nil, "%d", i)) }()
				synctest.Wait()
			}
			require.NoError(t, p.dialer.Shutdown(t.Context()))
			require.Len(t, got, 100)
			for i, v := range got {
				require.Equal(t, fmt.Sprint(i), v)
			}
			require.NoError(t, p.dialer.Flush(t.Context()))
			require.ErrorIs(t, p.dialer.Err(), ErrGoingAway)
			<-p.accepted.Done()
			require.ErrorIs(t, p.accepted.Err(), ErrGoingAway)
			wantZero(t, p.dialer)
			wantZero(t, p.accepted)
		})
	}
}

func TestShutdownLetsQueuedCallsRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MaxInFlight: 2}})
		p.mux.SetCall(func(m *Message) ([]byte, error) {
			time.Sleep(time.Second)
			return m.Value, nil
		})
		var wg sync.WaitGroup
		for range 9 {
			wg.Go(func() {
				_, err := p.dialer.Call(t.Context(), "", make([]byte, 100<<10))
				require.NoError(t, err)
			})
		}
		synctest.Wait()
		began := time.Now()
		require.NoError(t, p.dialer.Shutdown(t.Context()))
		wg.Wait()
		require.Equal(t, 5*time.Second, time.Since(began).Round(time.Second))
		wantZero(t, p.dialer)
	})
}

// Row: D15
func TestShutdownWaitsForEverythingOfBothSides(t *testing.T) {
	work := map[string]func(p *pair) error{
		"call out":     func(p *pair) error { _, err := p.dialer.Call(p.t.Context(), "slow", nil); return err },
		"call in":      func(p *pair) error { _, err := p.accepted.Call(p.t.Context(), "slow", nil); return err },
		"messages out": func(p *pair) error { return p.dialer.Send(p.t.Context(), "slow", nil) },
		"messages in":  func(p *pair) error { return p.accepted.Send(p.t.Context(), "slow", nil) },
		"stream out": func(p *pair) error {
			st, err := p.dialer.OpenStream(p.t.Context(), "slow", nil)
			if err == nil {
				_, err = io.ReadAll(st)
				_ = st.Close()
			}
			return err
		},
		"stream in": func(p *pair) error {
			st, err := p.accepted.OpenStream(p.t.Context(), "slow", nil)
			if err == nil {
				_, err = io.ReadAll(st)
				_ = st.Close()
			}
			return err
		},
		"dedicated": func(p *pair) error {
			st, err := p.dialer.OpenStream(p.t.Context(), "slow", &StreamOptions{Dedicated: true})
			if err == nil {
				_, err = io.ReadAll(st)
				_ = st.Close()
			}
			return err
		},
	}
	for name, do := range work {
		for _, drainer := range []string{"dialer", "acceptor", "both"} {
			t.Run(name+" "+drainer, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := newPair(t, Config{}, AcceptorConfig{})
					finished := 0
					for _, x := range []*Mux{p.mux, p.ours} {
						x.SetLink("slow", func(m *Message) {
							time.Sleep(5 * time.Second)
							finished++
							_ = m.Reply(nil)
						})
						x.SetStream("slow", func(*Stream) {
							time.Sleep(5 * time.Second)
							finished++
						})
					}
					result := make(chan error, 1)
					go func() { result <- do(p) }()
					synctest.Wait()
					began := time.Now()
					var wg sync.WaitGroup
					if drainer != "acceptor" {
						wg.Go(func() { require.NoError(t, p.dialer.Shutdown(t.Context())) })
					}
					if drainer != "dialer" {
						wg.Go(func() { require.NoError(t, p.acceptor.Shutdown(t.Context())) })
					}
					wg.Wait()
					<-p.dialer.Done()
					require.NoError(t, <-result)
					require.Equal(t, 1, finished)
					require.GreaterOrEqual(t, time.Since(began), 5*time.Second)
					require.LessOrEqual(t, time.Since(began), 5*time.Second+p.dialer.cfg.CloseTimeout)
					require.ErrorIs(t, p.dialer.Err(), ErrGoingAway)
					wantZero(t, p.dialer)
					wantZero(t, p.accepted)
				})
			})
		}
	}
}

// Claim: session.ErrGoingAway
func TestNewWorkIsRefusedByADrain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{}, 0, generous)
		w.s.cfg.Mux.SetCall(func(*Message) ([]byte, error) {
			time.Sleep(time.Second)
			return nil, nil
		})
		w.request(1, "", "")
		synctest.Wait()
		w.s.Drain("for lunch")
		require.Equal(t, "for lunch", w.wantFailure(frame.TypeGoAway, 1, codes.GoingAway).Text)
		w.request(3, "", "late")
		w.wantFailure(frame.TypeError, 3, codes.GoingAway)
		w.send(frame.TypeStreamOpen, 0, 5, []byte("x"))
		w.wantFailure(frame.TypeStreamReset, 5, codes.GoingAway)
		for _, err := range []error{
			w.s.Send(t.Context(), "x", nil),
			func() error { _, err := w.s.Call(t.Context(), "x", nil); return err }(),
			func() error { _, err := w.s.OpenStream(t.Context(), "x", nil); return err }(),
		} {
			require.ErrorIs(t, err, ErrGoingAway)
			asError(t, err, NotSent)
		}
		w.want(frame.TypeResponse, 1)
		w.wantFailure(frame.TypeGoAway, 5, codes.Closed) // the grace is over, and nobody has closed
		<-w.gone
		wantZero(t, w.s)
	})
}

// Claim: session.Snapshot.Draining
func TestGoAwayOfThePeerEndsOnlyWhatItWillNotServe(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		limits := generous
		limits.MaxInFlight = 2
		w := dialed(t, Config{}, 0, limits)
		results := make([]error, 3)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() { _, results[i] = w.s.Call(t.Context(), "", []byte{byte(i)}) })
			synctest.Wait()
		}
		w.want(frame.TypeRequest, 1)
		w.want(frame.TypeRequest, 3)
		opening := make(chan error, 1)
		go func() {
			_, err := w.s.OpenStream(t.Context(), "x", nil)
			opening <- err
		}()
		w.want(frame.TypeStreamOpen, 5)
		w.failure(frame.TypeGoAway, 1, codes.GoingAway)
		require.ErrorIs(t, <-opening, ErrGoingAway)
		w.wantAlive()
		require.True(t, w.s.Draining())
		w.respond(1, "served")
		wg.Wait()
		require.NoError(t, results[0])
		for _, err := range results[1:] {
			require.ErrorIs(t, err, ErrGoingAway)
			asError(t, err, NotSent)
		}
		w.wantFailure(frame.TypeGoAway, 0, codes.Closed)
		<-w.gone
		require.ErrorIs(t, w.wantEnd(), ErrGoingAway)
	})
}

func TestADrainWaitsAgainForWhatCameWithinItsGrace(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := accepted(t, AcceptorConfig{}, 0, generous)
		handled := 0
		w.s.cfg.Mux.SetLink("log", func(*Message) {
			time.Sleep(3 * time.Second)
			handled++
		})
		done := make(chan error, 1)
		go func() { done <- w.s.Shutdown(t.Context()) }()
		w.wantFailure(frame.TypeGoAway, 0, codes.GoingAway)
		time.Sleep(partingGrace / 2)
		w.message(1, "log", "sent before the GOAWAY arrived")
		w.want(frame.TypeMessageAck, 1)
		require.NoError(t, <-done)
		require.Equal(t, 1, handled)
	})
}

func TestShutdownIsBoundByItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{RequestTimeout: -1}, AcceptorConfig{})
		var cancelled time.Duration
		began := time.Now()
		p.mux.SetCall(func(m *Message) ([]byte, error) {
			<-m.Context().Done()
			cancelled = time.Since(began)
			return nil, m.Context().Err()
		})
		result := make(chan error, 1)
		go func() {
			_, err := p.dialer.Call(t.Context(), "", nil)
			result <- err
		}()
		synctest.Wait()
		err := p.acceptor.Shutdown(within(t, 2*time.Second))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 2*time.Second, time.Since(began))
		err = <-result
		asError(t, err, Unknown)
		synctest.Wait()
		require.Equal(t, 2*time.Second, cancelled)
		wantZero(t, p.accepted)
		require.Empty(t, p.acceptor.Sessions())
		require.Zero(t, p.acceptor.cfg.Quota.Snapshot().Sessions)
	})
}

func TestAcceptorShutdownCutsHellosInProgress(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, err := NewAcceptor(nil)
		require.NoError(t, err)
		here, there := net.Pipe()
		resets := make(chan codes.Code, 1)
		served := make(chan error, 1)
		go func() { served <- a.Serve(&fakeConn{Conn: there, reset: func(c codes.Code) { resets <- c }}, "x") }()
		_, err = here.Write([]byte{0})
		require.NoError(t, err)
		require.NoError(t, a.Shutdown(t.Context()))
		require.Equal(t, codes.GoingAway, <-resets)
		require.Error(t, <-served)
		_, there = net.Pipe()
		err = a.Serve(there, "x")
		require.ErrorIs(t, err, ErrGoingAway)
		require.NoError(t, a.Shutdown(t.Context()))
	})
}

// Claim: session.Config.MaxRequests
func TestMaxRequestsDrainsAndLetsCallsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MaxRequests: 3}})
		p.mux.SetCall(func(m *Message) ([]byte, error) {
			time.Sleep(time.Second)
			return m.Value, nil
		})
		var ok, refused int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, err := p.dialer.Call(t.Context(), "", []byte("x"))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					ok++
				} else {
					require.ErrorIs(t, err, ErrGoingAway)
					asError(t, err, NotSent)
					refused++
				}
			})
		}
		wg.Wait()
		require.Equal(t, 3, ok)
		require.Equal(t, 5, refused)
		<-p.dialer.Done()
		<-p.accepted.Done()
		wantZero(t, p.accepted)
	})
}

func TestCloseSendsWhatWasQueued(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{MessageWindow: 8 << 20}})
		got := 0
		p.mux.SetLink("log", func(m *Message) { got += len(m.Value) })
		want := 0
		for range 20 {
			require.NoError(t, p.dialer.Send(t.Context(), "log", make([]byte, 100<<10)))
			want += 100 << 10
		}
		require.NoError(t, p.dialer.Close())
		<-p.accepted.Done()
		synctest.Wait()
		require.GreaterOrEqual(t, p.accepted.Snapshot().MessagesIn, uint64(20))
		require.ErrorIs(t, p.accepted.Err(), ErrSessionLost)
		require.ErrorIs(t, p.dialer.Err(), ErrClosed)
	})
}

func TestCloseIsSafeFromAnywhereAndTwice(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetCall(func(m *Message) ([]byte, error) {
			require.NoError(t, m.Session().Close())
			require.NoError(t, m.Session().Close())
			return nil, nil
		})
		_, err := p.dialer.Call(t.Context(), "", nil)
		require.ErrorIs(t, err, ErrSessionLost)
		asError(t, err, Unknown)
		require.NoError(t, p.dialer.Close())
		require.NoError(t, p.dialer.Shutdown(t.Context()))
		wantZero(t, p.dialer)
		wantZero(t, p.accepted)

		p = newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetLink("bye", func(m *Message) { _ = m.Session().Close() })
		require.NoError(t, p.dialer.Send(t.Context(), "bye", nil))
		<-p.dialer.Done()
		p = newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetStream("bye", func(st *Stream) { _ = st.Session().Shutdown(within(t, time.Second)) })
		st, err := p.dialer.OpenStream(t.Context(), "bye", nil)
		require.NoError(t, err)
		_, err = st.Read(make([]byte, 1))
		require.Error(t, err)
		wantZero(t, p.dialer)
	})
}

// Row: D22
// Claim: session.ErrClosed
func TestEverythingFailsAtOnceAfterClose(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		require.NoError(t, p.dialer.Close())
		began := time.Now()
		calls := map[string]func() error{
			"Call":     func() error { _, err := p.dialer.Call(t.Context(), "", nil); return err },
			"SendWait": func() error { _, err := p.dialer.SendWait(t.Context(), "x", nil); return err },
			"Send":     func() error { return p.dialer.Send(t.Context(), "x", nil) },
			"SendObj":  func() error { return p.dialer.SendObj(t.Context(), "x", "", 1) },
			"Open":     func() error { _, err := p.dialer.OpenStream(t.Context(), "x", nil); return err },
			"Dedicated": func() error {
				_, err := p.dialer.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: true})
				return err
			},
			"Ping": func() error { _, err := p.dialer.Ping(t.Context()); return err },
		}
		for name, call := range calls {
			err := call()
			require.ErrorIs(t, err, net.ErrClosed, name)
			require.ErrorIs(t, err, ErrClosed, name)
		}
		require.Equal(t, began, time.Now())
		require.Error(t, p.dialer.Context().Err())
	})
}

// Claim: session.Config.CloseTimeout
func TestCloseIsBoundWhenTheCarrierTakesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{CloseTimeout: 3 * time.Second}, 0, generous)
		require.NoError(t, w.s.Send(t.Context(), "x", make([]byte, 1<<20)))
		began := time.Now()
		err := w.s.Close()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		asError(t, err, NotSent)
		require.Equal(t, "x", asError(t, lostThings(t, err)[0], NotSent).Link)
		require.Equal(t, 3*time.Second+partingGrace, time.Since(began))
		err = w.s.Flush(t.Context())
		asError(t, err, NotSent)
		require.ErrorIs(t, err, ErrClosed)
	})
}

func TestADrainEndsThoughWaitersHaveGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{}, 0, frame.Limits{MaxMessage: 1 << 20, MaxStreams: 1}) // takes no requests and no messages
		_, err := w.s.Call(within(t, time.Second), "", []byte("x"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		asError(t, err, NotSent)
		err = w.s.Send(within(t, time.Second), "x", []byte("x"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		asError(t, err, NotSent)
		began := time.Now()
		require.NoError(t, w.s.Shutdown(t.Context()))
		require.Equal(t, partingGrace+w.s.cfg.CloseTimeout, time.Since(began), "the drain's grace, and that of Close")
		wantZero(t, w.s)
	})
}

func TestADrainedCarrierIsClosedNotReset(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, err := NewAcceptor(nil)
		require.NoError(t, err)
		reset := make(chan codes.Code, 2)
		here, there := net.Pipe()
		watch := func(c net.Conn) net.Conn {
			return &fakeConn{Conn: c, reset: func(code codes.Code) { reset <- code }}
		}
		go func() { _ = a.Serve(watch(there), "x") }()
		s, err := Dial(t.Context(), watch(here), "y", nil, nil)
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, a.Shutdown(t.Context()))
		<-s.Done()
		synctest.Wait()
		if len(reset) > 0 {
			require.Fail(t, "reset", "%v: %v; %v", <-reset, s.Err(), a.Sessions())
		}
	})
}

func TestNothingFollowsTheGoAwayOfClose(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := silent(t, mortal, 0, generous)
		r := frame.NewReader(w.conn, func(int) {})
		next := func() frame.Header {
			h, _, err := r.Next()
			require.NoError(t, err)
			return h
		}
		go func() {
			st, err := w.s.OpenStream(t.Context(), "x", nil)
			require.NoError(t, err)
			_, err = st.Write(make([]byte, 200<<10))
			require.ErrorIs(t, err, ErrClosed)
		}()
		require.Equal(t, frame.TypeStreamOpen, next().Type)
		w.send(frame.TypeStreamAccept, 0, 1, nil)
		for left := firstFlight; left > 0; {
			h := next()
			require.Equal(t, frame.TypeStreamData, h.Type)
			left -= h.Length
		}
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- w.s.Close() }()
		time.Sleep(w.s.cfg.CloseTimeout + partingGrace/2) // no credit comes, and GOAWAY is being written
		synctest.Wait()
		h := next()
		for h.Type == frame.TypeStreamData || h.Type == frame.TypePong { // on their way before
			h = next()
		}
		require.Equal(t, frame.TypeGoAway, h.Type)
		_, _, err := r.Next()
		require.ErrorIs(t, err, io.EOF)
		require.ErrorIs(t, w.wantEnd(), ErrClosed)
		require.Equal(t, "x", asError(t, lostThings(t, <-closed)[0], Unknown).Link, "what the stream had sent")
	})
}

// lostThings returns the errors for what Close names as not arrived.
func lostThings(t *testing.T, err error) []error {
	t.Helper()
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "close", failed.Op)
	joined, ok := failed.Err.(interface{ Unwrap() []error })
	require.True(t, ok, "%v", err)
	return joined.Unwrap()
}

// An answer under way is waited for while it makes progress, and what a peer writes to a stream is not.
func TestCloseWaitsForAnAnswerThatIsArriving(t *testing.T) {
	testEndWhileThePeerSendsMuch(t, func(r *road, answered <-chan error) {
		require.NoError(t, r.dialer.Close())
		require.NoError(t, <-answered)
	})
}

func TestAbortWaitsForNothing(t *testing.T) {
	testEndWhileThePeerSendsMuch(t, func(r *road, answered <-chan error) {
		began := time.Now()
		r.dialer.Abort()
		require.Zero(t, time.Since(began))
		require.ErrorIs(t, <-answered, ErrClosed)
	})
}

func testEndWhileThePeerSendsMuch(t *testing.T, end func(r *road, answered <-chan error)) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{DisableCompression: true}, AcceptorConfig{Config: Config{ReplayWindow: 64 << 10}},
			faultnet.LinkOptions{Delay: 5 * time.Millisecond, Rate: 10 * mbit})
		cancelled := make(chan struct{})
		r.mux.SetCall(func(m *Message) ([]byte, error) {
			context.AfterFunc(m.Context(), func() { close(cancelled) })
			return make([]byte, 4<<20), nil
		})
		r.mux.SetStream("much", func(st *Stream) {
			_, err := st.Write(make([]byte, 64<<20))
			require.ErrorIs(t, err, ErrSessionLost)
		})
		st, err := r.dialer.OpenStream(t.Context(), "much", nil)
		require.NoError(t, err)
		go func() { _, _ = io.Copy(io.Discard, st) }() // until the session has ended
		answered := make(chan error, 1)
		go func() {
			_, err := r.dialer.Call(t.Context(), "", nil)
			answered <- err
		}()
		time.Sleep(time.Second)
		end(r, answered)
		<-cancelled
		<-r.accepted.Done()
		require.ErrorIs(t, r.accepted.Err(), ErrSessionLost)
		r.wantNothingLeft()
	})
}

func TestAWriteWhileThePeerClosesFailsAsOneAfterIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := silent(t, mortal, 0, generous)
		opened := make(chan *Stream, 1)
		go func() {
			st, err := w.s.OpenStream(t.Context(), "x", nil)
			require.NoError(t, err)
			opened <- st
		}()
		_, _, err := frame.NewReader(w.conn, func(int) {}).Next()
		require.NoError(t, err)
		w.send(frame.TypeStreamAccept, 0, 1, nil)
		st := <-opened
		w.failure(frame.TypeGoAway, 1, codes.Closed)
		synctest.Wait() // our own waits to be read
		_, during := st.Write([]byte("x"))
		require.NoError(t, w.s.Err())
		require.ErrorIs(t, w.wantEnd(), ErrSessionLost)
		_, after := st.Write([]byte("x"))
		require.EqualError(t, during, after.Error())
		require.ErrorIs(t, during, ErrSessionLost)
		require.NotErrorIs(t, during, ErrClosed)
	})
}
