package peerlanetest

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"
)

// onRelay runs a test on two hosts that know each other through a relay only, in virtual time.
func onRelay(t *testing.T, limit *relay.RelayLimit, test func(t *testing.T, a, b host.Host, r *Relay)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := NewHosts(t, &HostsOptions{Delay: time.Millisecond, Relayed: true, RelayLimit: limit})
		test(t, h.Alice, h.Bob, h.Relay)
	})
}

// requirePaths checks both hosts' connections to each other.
func requirePaths(t *testing.T, a, b host.Host, relayed, direct int) {
	t.Helper()
	for h, far := range map[host.Host]peer.ID{a: b.ID(), b: a.ID()} {
		await(t, h, "its paths", func() bool {
			d := len(directConns(h, far))
			return d == direct && len(h.Network().ConnsToPeer(far))-d == relayed
		})
	}
}

// echoStream makes b echo, and returns a stream of a's to it that works.
func echoStream(t *testing.T, a, b host.Host) network.Stream {
	t.Helper()
	b.SetStreamHandler("/echo", func(s network.Stream) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	s, err := a.NewStream(network.WithAllowLimitedConn(t.Context(), "test"), b.ID(), "/echo")
	require.NoError(t, err)
	requireEcho(t, s, "hello")
	return s
}

func requireEcho(t *testing.T, s network.Stream, msg string) {
	t.Helper()
	_, err := s.Write([]byte(msg))
	require.NoError(t, err)
	got := make([]byte, len(msg))
	_, err = io.ReadFull(s, got)
	require.NoError(t, err)
	require.Equal(t, msg, string(got))
}

func TestOpenDirectAndCloseDirectLeaveTheRelayedConn(t *testing.T) {
	for name, limit := range map[string]*relay.RelayLimit{"limited": relay.DefaultLimit(), "unlimited": nil} {
		t.Run(name, func(t *testing.T) {
			onRelay(t, limit, func(t *testing.T, a, b host.Host, _ *Relay) {
				requirePaths(t, a, b, 0, 0)
				s := echoStream(t, a, b)
				requirePaths(t, a, b, 1, 0)
				require.Equal(t, limit != nil, s.Conn().Stat().Limited)
				for _, h := range []host.Host{a, b} {
					require.Empty(t, h.Addrs())
					require.NotEmpty(t, h.Network().ListenAddresses())
				}

				for range 2 {
					OpenDirect(t, a, b)
					requirePaths(t, a, b, 1, 1)
					d := echoStream(t, a, b)
					require.True(t, isDirect(d.Conn().RemoteMultiaddr()), "a new stream prefers the direct conn")
					requireEcho(t, s, "still relayed")
					CloseDirect(t, a, b)
					requirePaths(t, a, b, 1, 0)
					requireEcho(t, s, "relayed as ever")
					_, err := d.Read(make([]byte, 1))
					require.Error(t, err)
				}
				OpenDirect(t, b, a) // the other way round
				requirePaths(t, a, b, 1, 1)
			})
		})
	}
}

func TestRelayedHostsHaveNoDirectWayByThemselves(t *testing.T) {
	onRelay(t, nil, func(t *testing.T, a, b host.Host, _ *Relay) {
		echoStream(t, a, b)
		OpenDirect(t, a, b)
		CloseDirect(t, a, b)
		for h, far := range map[host.Host]peer.ID{a: b.ID(), b: a.ID()} {
			for _, addr := range h.Peerstore().Addrs(far) {
				require.False(t, isDirect(addr), "%s", addr)
			}
			ctx, cancel := context.WithTimeout(network.WithForceDirectDial(t.Context(), "test"), 5*time.Second)
			defer cancel()
			require.Error(t, h.Connect(ctx, peer.AddrInfo{ID: far}))
		}
		requirePaths(t, a, b, 1, 0)
		require.NoError(t, a.Network().ClosePeer(b.ID()))
		requirePaths(t, a, b, 0, 0)
		echoStream(t, a, b)
		requirePaths(t, a, b, 1, 0)
	})
}

// Claim: peerlanetest.HostsOptions.Relayed, peerlanetest.HostsOptions.RelayLimit
func TestARelayHasItsLimits(t *testing.T) {
	onRelay(t, &relay.RelayLimit{Data: 16 << 10, Duration: time.Minute}, func(t *testing.T, a, b host.Host, _ *Relay) {
		s := echoStream(t, a, b)
		_, _ = s.Write(make([]byte, 32<<10))
		n, err := io.Copy(io.Discard, s)
		require.ErrorIs(t, err, network.ErrReset)
		require.Less(t, n, int64(16<<10))
		requirePaths(t, a, b, 0, 0)
	})
	onRelay(t, &relay.RelayLimit{Data: 1 << 20, Duration: 2 * time.Second}, func(t *testing.T, a, b host.Host, _ *Relay) {
		started := time.Now()
		_, err := echoStream(t, a, b).Read(make([]byte, 1))
		require.ErrorIs(t, err, network.ErrReset)
		require.InDelta(t, 2, time.Since(started).Seconds(), 0.1)
	})
}

func TestARelayComesBackAtItsAddressWithItsIdentity(t *testing.T) {
	onRelay(t, relay.DefaultLimit(), func(t *testing.T, a, b host.Host, r *Relay) {
		s := echoStream(t, a, b)
		id, addrs := r.Host().ID(), r.Host().Addrs()
		for range 2 {
			r.Stop()
			r.Stop() // twice does nothing
			require.Nil(t, r.Host())
			_, err := s.Read(make([]byte, 1))
			require.Error(t, err)
			requirePaths(t, a, b, 0, 0)
			ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(t.Context(), "test"), 5*time.Second)
			require.Error(t, a.Connect(ctx, peer.AddrInfo{ID: b.ID()}))
			cancel()

			r.Start()
			r.Start() // twice does nothing
			require.Equal(t, id, r.Host().ID())
			require.Equal(t, addrs, r.Host().Addrs())
			r.Reserve(b)
			time.Sleep(30 * time.Second) // libp2p's backoff is over
			s = echoStream(t, a, b)
			requirePaths(t, a, b, 1, 0)
		}
	})
}

func TestARestartedRelayReachesItsHostsAtOnce(t *testing.T) {
	onRelay(t, relay.DefaultLimit(), func(t *testing.T, a, b host.Host, r *Relay) {
		for range 3 {
			echoStream(t, a, b)
			requirePaths(t, a, b, 1, 0)
			r.Restart()
			requirePaths(t, a, b, 0, 0)
			a.Network().(*swarm.Swarm).Backoff().Clear(b.ID())
		}
	})
}

func TestARelayWithoutReservationsRefusesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(t, nil)
		resources := relay.DefaultResources()
		resources.MaxReservations = 1
		r := NewRelay(t, resources, func(opts ...libp2p.Option) host.Host { return n.Host("10.0.0.9:4001", opts...) })
		a, b := n.Host("10.0.0.1:4001"), n.Host("10.0.0.2:4001")
		r.Reserve(a)
		_, err := client.Reserve(t.Context(), b, peer.AddrInfo{ID: r.Host().ID(), Addrs: r.Host().Addrs()})
		require.ErrorContains(t, err, "RESERVATION_REFUSED")
	})
}
