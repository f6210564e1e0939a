package nat64

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// A wire is a transport that dials nothing, and remembers what it was to dial.
type wire struct {
	transport.Transport
	dialed  ma.Multiaddr
	updates bool
	err     error
}

func (w *wire) Dial(_ context.Context, a ma.Multiaddr, _ peer.ID) (transport.CapableConn, error) {
	w.dialed = a
	return &wired{remote: a}, w.err
}

func (w *wire) DialWithUpdates(
	ctx context.Context, a ma.Multiaddr, p peer.ID, updates chan<- transport.DialUpdate,
) (transport.CapableConn, error) {
	w.updates = updates != nil
	return w.Dial(ctx, a, p)
}

func (w *wire) Listen(a ma.Multiaddr) (transport.Listener, error) {
	return &ear{a: a, err: w.err}, w.err
}

type wired struct {
	transport.CapableConn
	remote ma.Multiaddr
}

func (c *wired) RemoteMultiaddr() ma.Multiaddr { return c.remote }

// An ear accepts connections from an address.
type ear struct {
	transport.Listener
	a   ma.Multiaddr
	err error
}

func (e *ear) Accept() (transport.CapableConn, error) { return &wired{remote: e.a}, e.err }

var (
	four      = ma.StringCast("/ip4/11.0.0.1/tcp/4001")
	behind    = ma.StringCast("/ip6/64:ff9b::b00:1/tcp/4001")
	elsewhere = ma.StringCast("/ip6/2600::1/tcp/4001")
)

// The transport dials through the NAT64, and what is above it sees the peer's own address.
func TestDialThroughANAT64(t *testing.T) {
	s := &site{six: six, answer: []netip.Addr{synthesize(wellKnown, ipv4OnlyAddrs[0])}}
	w := &wire{}
	tr := &TCPTransport{Over{w, s.translator()}, w}
	dials := map[string]func(ma.Multiaddr) (transport.CapableConn, error){
		"Dial": func(a ma.Multiaddr) (transport.CapableConn, error) { return tr.Dial(t.Context(), a, "") },
		"DialWithUpdates": func(a ma.Multiaddr) (transport.CapableConn, error) {
			return tr.DialWithUpdates(t.Context(), a, "", make(chan transport.DialUpdate))
		},
	}
	for name, dial := range dials {
		for _, tt := range []struct{ a, dialed ma.Multiaddr }{{four, behind}, {elsewhere, elsewhere}, {behind, behind}} {
			c, err := dial(tt.a)
			require.NoError(t, err, name)
			require.Equal(t, tt.dialed.String(), w.dialed.String(), name)
			require.Equal(t, tt.a.String(), c.RemoteMultiaddr().String(), name)
			if name == "DialWithUpdates" {
				require.Equal(t, tt.a.Equal(tt.dialed), w.updates, "updates would name an address that nobody has asked for")
			}
		}
		w.err = errors.New("no")
		_, err := dial(four)
		require.ErrorIs(t, err, w.err, name)
		w.err = nil
	}
}

func TestConnectionsThatComeInThroughANAT64(t *testing.T) {
	w := &wire{}
	o := &Over{w, (&site{six: six}).translator()}
	for _, tt := range []struct{ from, want ma.Multiaddr }{{behind, four}, {elsewhere, elsewhere}, {four, four}} {
		l, err := o.Listen(tt.from)
		require.NoError(t, err)
		c, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, tt.want.String(), c.RemoteMultiaddr().String())
	}
	l, err := o.Listen(four)
	require.NoError(t, err)
	l.(*listener).Listener.(*ear).err = errors.New("closed")
	_, err = l.Accept()
	require.ErrorContains(t, err, "closed")
	w.err = errors.New("in use")
	_, err = o.Listen(four)
	require.ErrorIs(t, err, w.err)
}

// A counter remembers at which address a connection was counted.
type counter struct {
	network.NullResourceManager
	at ma.Multiaddr
}

func (c *counter) OpenConnection(_ network.Direction, _ bool, a ma.Multiaddr) (network.ConnManagementScope, error) {
	c.at = a
	return &network.NullScope{}, nil
}

func TestConnectionsAreCountedByTheirOwnAddress(t *testing.T) {
	c := &counter{}
	_, err := (&site{six: six}).translator().Limits(c).OpenConnection(network.DirOutbound, true, behind)
	require.NoError(t, err)
	require.Equal(t, four.String(), c.at.String())
}

// Hosts with these transports talk over each of them.
func TestHostsTalk(t *testing.T) {
	all := libp2p.ChainOptions(libp2p.Transport(TCP), libp2p.Transport(WebSocket), libp2p.Transport(QUIC))
	for _, at := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		server, err := libp2p.New(all, libp2p.ListenAddrStrings(at))
		require.NoError(t, err)
		client, err := libp2p.New(all, libp2p.NoListenAddrs)
		require.NoError(t, err)
		require.NoError(t, client.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}), at)
		require.Equal(t, server.Addrs()[0].String(), client.Network().ConnsToPeer(server.ID())[0].RemoteMultiaddr().String())
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
	}
}
