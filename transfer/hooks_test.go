package transfer_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
)

// The hooks of a session see the transfers that run on it, on both sides.
func TestHooksSeeTransfers(t *testing.T) {
	var mu sync.Mutex
	got := make(map[string]int)
	closed := make(chan struct{}, 2)
	note := func(verb string) func(*session.Session, session.Lane) {
		return func(_ *session.Session, l session.Lane) {
			mu.Lock()
			defer mu.Unlock()
			if l.Kind == "transfer" {
				got[verb+" "+l.Name]++
			}
		}
	}
	hooks := &session.Hooks{OnLaneOpen: note("open"), OnLaneClose: note("close"), OnClose: func(*session.Session) { closed <- struct{}{} }}
	p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Config: session.Config{Hooks: hooks}})
	service(t, p, into(t.TempDir(), transfer.ReceiveOptions{}))
	_, err := transfer.Push(t.Context(), always(p.Alice), walk(t, write(t, content{"file": 1000})), nil).Wait()
	require.NoError(t, err)
	_ = p.Alice.Close()
	<-closed
	<-closed
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, map[string]int{"open tree": 1, "close tree": 1, "open ": 1, "close ": 1}, got, "the receiver does not know the name when it begins")
}
