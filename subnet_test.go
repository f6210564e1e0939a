package peerlane

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// An attacker has as many Peer IDs as he likes, and relays under them: a relay's network counts, not its name.
func TestPeersBehindTheRelaysOfOneNetworkAreOneNetwork(t *testing.T) {
	at := func(addr string) string { return subnetOf(&fakeConn{addr: ma.StringCast(addr)}) }
	_, a := newIdentity(t)
	_, b := newIdentity(t)
	one := at("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/" + a.String() + "/p2p-circuit")
	require.Equal(t, one, at("/ip4/192.0.2.200/tcp/80/ws/p2p/"+b.String()+"/p2p-circuit"))
	require.NotEqual(t, one, at("/ip4/192.0.3.1/tcp/4001/p2p/"+a.String()+"/p2p-circuit"))
	require.NotEqual(t, one, at("/ip4/192.0.2.1/tcp/4001"))
	require.Equal(t, at("/ip4/192.0.2.1/tcp/4001"), at("/ip4/192.0.2.9/udp/1/quic-v1"))
	require.Equal(t, "relay "+a.String(), at("/p2p/"+a.String()+"/p2p-circuit"), "its addresses are not known")
	require.Empty(t, subnetOf(nil))
}
