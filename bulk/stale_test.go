package bulk

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// numberedConn is a carrier on a connection that has a number.
type numberedConn struct {
	net.Conn
	connection uint64
}

func (c numberedConn) Connection() any { return c.connection }
func (c numberedConn) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}
func (c numberedConn) CloseRead() error { return c.Conn.(interface{ CloseRead() error }).CloseRead() }

// A dedicated lane stays where it is when the session moves, and says so; one opened then does not.
func TestALaneThatTheSessionHasLeftIsStale(t *testing.T) {
	for name, opts := range map[string]*Options{
		"plain": {Mode: Dedicated}, "in blocks": {Mode: Dedicated, Strands: 2}, "shared": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var connection atomic.Uint64
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
					Delay: time.Millisecond,
					Wrap: func(here, there net.Conn) (net.Conn, net.Conn) {
						return numberedConn{here, connection.Load()}, numberedConn{there, connection.Load()}
					},
				})
				taken := make(chan *Lane, 2)
				Handle(p.ToBob, "lane", nil, func(l *Lane) {
					taken <- l
					_, _ = io.Copy(l, l)
				})
				first, err := Open(t.Context(), p.Alice, "lane", opts)
				require.NoError(t, err)
				there := <-taken
				require.NoError(t, p.Alice.Reconnect(t.Context()))
				synctest.Wait()
				require.False(t, first.Stale(), "another carrier on the same connection")
				connection.Add(1)
				changed := p.Alice.Changed()
				require.NoError(t, p.Alice.Reconnect(t.Context()))
				<-changed
				time.Sleep(time.Second) // the other side moves a moment later
				synctest.Wait()
				isDedicated := opts != nil
				require.Equal(t, isDedicated, first.Stale())
				require.Equal(t, isDedicated, there.Stale(), "the other side knows it too")
				next, err := Open(t.Context(), p.Alice, "lane", opts)
				require.NoError(t, err)
				require.False(t, next.Stale())
				for _, l := range []*Lane{first, next} {
					_, err = l.Write([]byte("x"))
					require.NoError(t, err)
					_, err = io.ReadFull(l, make([]byte, 1))
					require.NoError(t, err)
					require.NoError(t, l.Close())
				}
			})
		})
	}
}

// A lane that was opened on another connection than the session's is not stale for that: it was not left.
func TestALaneBesideTheSessionIsNotStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var connection atomic.Uint64
		p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
			Wrap: func(here, there net.Conn) (net.Conn, net.Conn) {
				return numberedConn{here, connection.Load()}, numberedConn{there, connection.Load()}
			},
		})
		Handle(p.ToBob, "lane", nil, func(l *Lane) { _, _ = io.Copy(io.Discard, l) })
		connection.Store(1)
		l, err := Open(t.Context(), p.Alice, "lane", &Options{Mode: Dedicated})
		require.NoError(t, err)
		require.False(t, l.Stale())
		require.NoError(t, p.Alice.Reconnect(t.Context()))
		time.Sleep(time.Second)
		require.False(t, l.Stale(), "the session has come to it")
		connection.Store(2)
		require.NoError(t, p.Alice.Reconnect(t.Context()))
		time.Sleep(time.Second)
		require.True(t, l.Stale())
		require.NoError(t, l.Close())
	})
}

// A lane that is shared because the connection was limited is stale when that is over.
func TestALaneThatWasNotOpenedOnALimitedConnectionIsStaleOnAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
		p.limited.Store(true)
		require.NoError(t, p.Alice.Reconnect(t.Context()))
		Handle(p.ToBob, "lane", nil, func(l *Lane) { _, _ = io.Copy(io.Discard, l) })
		l, err := Open(t.Context(), p.Alice, "lane", &Options{Mode: Dedicated})
		require.NoError(t, err)
		require.ErrorIs(t, l.Snapshot().FellBack, errLimited)
		require.False(t, l.Stale())
		p.limited.Store(false)
		require.NoError(t, p.Alice.Reconnect(t.Context()))
		synctest.Wait()
		require.True(t, l.Stale())
		require.NoError(t, l.Close())
	})
}
