package dht

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// announceIn has a host announce itself in a book.
func announceIn(t *testing.T, b *book, id string, all ...ma.Multiaddr) {
	t.Helper()
	info := peer.AddrInfo{ID: peer.ID(id), Addrs: all}
	require.NoError(t, b.AddProvider(t.Context(), keyOf(info.ID).Hash(), info))
}

// hostIn returns what a book has under the key of a host.
func hostIn(t *testing.T, b *book, id string) []peer.AddrInfo {
	t.Helper()
	all, err := b.GetProviders(t.Context(), keyOf(peer.ID(id)).Hash())
	require.NoError(t, err)
	return all
}

func TestABookKeepsTheLastAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook()
		require.Empty(t, hostIn(t, b, "a"))
		announceIn(t, b, "a", addrs("/ip4/1.2.3.4/tcp/1")...)
		announceIn(t, b, "b", addrs("/ip4/1.2.3.4/tcp/2")...)
		announceIn(t, b, "a", addrs("/ip4/1.2.3.4/tcp/3")...)
		require.Equal(t, []peer.AddrInfo{{ID: "a", Addrs: addrs("/ip4/1.2.3.4/tcp/3")}}, hostIn(t, b, "a"))
		require.Equal(t, []peer.AddrInfo{{ID: "b", Addrs: addrs("/ip4/1.2.3.4/tcp/2")}}, hostIn(t, b, "b"))
		time.Sleep(maxAge + time.Second)
		require.Empty(t, hostIn(t, b, "a"))
		require.Empty(t, hostIn(t, b, "b"))
		require.Empty(t, b.hosts)
		require.Zero(t, b.old.Len())
		require.Zero(t, b.size)
		require.NoError(t, b.Close())
	})
}

// Many hosts that announce themselves under the key of another do not crowd it out, and take no room.
func TestABookTakesNoAnnouncementUnderTheKeyOfAnother(t *testing.T) {
	b := newBook()
	at := addrs("/ip4/1.2.3.4/tcp/1")
	announceIn(t, b, "a", at...)
	for i := range 100 {
		id := peer.ID(fmt.Sprint(i))
		require.NoError(t, b.AddProvider(t.Context(), keyOf("a").Hash(), peer.AddrInfo{ID: id, Addrs: at}))
		require.NoError(t, b.AddProvider(t.Context(), fmt.Append(nil, i), peer.AddrInfo{ID: "a", Addrs: at}))
	}
	require.Equal(t, []peer.AddrInfo{{ID: "a", Addrs: at}}, hostIn(t, b, "a"))
	require.Len(t, b.hosts, 1)
}

// Anybody may announce anything: what is kept is bounded, and the oldest makes room.
func TestABookIsBounded(t *testing.T) {
	b := newBook()
	var many []ma.Multiaddr
	for i := range 2 * maxAddrs {
		many = append(many, ma.StringCast(fmt.Sprintf("/dns4/%s/tcp/%d", strings.Repeat("a", maxAddrLen-10), i+1)))
	}
	announceIn(t, b, "first", many...)
	require.Len(t, hostIn(t, b, "first")[0].Addrs, maxAddrs)
	most := maxBook / b.size // hosts
	for i := range most {
		announceIn(t, b, fmt.Sprint(i), many...)
	}
	require.LessOrEqual(t, b.size, maxBook)
	require.Len(t, b.hosts, most)
	require.Empty(t, hostIn(t, b, "first"), "it was the oldest")
	require.NotEmpty(t, hostIn(t, b, "0"))
	for i := range maxHosts {
		announceIn(t, b, fmt.Sprint(i))
	}
	announceIn(t, b, "last")
	require.Len(t, b.hosts, maxHosts)
	require.Equal(t, maxHosts, b.old.Len())
	require.Zero(t, b.size)
	require.Empty(t, hostIn(t, b, "0"))
	announceIn(t, b, "long", ma.StringCast("/dns4/"+strings.Repeat("a", maxAddrLen)+"/tcp/1"))
	require.Empty(t, hostIn(t, b, "long"))
}
