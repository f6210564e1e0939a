package session

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
)

// ender are the ways in which a handler ends its session.
func ender(a *Acceptor) map[string]func(*Session) error {
	return map[string]func(*Session) error{
		"Close":             (*Session).Close,
		"Shutdown":          func(s *Session) error { return s.Shutdown(context.Background()) },
		"Acceptor.Shutdown": func(*Session) error { return a.Shutdown(context.Background()) },
	}
}

// The end of a session waits for its handlers, but not for the one that calls, of whichever kind, and not for another that waits for the
// same end. Another session's handlers are waited for.
func TestAnEndWaitsForAllHandlersButTheCaller(t *testing.T) {
	for _, kind := range []string{"call", "one-way", "stream"} {
		for _, how := range []string{"Close", "Shutdown", "Acceptor.Shutdown"} {
			t.Run(kind+" "+how, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					p := newPair(t, Config{}, AcceptorConfig{})
					other, err := Dial(t.Context(), p.connect(), "bob", func(context.Context, Want) (net.Conn, error) { return p.connect(), nil },
						&Config{Mux: p.ours, Local: "alice"})
					require.NoError(t, err)
					end := ender(p.acceptor)[how]
					callers := 2
					if kind == "one-way" {
						callers = 1 // at a time
					}
					var entered sync.WaitGroup
					entered.Add(callers)
					ended := make(chan error, callers)
					handle := func(s *Session) {
						entered.Done()
						entered.Wait()
						ended <- end(s)
					}
					p.mux.SetLink("slow", func(m *Message) { time.Sleep(time.Second); _ = m.Reply([]byte("x")) })
					p.mux.SetLink("end", func(m *Message) { handle(m.Session()) })
					p.mux.SetStream("end", func(st *Stream) { handle(st.Session()) })
					slow := make(chan error, 2)
					for _, s := range []*Session{p.dialer, other} {
						go func() { _, err := s.SendWait(t.Context(), "slow", nil); slow <- err }()
					}
					synctest.Wait()
					began := time.Now()
					for range callers {
						go func() {
							switch kind {
							case "call":
								_, err := p.dialer.SendWait(t.Context(), "end", nil)
								require.Equal(t, codes.Closed, asError(t, err, Unknown).Code)
							case "one-way":
								require.NoError(t, p.dialer.Send(t.Context(), "end", nil))
							case "stream":
								st, err := p.dialer.OpenStream(t.Context(), "end", nil)
								require.NoError(t, err)
								_, err = io.ReadAll(st)
								require.NoError(t, err)
							}
						}()
					}
					require.NoError(t, <-slow)
					require.NoError(t, <-slow, "no handler's answer is lost")
					for range callers {
						require.NoError(t, <-ended)
					}
					require.LessOrEqual(t, time.Since(began), 2*time.Second+partingGrace)
					require.NoError(t, other.Close())
				})
			})
		}
	}
}

// A handler that closes another session is not taken for one of that session's.
func TestAHandlerOfAnotherSessionIsNotTheCaller(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		q := newPair(t, Config{}, AcceptorConfig{})
		q.mux.SetLink("slow", func(m *Message) { time.Sleep(time.Second); _ = m.Reply([]byte("x")) })
		p.mux.SetLink("close", func(m *Message) {
			require.NoError(t, q.accepted.Close())
			_ = m.Reply([]byte("done"))
		})
		slow := make(chan error, 1)
		go func() { _, err := q.dialer.SendWait(t.Context(), "slow", nil); slow <- err }()
		synctest.Wait()
		m, err := p.dialer.SendWait(t.Context(), "close", nil)
		require.NoError(t, err)
		require.Equal(t, "done", string(m.Value))
		require.NoError(t, <-slow)
	})
}
