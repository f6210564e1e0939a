package peerlane

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/node"
)

// A directory is a node.Discovery that knows where one peer is now.
type directory struct {
	at    atomic.Pointer[peer.AddrInfo]
	asked atomic.Int32
}

func (d *directory) Start(host.Host) error { return nil }

func (d *directory) FindPeer(context.Context, peer.ID) (peer.AddrInfo, error) {
	d.asked.Add(1)
	return *d.at.Load(), nil
}

func (d *directory) Close() error { return nil }

// A peer is dialed by its Peer ID alone, and a session finds it again where it has moved to: no address that it was known by works any
// more.
func TestAPeerIsFoundByItsPeerIDAlone(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	where := new(directory)
	serve := func() (id peer.ID, stop func()) {
		n, err := node.New(t.Context(), &node.Options{KeyFile: key, Loopback: true})
		require.NoError(t, err)
		s, err := NewServer(n.Host(), &ServerConfig{AdmitAll: true})
		require.NoError(t, err)
		require.NoError(t, s.Start(callTag, func(p []byte) ([]byte, error) { return p, nil }))
		info := n.Info()
		where.at.Store(&info)
		return n.ID(), func() {
			require.NoError(t, s.Stop())
			require.NoError(t, n.Close())
		}
	}
	id, stop := serve()
	n, err := node.New(t.Context(), &node.Options{NoListen: true, Discovery: []node.Discovery{where}})
	require.NoError(t, err)
	defer func() { require.NoError(t, n.Close()) }()
	conn, err := Dial(t.Context(), n.Host(), id, callTag)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.EqualValues(t, 1, where.asked.Load())

	c := newClient(t, n.Host(), &ClientConfig{AdmitAll: true, MaxRetries: 10})
	for range 2 {
		response, err := c.Send(WithIdempotent(t.Context()), id, callTag, []byte("hello"))
		require.NoError(t, err)
		require.Equal(t, "hello", string(response))
		stop()
		_, stop = serve() // on other ports
	}
	stop()
	require.Greater(t, where.asked.Load(), int32(1))
}
