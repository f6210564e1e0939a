package session_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// A session that OnOpen refuses ends on both sides with the code and the text, nothing that the peer has sent is handled, and no other hook is
// called. Row: G1, G3
func TestOnOpenRefusesASession(t *testing.T) {
	for name, refuse := range map[string]struct {
		open func() error
		code codes.Code
		text string
	}{
		"an error":    {func() error { return errors.New("not on Sundays") }, codes.NotAllowed, "not on Sundays"},
		"an *Error":   {func() error { return &session.Error{Code: codes.Unavailable, RetryAfter: time.Hour, Text: "full"} }, codes.Unavailable, "full"},
		"GoingAway":   {func() error { return &session.Error{Code: codes.GoingAway, Text: "elsewhere"} }, codes.NotAllowed, "elsewhere"},
		"Closed":      {func() error { return fmt.Errorf("%w", &session.Error{Code: codes.Closed, Text: "shut"}) }, codes.NotAllowed, "shut"},
		"a nil error": {func() error { return (*session.Error)(nil) }, codes.NotAllowed, "a nil *session.Error as an error"},
		"a panic":     {func() error { panic("boom") }, codes.Internal, "OnOpen panicked: boom"},
		"Goexit":      {func() error { runtime.Goexit(); return nil }, codes.Internal, "OnOpen ended its goroutine"},
	} {
		for _, window := range []time.Duration{0, -1} {
			t.Run(fmt.Sprint(name, window), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var got, handled calls
					hooks := recorded(&got)
					hooks.OnOpen = func(*session.Session) error {
						time.Sleep(time.Second) // everything has been sent meanwhile
						return refuse.open()
					}
					hooks.OnRefuse = func(r session.Refusal) { got.add("refuse " + r.Kind) }
					cfg := session.Config{ResumeWindow: window}
					accept := &session.AcceptorConfig{Config: cfg}
					accept.Hooks = hooks
					p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: cfg, Accept: accept})
					p.ToBob.SetCall(func(*session.Message) ([]byte, error) { handled.add("call"); return nil, nil })
					p.ToBob.SetLink("one way", func(*session.Message) { handled.add("one way") })
					p.ToBob.SetStream("stream", func(*session.Stream) { handled.add("stream") })
					var all sync.WaitGroup
					all.Go(func() {
						_, err := p.Alice.Call(t.Context(), "", nil)
						var e *session.Error
						require.ErrorAs(t, err, &e)
						require.True(t, e.Remote)
						require.Equal(t, []any{refuse.code, refuse.text, session.Rejected}, []any{e.Code, e.Text, e.Outcome})
					})
					require.NoError(t, p.Alice.Send(t.Context(), "one way", nil))
					all.Go(func() { _, _ = p.Alice.OpenStream(t.Context(), "stream", nil) })
					all.Go(func() { _, _ = p.Alice.OpenStream(t.Context(), "stream", &session.StreamOptions{Dedicated: true}) })
					<-p.Alice.Done()
					<-p.Bob.Done()
					all.Wait()
					var e *session.Error
					require.ErrorAs(t, p.Alice.Err(), &e)
					require.True(t, e.Remote)
					require.Equal(t, []any{refuse.code, refuse.text}, []any{e.Code, e.Text})
					require.ErrorAs(t, p.Bob.Err(), &e)
					require.False(t, e.Remote)
					require.Equal(t, []any{refuse.code, refuse.text}, []any{e.Code, e.Text})
					require.WithinDuration(t, p.Alice.Snapshot().Started.Add(time.Second), time.Now(), 500*time.Millisecond, "nobody waits for a timeout")
					time.Sleep(time.Minute)
					require.Empty(t, handled.get())
					require.Equal(t, []string{"refuse session"}, got.get())
				})
			})
		}
	}
}

// The side that dials can refuse too: Dial returns the error, and the peer's session ends with it.
func TestOnOpenRefusesASessionThatWasDialed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		hooks := recorded(&got)
		hooks.OnOpen = func(*session.Session) error { return errors.New("too far away") }
		opened := make(chan *session.Session, 1)
		a, err := session.NewAcceptor(&session.AcceptorConfig{OnSession: func(s *session.Session) { opened <- s }})
		require.NoError(t, err)
		here, there := faultnet.Pipe(faultnet.LinkOptions{})
		go func() { _ = a.Serve(there, "alice") }()
		s, err := session.Dial(t.Context(), here, "bob", nil, &session.Config{Hooks: hooks})
		require.Nil(t, s)
		require.ErrorIs(t, err, session.ErrNotAllowed)
		require.ErrorContains(t, err, "too far away")
		peer := <-opened
		<-peer.Done()
		require.ErrorIs(t, peer.Err(), session.ErrNotAllowed)
		require.ErrorContains(t, peer.Err(), "too far away")
		time.Sleep(time.Minute)
		require.Empty(t, got.get())
	})
}

// A Dial whose ctx ends while OnOpen runs returns. OnClose follows, because OnOpen has accepted the session.
func TestDialDoesNotWaitForOnOpenLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		hooks := recorded(&got)
		hooks.OnOpen = func(*session.Session) error { time.Sleep(time.Hour); got.add("open"); return nil }
		a, err := session.NewAcceptor(nil)
		require.NoError(t, err)
		here, there := faultnet.Pipe(faultnet.LinkOptions{})
		go func() { _ = a.Serve(there, "alice") }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = session.Dial(ctx, here, "bob", nil, &session.Config{Hooks: hooks})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		require.Empty(t, got.get())
		time.Sleep(time.Hour)
		require.Equal(t, []string{"open", "connected", "ended", "close"}, got.get())
	})
}

// afterWrite calls a function after each Write.
type afterWrite struct {
	net.Conn
	fn func()
}

func (c *afterWrite) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.fn()
	return n, err
}

// An Acceptor that is closed just after its answer to a hello ends the session before OnOpen: no hook is called.
func TestNoHookIsCalledForASessionThatIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got calls
		a, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Hooks: recorded(&got)}})
		require.NoError(t, err)
		here, there := faultnet.Pipe(faultnet.LinkOptions{})
		go func() { _ = a.Serve(&afterWrite{there, a.Drain}, "alice") }()
		s, err := session.Dial(t.Context(), here, "bob", nil, nil)
		require.NoError(t, err, "it has the answer")
		<-s.Done()
		time.Sleep(time.Minute)
		require.Empty(t, got.get())
	})
}
