package alive

import (
	"context"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect returns a connection between two new hosts.
func connect(t *testing.T, other ...libp2p.Option) network.Conn {
	t.Helper()
	here, there := newHost(t), newHost(t, other...)
	require.NoError(t, here.Connect(t.Context(), peer.AddrInfo{ID: there.ID(), Addrs: there.Addrs()}))
	return here.Network().ConnsToPeer(there.ID())[0]
}

func newHost(t *testing.T, opts ...libp2p.Option) host.Host {
	t.Helper()
	h, err := libp2p.New(append(opts, libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"))...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

func TestAPingIsAnswered(t *testing.T) {
	require.NoError(t, Ping(t.Context(), connect(t)))
}

func TestARefusalIsAnAnswer(t *testing.T) {
	require.NoError(t, Ping(t.Context(), connect(t, libp2p.Ping(false))))
}

// A muted stream drops all writes, and receives nothing until its deadline.
type muted struct {
	network.Stream
}

func (s muted) Write(b []byte) (int, error) { return len(b), nil }

// A silent connection has muted streams.
type silent struct {
	network.Conn
	opened chan struct{} // closed with the first stream
}

func (c silent) NewStream(ctx context.Context) (network.Stream, error) {
	s, err := c.Conn.NewStream(ctx)
	close(c.opened)
	return muted{s}, err
}

func TestSilenceLastsUntilTheEndOfCtx(t *testing.T) {
	c := silent{connect(t), make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-c.opened; cancel() }()
	require.ErrorIs(t, Ping(ctx, c), context.Canceled)
	require.ErrorIs(t, Ping(ctx, c.Conn), context.Canceled, "at once")
}

func TestAClosedConnectionIsAnError(t *testing.T) {
	c := connect(t)
	require.NoError(t, c.Close())
	require.Error(t, Ping(t.Context(), c))
}
