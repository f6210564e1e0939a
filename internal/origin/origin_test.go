package origin

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

func addr(port int) ma.Multiaddr { return ma.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", port)) }

func TestATableSaysWhereAddressesAreFrom(t *testing.T) {
	store, err := pstoremem.NewPeerstore()
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	require.Nil(t, Of(store, "host"))
	table, err := New(store, "host")
	require.NoError(t, err)
	require.Same(t, table, Of(store, "host"))
	table.Note("given", "bob", addr(1), addr(2))
	table.Note("mdns", "bob", addr(2), addr(3))
	table.Note("mdns", "bob", addr(2))
	table.Note("dht", "carol")
	require.Equal(t, []string{"given"}, table.From("bob", addr(1)))
	require.Equal(t, []string{"given", "mdns"}, table.From("bob", addr(2)))
	require.Empty(t, table.From("bob", addr(4)))
	require.Empty(t, table.From("carol", addr(1)))

	var none *Table
	none.Note("given", "bob", addr(1))
	require.Empty(t, none.From("bob", addr(1)))
}

func TestATableIsBounded(t *testing.T) {
	table := &Table{peers: make(map[peer.ID]*known)}
	for i := range maxPeers + 10 {
		table.Note("dht", peer.ID(fmt.Sprint(i)), addr(1))
	}
	require.Len(t, table.peers, maxPeers)
	require.Empty(t, table.From("0", addr(1)), "the oldest is forgotten")
	for i := range 2 * maxAddrs {
		for source := range 2 * maxFrom {
			table.Note(fmt.Sprint(source), "bob", addr(i))
		}
	}
	require.Len(t, table.peers["bob"].addrs, maxAddrs)
	require.Len(t, table.From("bob", addr(2*maxAddrs-1)), maxFrom)
	require.Empty(t, table.From("bob", addr(0)))
}
