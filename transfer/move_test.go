package transfer_test

import (
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// pathBytes is a connection, as the carriers on it see it.
type pathBytes struct {
	bytes   atomic.Int64
	limited bool // by a relay
}

// onPath is one end of a carrier on it.
type onPath struct {
	net.Conn
	path *pathBytes
}

func (c *onPath) Connection() any { return c.path }
func (c *onPath) Limited() bool   { return c.path.limited }

func (c *onPath) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.path.bytes.Add(int64(n))
	return n, err
}

func (c *onPath) CloseWrite() error { return c.Conn.(interface{ CloseWrite() error }).CloseWrite() }
func (c *onPath) CloseRead() error  { return c.Conn.(interface{ CloseRead() error }).CloseRead() }

// A transfer that began on a relay goes to the direct connection with its session, and nothing crosses twice for that.
func TestATransferMovesWithItsSession(t *testing.T) {
	const size = 16 << 20
	from := write(t, content{"large": size - 5*70000, "b": 70000, "c": 70000, "d": 70000, "e": 70000, "f": 70000})
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := new(pathBytes), new(pathBytes)
				var now atomic.Pointer[pathBytes]
				now.Store(first)
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
					Delay: 10 * time.Millisecond, Rate: size / 8,
					Wrap: func(here, there net.Conn) (net.Conn, net.Conn) {
						on := now.Load()
						return &onPath{here, on}, &onPath{there, on}
					},
				})
				moved := make(chan error, 1)
				go func() {
					time.Sleep(2 * time.Second)
					now.Store(second)
					moved <- p.Alice.Reconnect(t.Context())
				}()
				to := t.TempDir()
				result, err := run(t.Context(), t, way, p, always(p.Alice), walk(t, from), to)
				require.NoError(t, err)
				require.NoError(t, <-moved)
				same(t, from, filepath.Join(to, "tree"))
				t.Logf("first %d, second %d, crossed %d", first.bytes.Load(), second.bytes.Load(), result.Progress.Crossed)
				require.Greater(t, second.bytes.Load(), int64(size/2))
				require.Less(t, first.bytes.Load(), int64(size/2))
				require.Less(t, result.Progress.Crossed, int64(size+size/100), "nothing crosses twice")
				require.Zero(t, result.Progress.Losses)
			})
		})
	}
}

// On a limited connection a transfer waits, and on the next one its lanes are dedicated as ever: nothing of it is on the session's carrier.
func TestATransferThatWaitsOnALimitedConnectionHasItsLanesOnTheNext(t *testing.T) {
	const size = 4 << 20
	from := write(t, content{"large": size})
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := &pathBytes{limited: true}, new(pathBytes)
				var now atomic.Pointer[pathBytes]
				now.Store(first)
				var carriers atomic.Int64
				p := peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{
					Delay: 10 * time.Millisecond,
					Wrap: func(here, there net.Conn) (net.Conn, net.Conn) {
						carriers.Add(1)
						on := now.Load()
						return &onPath{here, on}, &onPath{there, on}
					},
				})
				moved := make(chan error, 1)
				var opened int64 // on the second
				go func() {
					time.Sleep(2 * time.Second)
					now.Store(second)
					before := carriers.Load()
					err := p.Alice.Reconnect(t.Context())
					time.Sleep(time.Second)
					opened = carriers.Load() - before
					moved <- err
				}()
				to := t.TempDir()
				_, err := run(t.Context(), t, way, p, always(p.Alice), walk(t, from), to)
				require.NoError(t, err)
				require.NoError(t, <-moved)
				same(t, from, filepath.Join(to, "tree"))
				require.Greater(t, opened, int64(1), "the session's, and the lane's")
				require.Less(t, first.bytes.Load(), int64(100_000))
				require.Greater(t, second.bytes.Load(), int64(size))
			})
		})
	}
}
