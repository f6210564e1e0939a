package resume

import (
	"context"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// An OnState and a dialFunc that end their goroutine end nothing of the Conn's.
func TestHooksThatEndTheirGoroutineEndNoConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		l, err := NewListener(h, &Options{OnState: func(StateChange) {
			runtime.Goexit()
		}})
		require.NoError(t, err)
		exits := 1
		dial := func(ctx context.Context) (net.Conn, error) {
			if exits--; exits >= 0 {
				runtime.Goexit()
			}
			return h.dial(ctx)
		}
		o := &Options{OnState: func(StateChange) { runtime.Goexit() }, Final: func(error) error { runtime.Goexit(); return nil }}
		began := time.Now()
		_, err = Dial(dial, o)
		require.ErrorContains(t, err, "ended its goroutine")
		require.Zero(t, time.Since(began))
		c, err := Dial(dial, o)
		require.NoError(t, err)
		far, err := l.Accept()
		require.NoError(t, err)
		for n := range byte(3) {
			exits = 1
			h.link.Cut()
			_, err = c.Write([]byte{n})
			require.NoError(t, err)
			var b [1]byte
			_, err = far.Read(b[:])
			require.NoError(t, err)
			require.Equal(t, n, b[0])
		}
		require.NoError(t, c.Close())
		require.NoError(t, far.Close())
		<-c.Done()
		<-far.(*Conn).Done()
		require.NoError(t, l.Close())
	})
}
