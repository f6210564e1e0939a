package oldsession_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/oldsession"
	"github.com/peerlane/peerlane/session"
)

// An old peer whose session OnOpen refuses gets an error for its call at once, and its session ends.
func TestOnOpenRefusesAnOldPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mux := session.NewMux()
		mux.SetCall(func(*session.Message) ([]byte, error) { t.Error("handled"); return nil, nil })
		opened := make(chan *session.Session, 1)
		a, err := session.NewAcceptor(&session.AcceptorConfig{OnSession: func(s *session.Session) { opened <- s }, Config: session.Config{
			Local: "new", Mux: mux, Hooks: &session.Hooks{OnOpen: func(*session.Session) error {
				time.Sleep(time.Second)
				return errors.New("members only")
			}},
		}})
		require.NoError(t, err)
		var serving sync.WaitGroup
		open := func(context.Context) (net.Conn, error) {
			here, there := faultnet.Pipe(faultnet.LinkOptions{})
			serving.Go(func() { _ = a.Serve(there, "old") })
			return here, nil
		}
		first, err := open(t.Context())
		require.NoError(t, err)
		began := time.Now()
		peer, err := oldsession.Dial(first, "new", open, oldsession.Config{Local: "old"})
		require.NoError(t, err)
		_, err = peer.Call(t.Context(), "", nil)
		require.Error(t, err)
		require.WithinDuration(t, began.Add(time.Second), time.Now(), 2*time.Second)
		s := <-opened
		<-s.Done()
		require.ErrorIs(t, s.Err(), session.ErrNotAllowed)
		peer.Wait()
		require.WithinDuration(t, began.Add(time.Second), time.Now(), 10*time.Second)
		serving.Wait()
	})
}
