package peerlane

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// What is taken for an address is one, and says the same when it is written; the rest is ErrInvalid.
func FuzzSplitAddr(f *testing.F) {
	const pid = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	for _, s := range []string{pid, pid + ":0", pid + ":65535", pid + ":65536", "[" + pid + "]:7", ":7", "", "/p2p/" + pid, "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pid, port, err := splitAddr(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid, "%q", s)
			return
		}
		require.NoError(t, pid.Validate(), "%q", s)
		again, same, err := splitAddr(Addr{Peer: pid, Port: port, WithPort: true}.String())
		require.NoError(t, err, "%q", s)
		require.Equal(t, pid, again, "%q", s)
		require.Equal(t, port, same, "%q", s)
	})
}

// The address of a conn is a socket only if its multiaddr has one, and is direct.
func FuzzSocketAddr(f *testing.F) {
	for _, s := range []string{
		"/ip4/192.0.2.7/tcp/1", "/ip6/::1/udp/2/quic-v1", "/ip6zone/eth0/ip6/fe80::1/tcp/3", "/dns4/example.com/tcp/4", "/tcp/5", "/ip4/1.2.3.4",
		"/ip4/1.2.3.4/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit",
	} {
		f.Add(ma.StringCast(s).Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		at, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return
		}
		a := socketAddr(at)
		_, relayErr := at.ValueForProtocol(ma.P_CIRCUIT)
		_, tcpErr := at.ValueForProtocol(ma.P_TCP)
		_, udpErr := at.ValueForProtocol(ma.P_UDP)
		if a == nil {
			require.Equal(t, Addr{Peer: "p", Port: 9, WithPort: true}, styledAddr(AddrSocket, "p", 9, at))
			return
		}
		require.Error(t, relayErr, "%s", at)
		require.True(t, a.Network() == "tcp" && tcpErr == nil || a.Network() == "udp" && udpErr == nil, "%s of %s", a, at)
	})
}
