package unixsock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPathAcceptsOnlySockets(t *testing.T) {
	path, ok := Path(ma.StringCast("/unix/run/app.sock"))
	require.True(t, ok)
	require.Equal(t, "/run/app.sock", path)
	for _, s := range []string{"/ip4/127.0.0.1/tcp/1", "/p2p/12D3KooWQsGKhGnupxv3ztipo3H9kidR8DBkUHqLp5x7gKWANC4n/unix/run/app.sock"} {
		_, ok := Path(ma.StringCast(s))
		require.False(t, ok, s)
	}
	_, ok = Path(nil)
	require.False(t, ok)
}

func TestOnlyAllowedPathsAreDialed(t *testing.T) {
	var p Paths
	a := ma.StringCast("/unix/run/app.sock")
	require.False(t, p.allows("/run/app.sock"))
	p.Allow(ma.StringCast("/ip4/127.0.0.1/tcp/1"), a)
	require.True(t, p.allows("/run/app.sock"))
	require.False(t, p.allows("/run/app"))
	tr := new(Paths).Transport(nil, nil)
	require.True(t, tr.CanDial(a))
	_, err := tr.Dial(t.Context(), a, "peer")
	require.ErrorContains(t, err, "were given to this side")
}

// upgrader replaces libp2p's: it returns its argument, or fails.
type upgrader struct {
	transport.Upgrader
	err error
}

func (u upgrader) Upgrade(
	_ context.Context, _ transport.Transport, c manet.Conn, _ network.Direction, _ peer.ID, s network.ConnManagementScope,
) (transport.CapableConn, error) {
	if u.err != nil {
		_ = c.Close() // as libp2p's upgrader does
		return nil, u.err
	}
	return capable{conn: c, scope: s}, nil
}

func (u upgrader) GateMaListener(l manet.Listener) transport.GatedMaListener {
	return gated{Listener: l}
}

func (u upgrader) UpgradeGatedMaListener(_ transport.Transport, l transport.GatedMaListener) transport.Listener {
	return upgraded{gated: l.(gated)}
}

type capable struct {
	transport.CapableConn
	conn  manet.Conn
	scope network.ConnManagementScope
}

type gated struct{ manet.Listener }

func (gated) Accept() (manet.Conn, network.ConnManagementScope, error) { panic("not called") }

type upgraded struct {
	transport.Listener
	gated gated
}

func (u upgraded) Close() error            { return u.gated.Listener.Close() }
func (u upgraded) Multiaddr() ma.Multiaddr { return u.gated.Listener.Multiaddr() }

// limits counts open connections.
type limits struct {
	network.NullResourceManager
	open   int
	refuse error
}

type scope struct {
	network.NullScope
	limits *limits
}

func (l *limits) OpenConnection(network.Direction, bool, ma.Multiaddr) (network.ConnManagementScope, error) {
	if l.refuse != nil {
		return nil, l.refuse
	}
	l.open++
	return &scope{limits: l}, nil
}

func (s *scope) Done() { s.limits.open-- }

// socket returns the address of a socket that does not exist yet, in a folder with a short path.
func socket(t *testing.T) ma.Multiaddr {
	t.Helper()
	dir, err := os.MkdirTemp("", "unixsock")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return ma.StringCast("/unix" + filepath.Join(dir, "app.sock"))
}

func TestASocketCarriesConnections(t *testing.T) {
	a := socket(t)
	var p Paths
	p.Allow(a)
	open := new(limits)
	tr := p.Transport(upgrader{}, open)
	require.Equal(t, []int{ma.P_UNIX}, tr.Protocols())
	require.False(t, tr.Proxy())
	l, err := tr.Listen(a)
	require.NoError(t, err)
	require.Equal(t, a, l.Multiaddr())
	accepted := make(chan manet.Conn, 1)
	go func() {
		c, err := l.(upgraded).gated.Listener.Accept()
		if err == nil {
			accepted <- c
		}
		close(accepted)
	}()
	c, err := tr.Dial(t.Context(), a, "peer")
	require.NoError(t, err)
	near, far := c.(capable).conn, <-accepted
	require.Equal(t, a, near.RemoteMultiaddr())
	require.Equal(t, a, near.LocalMultiaddr())
	require.Equal(t, a, far.RemoteMultiaddr())
	_, err = near.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, near.Close())
	got, err := io.ReadAll(far)
	require.NoError(t, err)
	require.Equal(t, "x", string(got))
	require.NoError(t, far.Close())
	require.Equal(t, 1, open.open)
	require.NoError(t, l.Close())
	_, err = l.(upgraded).gated.Listener.Accept()
	require.ErrorIs(t, err, net.ErrClosed)

	_, err = tr.Dial(t.Context(), a, "peer")
	require.Error(t, err, "no process listens")
	require.Equal(t, 1, open.open, "its scope is released")
}

func TestAFailedDialReleasesItsScope(t *testing.T) {
	a := socket(t)
	var p Paths
	p.Allow(a)
	failed := errors.New("failed")
	open := new(limits)
	l, err := p.Transport(upgrader{}, open).Listen(a)
	require.NoError(t, err)
	_, err = p.Transport(upgrader{err: failed}, open).Dial(t.Context(), a, "peer")
	require.ErrorIs(t, err, failed)
	open.refuse = errors.New("refused")
	_, err = p.Transport(upgrader{}, open).Dial(t.Context(), a, "peer")
	require.ErrorIs(t, err, open.refuse)
	require.Zero(t, open.open)
	require.NoError(t, l.Close())
}

func TestOnlyAStaleSocketIsReplaced(t *testing.T) {
	a := socket(t)
	path, _ := Path(a)
	listen := func() error {
		l, err := new(Paths).Transport(upgrader{}, new(limits)).Listen(a)
		if err == nil {
			err = l.Close()
		}
		return err
	}
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	require.Error(t, listen(), "a process listens")
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	require.FileExists(t, path)
	require.NoError(t, listen(), "the process has ended")
	require.NoFileExists(t, path)

	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	require.Error(t, listen())
	require.FileExists(t, path, "not a socket")
}

func TestLongPathsAreRejected(t *testing.T) {
	tr := new(Paths).Transport(upgrader{}, new(limits))
	_, err := tr.Listen(ma.StringCast("/unix/" + strings.Repeat("x", 200)))
	require.ErrorContains(t, err, "at most 103")
	_, err = tr.Listen(ma.StringCast("/ip4/127.0.0.1/tcp/1"))
	require.ErrorContains(t, err, "not the address of a socket")
}
