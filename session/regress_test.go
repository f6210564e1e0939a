package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// Stories that a reading of the code found, each of which went wrong once.

// Row: D6, N7
func TestAHandlersDownstreamErrorNeverSaysThatTheHandlerDidNotRun(t *testing.T) {
	for _, code := range []codes.Code{codes.GoingAway, codes.NotFound, codes.Unavailable} {
		inBubble(t, func(t *testing.T) {
			p := newPair(t, Config{}, AcceptorConfig{})
			downstream := &Error{Op: "call", Remote: true, Code: code, Outcome: NotSent}
			for _, err := range []error{downstream, fmt.Errorf("charge the card: %w", downstream)} {
				p.mux.SetCall(func(*Message) ([]byte, error) { return nil, err })
				_, got := p.dialer.Call(t.Context(), "", nil)
				require.Equal(t, codes.Application, asError(t, got, Delivered).Code)
			}
			p.mux.SetCall(func(*Message) ([]byte, error) { return nil, &Error{Code: codes.GoingAway} })
			_, got := p.dialer.Call(t.Context(), "", nil)
			asError(t, got, Delivered)
			p.mux.SetCall(func(*Message) ([]byte, error) {
				return nil, &Error{Code: codes.Unavailable, RetryAfter: time.Second}
			})
			_, got = p.dialer.Call(t.Context(), "", nil)
			require.Equal(t, time.Second, asError(t, got, Rejected).RetryAfter)
		})
	}
}

func TestBytesOnADedicatedStreamKeepItsSessionActive(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetStream("up", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
		st, err := p.dialer.OpenStream(t.Context(), "up", &StreamOptions{Dedicated: true})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = st.Write([]byte("x"))
		require.NoError(t, err)
		synctest.Wait()
		for _, s := range []*Session{p.dialer, p.accepted} {
			v := s.Snapshot()
			require.False(t, v.Idle)
			require.Zero(t, time.Since(v.LastActive))
		}
		require.NoError(t, st.Close())
	})
}

func TestARefusalForADrainIsHeardBeforeItsGoAway(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		stuck := make(chan struct{})
		p := newPair(t, Config{MessageWindow: 64}, AcceptorConfig{})
		p.mux.SetCall(echo)
		p.ours.SetLink("note", func(*Message) { <-stuck })
		for range 3 { // the window holds one; the others hold up the accepting side's GOAWAY
			go func() { _ = p.accepted.Send(context.Background(), "note", []byte("x")) }()
			synctest.Wait()
		}
		p.accepted.Drain("done")
		synctest.Wait()
		require.False(t, p.dialer.Draining())
		_, err := p.dialer.Call(t.Context(), "", nil)
		require.ErrorIs(t, err, ErrGoingAway)
		asError(t, err, NotSent)
		require.True(t, p.dialer.Draining())
		close(stuck)
	})
}

// Row: N7
func TestAHandlersContextEndsWithTheSessionAlsoAfterItsReply(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{RequestTimeout: -1}, AcceptorConfig{})
		ended := make(chan struct{})
		p.mux.SetLink("x", func(m *Message) {
			_ = m.Reply(nil)
			<-m.Context().Done()
			close(ended)
		})
		_, err := p.dialer.SendWait(t.Context(), "x", nil)
		require.NoError(t, err)
		require.NoError(t, p.dialer.Close())
		<-ended
	})
}

// trickle takes 8 KiB a second.
type trickle struct{ net.Conn }

func (c trickle) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second / (8 << 10))
	return c.Conn.Write(p)
}

func TestASlowCarrierThatTakesBytesIsNotLost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetCall(echo)
		s, err := Dial(t.Context(), trickle{p.connect()}, "bob", nil, &Config{
			WriteTimeout: 10 * time.Second, RequestTimeout: -1, Heartbeat: -1, DisableCompression: true})
		require.NoError(t, err)
		_, err = s.Call(t.Context(), "", make([]byte, 500<<10)) // a minute, in batches of over 10 s
		require.NoError(t, err)
		require.NoError(t, s.Close())
	})
}

