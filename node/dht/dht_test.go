package dht

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/invalid"
	"github.com/peerlane/peerlane/peerlanetest"
)

// Two clients find each other by their Peer IDs, in either starting order.
//
// Claim: dht.Options.Bootstrap
// Claim: dht.Options.Prefix
// Claim: dht.Options.Server
// Claim: dht.ErrUnknownPeer
func TestClientsFindEachOther(t *testing.T) {
	inWorld(t, many, func(t *testing.T, w *world) {
		first := w.join(&Options{})
		time.Sleep(time.Minute)
		second := w.join(&Options{})
		info, err := second.FindPeer(t.Context(), first.ID())
		require.NoError(t, err)
		require.Subset(t, info.Addrs, first.Addrs())
		time.Sleep(time.Minute)
		info, err = first.FindPeer(t.Context(), second.ID())
		require.NoError(t, err)
		require.Subset(t, info.Addrs, second.Addrs())
		_, err = first.FindPeer(t.Context(), "\x00\x04none")
		require.ErrorIs(t, err, routing.ErrNotFound)
		require.ErrorIs(t, err, ErrUnknownPeer)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = first.FindPeer(ctx, "\x00\x04none")
		require.ErrorIs(t, err, routing.ErrNotFound)
		require.NotErrorIs(t, err, ErrUnknownPeer, "the servers had no time to answer")
	})
}

// An announcement is found long after the host's connections have ended.
func TestAnAnnouncementOutlivesConnections(t *testing.T) {
	inWorld(t, few, func(t *testing.T, w *world) {
		m := w.join(&Options{})
		time.Sleep(time.Minute)
		for _, c := range m.Network().Conns() {
			require.NoError(t, c.Close())
		}
		time.Sleep(30 * time.Minute) // by now the servers' peerstores have dropped it
		other := w.join(&Options{})
		require.NoError(t, other.entered(t.Context()))
		require.NotEmpty(t, other.announced(t.Context(), m.ID()))
	})
}

// Claim: dht.Options.NoAnnounce
func TestAHostWithNoAnnounceIsNotStored(t *testing.T) {
	inWorld(t, few, func(t *testing.T, w *world) {
		m := w.join(&Options{NoAnnounce: true})
		time.Sleep(time.Minute)
		other := w.join(&Options{})
		require.NoError(t, other.entered(t.Context()))
		require.Empty(t, other.announced(t.Context(), m.ID()))
	})
}

func TestRelaysAreFound(t *testing.T) {
	inWorld(t, many, func(t *testing.T, w *world) {
		m := w.join(&Options{})
		found, err := m.FindRelays(t.Context(), relays)
		require.NoError(t, err)
		var ids []peer.ID
		for _, info := range found {
			require.NotEmpty(t, info.Addrs)
			ids = append(ids, info.ID)
		}
		require.ElementsMatch(t, w.relays(), ids)
		found, err = m.FindRelays(t.Context(), 1)
		require.NoError(t, err)
		require.Len(t, found, 1)
	})
}

// Claim: dht.ErrNoServer
func TestWithoutAServerNothingIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, nil)
		start := func(at string, bootstrap ...peer.AddrInfo) (host.Host, *Discovery) {
			h, d := net.Host(at), New(&Options{Prefix: prefix, Bootstrap: bootstrap})
			require.NoError(t, d.Start(h))
			t.Cleanup(func() { require.NoError(t, d.Close()) })
			return h, d
		}
		h, alone := start("11.0.0.1:4001")
		_, lost := start("11.0.0.2:4001", peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{ma.StringCast("/ip4/11.0.0.9/udp/1/quic-v1")}})
		time.Sleep(time.Minute)
		for d, why := range map[*Discovery]string{alone: "dht: no server is known", lost: "dht: no server answers: "} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := d.FindPeer(ctx, "\x00\x04none")
			require.ErrorIs(t, err, routing.ErrNotFound)
			require.ErrorContains(t, err, why)
			_, err = d.FindRelays(ctx, 1)
			require.ErrorContains(t, err, why)
			cancel()
		}
		began := time.Now()
		_, err := lost.FindPeer(t.Context(), "\x00\x04none")
		require.ErrorIs(t, err, ErrNoServer)
		require.LessOrEqual(t, time.Since(began), refusedTime+time.Second)
		other := net.Host("11.0.0.3:4001") // it serves no DHT
		_, misled := start("11.0.0.4:4001", peer.AddrInfo{ID: other.ID(), Addrs: other.Addrs()})
		_, err = misled.FindPeer(t.Context(), "\x00\x04none")
		require.ErrorIs(t, err, ErrNoServer)
		require.ErrorContains(t, err, "do not serve this DHT")
	})
}

