package ticket

import (
	"math/rand/v2"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/edges"
)

func TestNoTicketIsAPanic(t *testing.T) {
	addr := ma.StringCast("/ip4/192.0.2.1/tcp/4001")
	id, err := peer.Decode("12D3KooWGRUVh4vGtBzTbUdpjPmBbTGRWTQKkUbPKRxmvPC5eLyL")
	if err != nil {
		id = "x"
	}
	many := make([]peer.AddrInfo, maxSources+1)
	given := edges.Of(peer.AddrInfo{}, peer.AddrInfo{ID: id}, peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{nil}}, peer.AddrInfo{Addrs: []ma.Multiaddr{addr}},
		peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{addr, addr, {}}}, []peer.AddrInfo(nil), []peer.AddrInfo{{}}, many,
		[]peer.AddrInfo{{ID: id, Addrs: []ma.Multiaddr{nil, addr}}}, []peer.AddrInfo{{ID: id}, {ID: id}}, addr, ma.Multiaddr(nil))
	check := func(k Ticket) {
		text, err := k.Encode()
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		back, err := Parse(text)
		require.NoError(t, err)
		require.Equal(t, len(k.Sources), len(back.Sources))
	}
	edges.Each(given, func(k Ticket, _ string) { check(k) })
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 8))
		check(edges.Some[Ticket](given, rng))
		edges.Func(given, rng, 3, "Parse", Parse)
		edges.Func(given, rng, 3, "Choose", Choose)
	}
}
