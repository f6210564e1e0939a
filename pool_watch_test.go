package peerlane

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// A carrier is left sooner where there is another path: a relay is none for a client that takes none.
func TestARelayIsAnotherPathIfTheClientTakesRelays(t *testing.T) {
	for policy, want := range map[PathPolicy]bool{DirectOnly: false, PreferDirect: true} {
		synctest.Test(t, func(t *testing.T) {
			h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true})
			server, err := NewServer(h.Bob, &ServerConfig{AdmitAll: true})
			require.NoError(t, err)
			require.NoError(t, server.Listen(testTag))
			ctx := network.WithAllowLimitedConn(t.Context(), "test")
			require.NoError(t, h.Alice.Connect(ctx, peer.AddrInfo{ID: h.Bob.ID()}))
			peerlanetest.OpenDirect(t, h.Alice, h.Bob)
			c, err := NewClient(h.Alice, &ClientConfig{AdmitAll: true, Path: policy})
			require.NoError(t, err)
			s, err := c.Connect(t.Context(), h.Bob.ID(), testTag)
			require.NoError(t, err)
			require.False(t, PathOf(s).Relayed)
			require.Equal(t, want, c.pool.hasOtherPath(s, poolKey{peer: h.Bob.ID(), tag: testTag}), policy)
			require.NoError(t, c.Close())
			require.NoError(t, server.Stop())
		})
	}
}

// Of a peer's relays, another than the one that is used is another path, and the one to avoid is dialed last. A relay that is connected comes
// before one that is not.
func TestAnotherRelayIsAnotherPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true})
		server, err := NewServer(h.Bob, &ServerConfig{AdmitAll: true})
		require.NoError(t, err)
		require.NoError(t, server.Listen(testTag))
		c, err := NewClient(h.Alice, &ClientConfig{AdmitAll: true, Path: AllowRelay})
		require.NoError(t, err)
		s, err := c.Connect(t.Context(), h.Bob.ID(), testTag)
		require.NoError(t, err)
		used := PathOf(s).Relay
		require.NotEmpty(t, used)
		key := poolKey{peer: h.Bob.ID(), tag: testTag}
		require.False(t, c.pool.hasOtherPath(s, key))

		var circuits []ma.Multiaddr
		for range 2 {
			id := test.RandPeerIDFatal(t)
			circuits = append(circuits, ma.StringCast("/ip4/192.0.2.1/udp/1/quic-v1/p2p/"+id.String()+"/p2p-circuit"))
		}
		h.Alice.Peerstore().AddAddrs(h.Bob.ID(), circuits, time.Hour)
		require.True(t, c.pool.hasOtherPath(s, key))
		d := c.pool.dialer
		d.avoid = used
		first, others := d.headStart(h.Bob.ID())
		require.ElementsMatch(t, circuits, first)
		require.NotEmpty(t, others)
		d.avoid = test.RandPeerIDFatal(t)
		first, _ = d.headStart(h.Bob.ID())
		for _, a := range first {
			relay, _ := relayIn(a)
			require.Equal(t, used, relay, "it is connected")
		}
		require.NoError(t, c.Close())
		require.NoError(t, server.Stop())
	})
}

// A direct connection may come at any moment while a session is opened over a relay, or resumes over one: the session does not stay there.
func TestADirectConnectionThatComesWhileACarrierIsOpenedIsTaken(t *testing.T) {
	procs.Alone(t)
	for _, resumes := range []bool{false, true} {
		for wait := time.Duration(0); wait <= 300*time.Millisecond; wait += 10 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond, Relayed: true})
				server, err := NewServer(h.Bob, &ServerConfig{AdmitAll: true})
				require.NoError(t, err)
				require.NoError(t, server.Listen(testTag))
				c, err := NewClient(h.Alice, &ClientConfig{AdmitAll: true, Path: AllowRelay})
				require.NoError(t, err)
				peerlanetest.Teach(h.Bob, h.Alice.ID(), h.Alice.Network().ListenAddresses()...)
				var s *session.Session
				connected := make(chan error, 1)
				connect := func() {
					var err error
					s, err = c.Connect(t.Context(), h.Bob.ID(), testTag)
					connected <- err
				}
				if resumes {
					connect()
					for _, conn := range h.Alice.Network().ConnsToPeer(h.Bob.ID()) {
						require.NoError(t, conn.Close())
					}
				} else {
					go connect()
				}
				time.Sleep(wait)
				direct := network.WithForceDirectDial(t.Context(), "test")
				require.NoError(t, h.Bob.Connect(direct, peer.AddrInfo{ID: h.Alice.ID()}))
				require.NoError(t, <-connected)
				time.Sleep(10 * time.Second)
				require.Equal(t, "direct", strings.Split(PathOf(s).String(), ",")[0], "resumes: %v, after %v", resumes, wait)
				require.NoError(t, c.Close())
				require.NoError(t, server.Stop())
			})
		}
	}
}

