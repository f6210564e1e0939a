package peerlane

import (
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
)

const somePeer = "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F"

func decodePeer(t testing.TB, s string) peer.ID {
	t.Helper()
	pid, err := peer.Decode(s)
	require.NoError(t, err)
	return pid
}

func TestSocketAddrIsTheFirstSocketOfADirectMultiaddr(t *testing.T) {
	tcp := &net.TCPAddr{IP: net.IP{1, 2, 3, 4}, Port: 80}
	for in, want := range map[string]net.Addr{
		"/ip4/1.2.3.4/tcp/80":                        tcp,
		"/ip4/1.2.3.4/tcp/80/ws":                     tcp,
		"/ip4/1.2.3.4/tcp/80/tls/ws":                 tcp,
		"/ip6/::1/udp/9/quic-v1":                     &net.UDPAddr{IP: net.IPv6loopback, Port: 9},
		"/ip4/1.2.3.4/udp/9/quic-v1/webtransport":    &net.UDPAddr{IP: net.IP{1, 2, 3, 4}, Port: 9},
		"/ip4/1.2.3.4/tcp/80/p2p/" + somePeer:        tcp,
		"/dns4/example.com/tcp/80":                   nil,
		"/ip4/1.2.3.4/tcp/80/p2p-circuit":            nil,
		"/p2p/" + somePeer + "/p2p-circuit":          nil,
		"/ip4/1.2.3.4":                               nil,
		"/unix/tmp/x":                                nil,
		"/ip4/1.2.3.4/tcp/0/p2p-circuit/ip4/9.9.9.9": nil,
	} {
		got := socketAddr(ma.StringCast(in))
		if want == nil {
			require.Nil(t, got, in)
			continue
		}
		require.NotNil(t, got, in)
		require.Equal(t, want.String(), got.String(), in)
		require.IsType(t, want, got, in)
	}
	require.Nil(t, socketAddr(nil))
}

func TestSplitAddrTakesAPeerIDWithOrWithoutPort(t *testing.T) {
	pid := decodePeer(t, somePeer)
	cid := peer.ToCid(pid).String()
	for in, port := range map[string]uint16{
		somePeer: 0, somePeer + ":0": 0, somePeer + ":22": 22, somePeer + ":65535": 65535, cid: 0, cid + ":80": 80,
	} {
		got, gotPort, err := splitAddr(in)
		require.NoError(t, err, in)
		require.Equal(t, pid, got, in)
		require.Equal(t, port, gotPort, in)
	}
	for _, in := range []string{
		"", ":", ":22", "localhost:22", somePeer + ":", somePeer + ":65536", somePeer + ":-1", somePeer + ":ssh",
		somePeer + ":1:2", "/p2p/" + somePeer,
	} {
		_, _, err := splitAddr(in)
		require.ErrorIs(t, err, ErrInvalid, "%q", in)
	}
}

// Row: P1.
// Claim: peerlane.Dialer.AddrStyle, peerlane.ListenConfig.AddrStyle, peerlane.Addr.Peer
func TestAddrStyleSetsLocalAddrAndRemoteAddr(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, tr testnet.Transport) {
		for _, style := range []AddrStyle{AddrPeer, AddrPeerPort, AddrSocket} {
			l := mustListen(t, b, testTag, ListenConfig{AddrStyle: style})
			d := Dialer{Host: a, Tag: testTag, AddrStyle: style}
			c, err := d.DialContext(testContext(t), "tcp", b.ID().String()+":2222")
			require.NoError(t, err)
			far, err := l.Accept()
			require.NoError(t, err)

			real := style == AddrSocket && tr != testnet.Relay && tr != loopback
			switch {
			case style == AddrPeer:
				require.Equal(t, Addr{Peer: b.ID()}, c.RemoteAddr())
				require.Equal(t, b.ID().String(), c.RemoteAddr().String())
				require.Equal(t, a.ID().String(), far.RemoteAddr().String())
			case real && tr == testnet.QUIC:
				require.IsType(t, &net.UDPAddr{}, c.RemoteAddr())
				require.Equal(t, c.LocalAddr().String(), far.RemoteAddr().String())
			case real:
				require.IsType(t, &net.TCPAddr{}, c.RemoteAddr())
				require.Equal(t, c.LocalAddr().String(), far.RemoteAddr().String())
			default:
				require.Equal(t, b.ID().String()+":2222", c.RemoteAddr().String())
				require.Equal(t, a.ID().String()+":0", far.RemoteAddr().String())
				require.Equal(t, b.ID().String()+":0", l.Addr().String())
			}
			if style != AddrPeer {
				for _, addr := range []net.Addr{c.RemoteAddr(), c.LocalAddr(), far.RemoteAddr(), far.LocalAddr(), l.Addr()} {
					_, _, err := net.SplitHostPort(addr.String())
					require.NoError(t, err, addr.String())
				}
			}
			_, _, _ = c.Close(), far.Close(), l.Close()
		}
	})
}

func TestAnUnknownAddrStyleIsRefused(t *testing.T) {
	h := testHost(t)
	_, err := ListenConfig{AddrStyle: 3}.Listen(h, testTag)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "ListenConfig.AddrStyle")
	_, err = (&Dialer{Host: h, Tag: testTag, AddrStyle: 3}).Dial(t.Context(), h.ID())
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "Dialer.AddrStyle")
}
