package main

import (
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/stretchr/testify/require"
)

func TestIsOnLAN(t *testing.T) {
	const circuit = "/p2p/" + somePeer + "/p2p-circuit"
	for a, want := range map[string]bool{
		"/ip4/127.0.0.1/tcp/1":           true,
		"/ip6/::1/tcp/1":                 true,
		"/ip4/169.254.3.4/udp/1/quic-v1": true,
		"/ip6/fe80::1/tcp/1":             true,
		"/ip4/11.0.0.1/tcp/1":            false,
		"/ip6/2001:db9::1/tcp/1":         false,
		"/ip4/127.0.0.1/tcp/1" + circuit: false,
		"/dns4/localhost/tcp/1":          false,
		"/unix/run/app.sock":             true,
	} {
		require.Equal(t, want, isOnLAN(ma.StringCast(a)), a)
		require.Equal(t, want, localNetwork{}.InterceptAddrDial("", ma.StringCast(a)), a)
	}
	own, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, n := range own {
		a, err := manet.FromIP(n.(*net.IPNet).IP)
		require.NoError(t, err)
		require.True(t, isOnLAN(a), a)
	}
}

func TestAHostIsNearbyAtAnAddressOfTheLocalNetwork(t *testing.T) {
	for _, a := range []string{"/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1", "/unix/run/app.sock", "/ip4/11.0.0.1/tcp/1",
		"/ip4/127.0.0.1/tcp/1/p2p/" + somePeer + "/p2p-circuit"} {
		require.False(t, isNearby([]ma.Multiaddr{ma.StringCast(a)}), a)
	}
	own, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, n := range own {
		if ip := n.(*net.IPNet).IP; ip.IsGlobalUnicast() {
			a, err := manet.FromIP(ip)
			require.NoError(t, err)
			require.True(t, isNearby([]ma.Multiaddr{ma.StringCast("/unix/run/app.sock"), a}), a)
		}
	}
}

func TestLocalRefusesAddressesOfOtherNetworks(t *testing.T) {
	local := findFlags{Local: true}
	far := peer.AddrInfo{Addrs: []ma.Multiaddr{ma.StringCast("/ip4/11.0.0.1/tcp/1")}}
	require.ErrorIs(t, local.checkLocal(far), errUsage)
	require.NoError(t, (&findFlags{}).checkLocal(far))
	far.Addrs = append(far.Addrs, ma.StringCast("/ip4/127.0.0.1/tcp/1"))
	require.NoError(t, local.checkLocal(far))
	require.NoError(t, local.checkLocal(peer.AddrInfo{}), "it is looked for")
}