// Both sides may have dialed. When the path of both connections is cut, a session does not try the second in vain after the first: it goes over the
// relay, though that has to be dialed.
func TestASessionLeavesTwoDeadConnectionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 20 * time.Millisecond, Relayed: true})
		server, err := NewServer(h.Bob, &ServerConfig{AdmitAll: true})
		require.NoError(t, err)
		require.NoError(t, server.Start(testTag, echoHandler))
		direct := network.WithForceDirectDial(t.Context(), "test")
		dialed := make(chan error, 1)
		go func() {
			dialed <- h.Bob.Connect(direct, peer.AddrInfo{ID: h.Alice.ID(), Addrs: h.Alice.Network().ListenAddresses()})
		}()
		require.NoError(t, h.Alice.Connect(direct, peer.AddrInfo{ID: h.Bob.ID(), Addrs: h.Bob.Network().ListenAddresses()}))
		require.NoError(t, <-dialed)
		require.Len(t, h.Alice.Network().ConnsToPeer(h.Bob.ID()), 2)
		c, err := NewClient(h.Alice, &ClientConfig{AdmitAll: true, Path: AllowRelay})
		require.NoError(t, err)
		defer func() { require.NoError(t, errors.Join(c.Close(), server.Stop())) }()
		s, err := c.Connect(t.Context(), h.Bob.ID(), testTag)
		require.NoError(t, err)
		h.VanishBetween("10.0.0.1", "10.0.0.2", true)
		began := time.Now()
		_, err = s.Call(t.Context(), "", []byte("hello"))
		require.NoError(t, err)
		require.True(t, PathOf(s).Relayed)
		require.Less(t, time.Since(began), 3*time.Second, "5.5 s one after the other")
	})
}

// A peer that is slow to answer again and again does not make the host dial the relays that it names each time.
func TestASlowPeersRelaysArePreparedSeldom(t *testing.T) {
	for _, direct := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true})
			server, err := NewServer(h.Bob, &ServerConfig{AdmitAll: true})
			require.NoError(t, err)
			require.NoError(t, server.Listen(testTag))
			if direct {
				ctx := network.WithAllowLimitedConn(t.Context(), "test")
				require.NoError(t, h.Alice.Connect(ctx, peer.AddrInfo{ID: h.Bob.ID()}))
				peerlanetest.OpenDirect(t, h.Alice, h.Bob)
			}
			c, err := NewClient(h.Alice, &ClientConfig{AdmitAll: true, Path: AllowRelay})
			require.NoError(t, err)
			s, err := c.Connect(t.Context(), h.Bob.ID(), testTag)
			require.NoError(t, err)
			require.Equal(t, !direct, PathOf(s).Relayed)
			relays := make(map[peer.ID]ma.Multiaddr)
			for range 200 {
				id, at := test.RandPeerIDFatal(t), ma.StringCast("/ip4/192.0.2.1/udp/1/quic-v1")
				relays[id] = at
				h.Alice.Peerstore().AddAddr(h.Bob.ID(), ma.StringCast(at.String()+"/p2p/"+id.String()+"/p2p-circuit"), time.Hour)
			}
			for range 2 * 30 {
				require.True(t, c.pool.suspect(s, poolKey{peer: h.Bob.ID(), tag: testTag}))
				time.Sleep(strangeEvery / 30)
			}
			time.Sleep(c.pool.cfg.ConnectTimeout)
			dialed := 0
			for id, at := range relays {
				if h.Alice.Network().(*swarm.Swarm).Backoff().Backoff(id, at) || len(h.Alice.Peerstore().Addrs(id)) > 0 {
					dialed++
				}
			}
			assert.Positive(t, dialed)
			assert.LessOrEqual(t, dialed, 2*maxPrepared, "in a minute; direct: %v", direct)
			require.NoError(t, c.Close())
			require.NoError(t, server.Stop())
		})
	}
}
