package visit

import (
	"context"
	"net"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	identifypb "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-reuseport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	quicgo "github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
)

func newHost(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

// addrOf returns the first address of a host that contains a protocol.
func addrOf(t *testing.T, h host.Host, protocol int) ma.Multiaddr {
	t.Helper()
	for _, a := range h.Addrs() {
		if _, err := a.ValueForProtocol(protocol); err == nil {
			return a
		}
	}
	require.FailNow(t, "no such address")
	return nil
}

// visitTCP opens a connection to a host from a port that already has a listener, and returns the port's address.
func visitTCP(t *testing.T, h host.Host) (transport.CapableConn, net.Addr) {
	t.Helper()
	ln, err := reuseport.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ln.Close()) })
	tr, err := TCP(ln.Addr())
	require.NoError(t, err)
	c, err := tr.Dial(t.Context(), addrOf(t, h, ma.P_TCP), h.ID())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c, ln.Addr()
}

// The answer lists the peer's addresses and protocols, and the address at which it sees this side.
func TestIdentify(t *testing.T) {
	h := newHost(t)
	c, local := visitTCP(t, h)
	id, err := Identify(t.Context(), c)
	require.NoError(t, err)
	at, err := manet.ToNetAddr(id.Observed)
	require.NoError(t, err)
	require.Equal(t, local.String(), at.String())
	require.ElementsMatch(t, h.Addrs(), id.Addrs)
	require.Contains(t, id.Protocols, "/ipfs/id/1.0.0")
}

// Each transport has its own Peer ID.
func TestEachQUICHasItsOwnIdentity(t *testing.T) {
	h := newHost(t)
	reuse, err := quicreuse.NewConnManager(quicgo.StatelessResetKey{}, quicgo.TokenGeneratorKey{})
	require.NoError(t, err)
	defer func() { require.NoError(t, reuse.Close()) }()
	var conns []transport.CapableConn
	for range 2 {
		tr, err := QUIC(reuse)
		require.NoError(t, err)
		c, err := tr.Dial(t.Context(), addrOf(t, h, ma.P_QUIC_V1), h.ID())
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		id, err := Identify(t.Context(), c)
		require.NoError(t, err)
		require.NotNil(t, id.Observed)
		conns = append(conns, c)
	}
	require.NotEqual(t, conns[0].LocalPeer(), conns[1].LocalPeer())
	require.NotEqual(t, h.ID(), conns[0].LocalPeer())
}

func TestOpenReportsUnsupportedProtocols(t *testing.T) {
	c, _ := visitTCP(t, newHost(t))
	_, err := Open(t.Context(), c, "/unheard/of")
	require.ErrorIs(t, err, ErrNotSupported)
}

func TestAStreamEndsWithItsContext(t *testing.T) {
	h := newHost(t)
	h.SetStreamHandler("/silent", func(network.Stream) {})
	c, _ := visitTCP(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Open(ctx, c, "/silent")
	require.NoError(t, err)
	cancel()
	_, err = s.Read(make([]byte, 1))
	require.Error(t, err)
	_ = s.Close() // already reset
	_, err = Open(ctx, c, "/silent")
	require.Error(t, err)
	require.NoError(t, c.Close())
	_, err = Identify(t.Context(), c)
	require.Error(t, err)
}

// Several messages are merged, malformed addresses are skipped, and the number of addresses is bounded.
func TestAnIdentityIsBounded(t *testing.T) {
	var id Identity
	seen := ma.StringCast("/ip4/11.0.0.1/tcp/1")
	id.add(&identifypb.Identify{ObservedAddr: seen.Bytes(), ListenAddrs: [][]byte{{0xff}, nil, seen.Bytes()}, Protocols: []string{"a"}})
	for range 2 * maxAddrs {
		id.add(&identifypb.Identify{ObservedAddr: []byte{0xff}, ListenAddrs: [][]byte{seen.Bytes()}, Protocols: []string{"b"}})
	}
	require.Equal(t, seen, id.Observed)
	require.Len(t, id.Addrs, maxAddrs)
	require.Equal(t, []string{"a", "b"}, id.Protocols[:2])
}
