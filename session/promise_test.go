package session

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lateConn's first write, the ACK, reaches the peer and then returns late, as if its goroutine were not scheduled.
type lateConn struct {
	net.Conn
	acked atomic.Bool
}

func (c *lateConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if !c.acked.Swap(true) {
		time.Sleep(time.Second)
	}
	return n, err
}

func TestADedicatedStreamMayBeOpenedTheMomentTheSessionIs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		mux := NewMux()
		mux.SetStream("bulk", func(*Stream) {})
		a, err := NewAcceptor(&AcceptorConfig{Config: Config{Mux: mux}})
		require.NoError(t, err)
		near, far := net.Pipe()
		go func() { _ = a.Serve(&lateConn{Conn: far}, "alice") }()
		open := func(context.Context, Want) (net.Conn, error) {
			n, f := net.Pipe()
			go func() { _ = a.Serve(f, "alice") }()
			return n, nil
		}
		s, err := Dial(t.Context(), near, "bob", open, nil)
		require.NoError(t, err)
		st, err := s.OpenStream(t.Context(), "bulk", &StreamOptions{Dedicated: true})
		require.NoError(t, err)
		require.NoError(t, st.Close())
		require.NoError(t, s.Close())
		require.NoError(t, a.Shutdown(t.Context()))
		time.Sleep(time.Second)
		require.Empty(t, a.promised)
		time.Sleep(time.Minute) // for the late Writes to return
	})
}