// A bootstrap peer that starts later is soon reached, and the host is announced then.
func TestABootstrapPeerMayStartLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, nil)
		server, d := net.Host("11.0.0.1:4001"), New(&Options{Prefix: prefix, Server: true})
		at := peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}
		client, c := net.Host("11.0.0.2:4001"), New(&Options{Prefix: prefix, Bootstrap: []peer.AddrInfo{at}})
		require.NoError(t, c.Start(client))
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		time.Sleep(time.Hour)
		require.NoError(t, d.Start(server))
		t.Cleanup(func() { require.NoError(t, d.Close()) })
		time.Sleep(3 * time.Minute)
		require.NotEmpty(t, d.announced(t.Context(), client.ID()))
	})
}

func TestThePublicDHTIsTheDefault(t *testing.T) {
	d := New(nil)
	require.NotEmpty(t, d.options.Bootstrap)
	require.Empty(t, New(&Options{Bootstrap: []peer.AddrInfo{}}).options.Bootstrap)
	require.NoError(t, d.Close())
	require.Empty(t, d.options.filter()(addrs("/ip4/192.168.0.1/tcp/1")), "other hosts cannot make this host dial its own network")
	public := []string{"/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1/p2p-circuit", "/ip6/2600::1/tcp/1"}
	require.Len(t, public, len(publicOf(public...)))
	require.Empty(t, publicOf("/ip4/192.168.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"))
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewNetwork(t, nil).Host("11.0.0.1:4001")
		d := New(&Options{Bootstrap: []peer.AddrInfo{}})
		require.NoError(t, d.Start(h), "libp2p accepts the options of the public DHT")
		require.NoError(t, d.Close())
	})
}

func publicOf(all ...string) []ma.Multiaddr { return public(addrs(all...)) }

func addrs(all ...string) (out []ma.Multiaddr) {
	for _, a := range all {
		out = append(out, ma.StringCast(a))
	}
	return out
}

func TestLoopbackIsAnnouncedOnlyWithoutOtherAddresses(t *testing.T) {
	loop := addrs("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1")
	require.Equal(t, loop, usable(loop))
	require.Equal(t, addrs("/ip4/192.168.0.1/tcp/1"), usable(append(loop, addrs("/ip4/192.168.0.1/tcp/1", "/ip6/fe80::1/tcp/1")...)))
}

func TestAPublicServerIsRefused(t *testing.T) {
	err := New(&Options{Server: true}).Start(nil)
	require.ErrorIs(t, err, invalid.Err)
	require.ErrorContains(t, err, "Options.Server")
}

// One Discovery cannot serve two hosts, at the same time or one after the other.
func TestADiscoveryIsForOneHost(t *testing.T) {
	inWorld(t, few, func(t *testing.T, w *world) {
		m := w.join(&Options{})
		err := m.Start(w.host())
		require.ErrorIs(t, err, invalid.Err)
		require.ErrorContains(t, err, "it is for one host, and is in use or was closed: make another one with dht.New")
		_, err = m.FindPeer(t.Context(), w.servers[0].ID())
		require.NoError(t, err, "it still works for the first host")
		require.NoError(t, m.Discovery.Close())
		require.ErrorIs(t, m.Start(m.Host), invalid.Err)
		require.NoError(t, m.Discovery.Close())
	})
}