// Row: D2, D3
// Claim: session.Snapshot.InFlightIn
func TestRequestsThatNeverEndTakeNoHandlersPlace(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		quota := &Quota{MaxCalls: 1}
		cfg := AcceptorConfig{Config: Config{Quota: quota, Mux: NewMux(), Heartbeat: -1}}
		cfg.Mux.SetCall(echo)
		w := accepted(t, cfg, 0, generous)
		for i := range 10 {
			w.send(frame.TypeRequest, 0, uint64(2*i+1),
				start(frame.TypeRequest, 0, frame.Start{Total: 100, Timeout: time.Minute}, []byte("x")))
		}
		synctest.Wait()
		require.Zero(t, quota.Snapshot().Calls)
		w.request(101, "", "quick")
		w.want(frame.TypeResponse, 101)
		for range 4 { // a byte now and then is progress, but the caller's own time is over in the end
			time.Sleep(20 * time.Second)
			w.send(frame.TypeContinue, 0, 1, []byte("y"))
		}
		synctest.Wait()
		require.Zero(t, w.s.Snapshot().InFlightIn)
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// Row: N1, N3
// Claim: session.Config.Tag, session.ErrPSKTampered
func TestTheKeyIsBoundToTheTag(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, err := NewAcceptor(&AcceptorConfig{Config: Config{Local: "bob", Tag: "/admin", Keys: keyring(t, 0)}})
		require.NoError(t, err)
		here, there := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- a.Serve(there, "alice") }()
		_, err = Dial(t.Context(), here, "bob", nil, &Config{Local: "alice", Tag: "/public", Keys: keyring(t, 0)})
		require.ErrorIs(t, err, ErrPSKTampered)
		require.ErrorIs(t, <-served, ErrPSKTampered)
	})
}

// Row: N1, N2
func TestADedicatedStreamsHandlerWaitsForTheFirstSealedByte(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{Keys: keyring(t, 0)}, AcceptorConfig{Config: Config{Keys: keyring(t, 0)}})
		ran := false
		p.mux.SetStream("x", func(*Stream) { ran = true })
		here := p.connect()
		hello := &frame.Hello{Role: frame.RoleStream, SessionID: p.dialer.ID(), Name: "x"}
		c, err := greet(t.Context(), here, "bob", hello, &p.dialer.cfg)
		require.NoError(t, err)
		time.Sleep(time.Minute) // who replays a hello gets this far, and cannot seal
		require.False(t, ran)
		_, err = c.raw.Read(make([]byte, 1))
		require.Error(t, err)
		require.Zero(t, p.accepted.Snapshot().Streams)
	})
}

func TestAdmitsErrorStaysAsItIs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		blocked := &Error{Code: codes.NotAllowed, Text: "not you"}
		a, err := NewAcceptor(&AcceptorConfig{Admit: func(string) error { return blocked }})
		require.NoError(t, err)
		here, there := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- a.Serve(there, "alice") }()
		_, err = Dial(t.Context(), here, "bob", nil, nil)
		require.ErrorIs(t, err, ErrNotAllowed)
		require.ErrorIs(t, <-served, ErrNotAllowed)
		require.Equal(t, &Error{Code: codes.NotAllowed, Text: "not you"}, blocked)
		require.False(t, errors.Is(err, ErrPSKRequired))
	})
}

func TestManyDedicatedStreamsMayBeOpenedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{Keys: keyring(t, 0)}, AcceptorConfig{Config: Config{Keys: keyring(t, 0)}})
		p.mux.SetStream("x", func(st *Stream) { _, _ = io.Copy(st, st) })
		opened := make(chan error, 60)
		for range cap(opened) {
			go func() {
				st, err := p.dialer.OpenStream(t.Context(), "x", &StreamOptions{Dedicated: true})
				if err == nil {
					err = st.Close()
				}
				opened <- err
			}()
		}
		for range cap(opened) {
			require.NoError(t, <-opened)
		}
		synctest.Wait()
		require.Empty(t, p.dialer.dedicated.greeting)
		wantZero(t, p.dialer)
	})
}
