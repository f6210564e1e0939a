package node

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	madns "github.com/multiformats/go-multiaddr-dns"
	"github.com/stretchr/testify/require"
)

// named returns an option that resolves host.example, as a /dnsaddr, to a host's addresses.
func named(t *testing.T, n *Node) libp2p.Option {
	t.Helper()
	var all []string
	for _, a := range n.Addrs() {
		all = append(all, "dnsaddr="+a)
	}
	r, err := madns.NewResolver(madns.WithDefaultResolver(&madns.MockResolver{TXT: map[string][]string{"_dnsaddr.host.example": all}}))
	require.NoError(t, err)
	return libp2p.MultiaddrResolver(swarm.ResolverFromMaDNS{Resolver: r})
}

// A /dnsaddr name may stand for the addresses of a peer or of a relay, and a discovery may return one.
func TestNamesInAddressesAreResolved(t *testing.T) {
	b, err := New(t.Context(), &Options{Loopback: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	name := "/dnsaddr/host.example/p2p/" + b.ID().String()
	info, err := ParsePeer(name)
	require.NoError(t, err)
	require.Equal(t, b.ID(), info.ID)
	require.Len(t, info.Addrs, 1)
	for what, o := range map[string]Options{
		"known": {Peers: []string{name}},
		"found": {Discovery: []Discovery{answering(0, "/dnsaddr/host.example")}},
	} {
		o.NoListen, o.Libp2p = true, []libp2p.Option{named(t, b)}
		a, err := New(t.Context(), &o)
		require.NoError(t, err)
		require.NoError(t, a.Host().Connect(t.Context(), peer.AddrInfo{ID: b.ID()}), what)
		require.NoError(t, a.Close())
	}
}

// A host announces a relay under addresses that others can dial, because libp2p does not resolve a name before /p2p-circuit.
func TestARelayMayBeGivenByName(t *testing.T) {
	r, err := New(t.Context(), &Options{Loopback: true, RelayService: &RelayService{}})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	b, err := New(t.Context(), &Options{
		NoListen: true,
		Relays:   []string{fmt.Sprint("/dnsaddr/host.example/p2p/", r.ID())},
		Libp2p:   []libp2p.Option{named(t, r)},
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	all, err := b.AwaitReservation(t.Context())
	require.NoError(t, err)
	a, err := New(t.Context(), &Options{NoListen: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, a.Close()) }()
	ctx := network.WithAllowLimitedConn(t.Context(), "test")
	require.NoError(t, a.Host().Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: all[0].Addrs}), "%s", all[0].Addrs)
}
