package session

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

// A peer that says GOAWAY(closed), answers PINGs and never says END keeps no session that has nothing for it.
func TestAPeerThatClosesAndNeverEndsKeepsNoSession(t *testing.T) {
	for name, end := range map[string]func(w *wire, ctx context.Context) error{
		"nothing":           func(w *wire, _ context.Context) error { <-w.s.Done(); return nil },
		"drain":             func(w *wire, _ context.Context) error { w.s.Drain("idle"); <-w.s.Done(); return nil },
		"session shutdown":  func(w *wire, ctx context.Context) error { return w.s.Shutdown(ctx) },
		"acceptor shutdown": func(w *wire, ctx context.Context) error { return w.a.Shutdown(ctx) },
		"close":             func(w *wire, _ context.Context) error { return w.s.Close() },
	} {
		for _, owed := range []bool{false, true} {
			if owed && name == "nothing" {
				continue // that is waited for as long as the peer waits
			}
			t.Run(name, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					w := accepted(t, AcceptorConfig{}, frame.CapEnds, generous)
					if owed {
						require.NoError(t, w.s.Send(t.Context(), "never acknowledged", nil))
						synctest.Wait()
					}
					w.push(frame.TypeGoAway, 0, 0, frame.AppendFailure(nil, frame.Failure{Code: codes.Closed}))
					synctest.Wait()
					began := time.Now()
					err := end(w, within(t, time.Hour))
					require.LessOrEqual(t, time.Since(began), w.s.cfg.CloseTimeout+2*partingGrace)
					require.Equal(t, owed && name != "drain", err != nil, "%v", err)
				})
			})
		}
	}
}

// What the peer did not read is named by Session.Close where the application has not closed the stream itself.
func TestCloseNamesSharedStreamsThatThePeerLeft(t *testing.T) {
	for name, leave := range map[string]func(st *Stream){
		"closes": func(st *Stream) { _ = st.Close() },
		"resets": func(st *Stream) { _ = st.Reset(77) },
		"panics": func(*Stream) { panic("a handler of the application's") },
	} {
		for _, closed := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := newPair(t, Config{}, AcceptorConfig{})
					hold := make(chan struct{})
					p.mux.SetStream("x", func(st *Stream) { <-hold; leave(st) })
					st, err := p.dialer.OpenStream(t.Context(), "x", nil)
					require.NoError(t, err)
					_, err = st.Write(make([]byte, 5000))
					require.NoError(t, err)
					close(hold)
					synctest.Wait()
					if closed {
						require.Error(t, st.Close())
						require.NoError(t, p.dialer.Close(), "the application has the error")
						return
					}
					var e *Error
					require.ErrorAs(t, lostThings(t, p.dialer.Close())[0], &e)
					require.Equal(t, "x", e.Link)
					require.True(t, e.Remote)
				})
			})
		}
	}
}

// An opening that the peer may have served has outcome Unknown, whatever becomes of further attempts.
func TestAnOpeningThatMayBeServedIsUnknown(t *testing.T) {
	for name, after := range map[string]func(r *streamRoad){
		"no road": func(r *streamRoad) { r.block(true) },
		"refused": func(r *streamRoad) { r.mux.SetStream("x", nil) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newStreamRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Delay: 10 * time.Millisecond})
				served := 0
				r.mux.SetStream("x", func(st *Stream) {
					served++
					after(r)
					r.cutStream() // ACCEPT is on its way
					<-st.Session().Done()
				})
				st, err := r.dialer.OpenStream(within(t, 3*time.Second), "x", outlasting)
				require.Equal(t, 1, served)
				if name == "refused" {
					require.NoError(t, err, "the stream is there")
					require.NoError(t, st.Close())
					return
				}
				asError(t, err, Unknown)
			})
		})
	}
}

// Handlers of streams that are opened and reset in turn are bounded on every lane.
func TestHandlersOfResetStreamsAreBounded(t *testing.T) {
	for name, opts := range map[string]*StreamOptions{"shared": nil, "dedicated": {Dedicated: true}, "resumable": outlasting} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newStreamRoad(t, Config{}, AcceptorConfig{Config: Config{MaxStreams: 2}}, faultnet.LinkOptions{})
				hold := make(chan struct{})
				r.mux.SetStream("x", func(*Stream) { <-hold })
				for range 50 {
					st, err := r.dialer.OpenStream(within(t, time.Second), "x", opts)
					if err != nil {
						require.ErrorIs(t, err, ErrUnavailable)
						continue
					}
					require.NoError(t, st.Reset(77))
					time.Sleep(10 * time.Millisecond)
				}
				r.accepted.mu.Lock()
				running := r.accepted.shared.handlers
				r.accepted.mu.Unlock()
				close(hold)
				require.LessOrEqual(t, running, 4)
			})
		})
	}
}

// Close from a handler takes no answer from another request, also when the handler has replied before.
func TestCloseFromAHandlerWaitsForTheOthers(t *testing.T) {
	for _, replied := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{}, AcceptorConfig{})
			p.mux.SetLink("slow", func(m *Message) { time.Sleep(time.Second); _ = m.Reply([]byte("x")) })
			p.mux.SetLink("close", func(m *Message) {
				if replied {
					require.NoError(t, m.Reply(nil))
					time.Sleep(10 * time.Millisecond)
				}
				require.NoError(t, m.Session().Close())
			})
			slow := make(chan error, 1)
			go func() { _, err := p.dialer.SendWait(t.Context(), "slow", nil); slow <- err }()
			synctest.Wait()
			_, err := p.dialer.SendWait(t.Context(), "close", nil)
			require.Equal(t, replied, err == nil)
			require.NoError(t, <-slow)
			<-p.accepted.Done()
			synctest.Wait()
		})
	}
}

// Close from the handler of a one-way message does not wait, and neither does the peer.
func TestCloseFromAOneWayHandlerIsQuick(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetLink("close", func(m *Message) { require.NoError(t, m.Session().Close()) })
		require.NoError(t, p.dialer.Send(t.Context(), "close", nil))
		began := time.Now()
		<-p.dialer.Done()
		<-p.accepted.Done()
		require.LessOrEqual(t, time.Since(began), partingGrace)
	})
}

// What a lane holds back is named when the peer has closed the session first, and a stream that the peer opens while lanes are flushed is
// refused.
func TestLanesAreToldOfWhenThePeerClosesFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetStream("x", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
		st, err := p.dialer.OpenStream(t.Context(), "x", nil)
		require.NoError(t, err)
		p.dialer.flushOnClose(func(ctx context.Context) error {
			require.Error(t, ctx.Err(), "the session has ended")
			_, err := st.Write([]byte("held back"))
			return err
		})
		go func() { _ = p.accepted.Close() }()
		time.Sleep(10 * time.Millisecond)
		err = p.dialer.Close()
		require.Equal(t, "x", asError(t, lostThings(t, err)[0], Unknown).Link)
	})
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetDefaultStream(func(*Stream) {})
		p.accepted.flushOnClose(func(context.Context) error {
			_, err := p.dialer.OpenStream(t.Context(), "late", nil)
			require.ErrorIs(t, asError(t, err, NotSent), ErrGoingAway)
			return nil
		})
		require.NoError(t, p.accepted.Close())
	})
}
