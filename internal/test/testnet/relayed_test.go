package testnet

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"
)

// paths returns how many relayed and direct connections h has to a peer.
func paths(h host.Host, pid peer.ID) (relayed, direct int) {
	direct = len(directConns(h, pid))
	return len(h.Network().ConnsToPeer(pid)) - direct, direct
}

// requirePaths checks both hosts' connections to each other.
func requirePaths(t *testing.T, a, b host.Host, relayed, direct int) {
	t.Helper()
	for h, far := range map[host.Host]peer.ID{a: b.ID(), b: a.ID()} {
		await(t, h, "its paths", func() bool {
			r, d := paths(h, far)
			return r == relayed && d == direct
		})
	}
}

func TestOpenDirectAndCloseDirectLeaveTheRelayedConn(t *testing.T) {
	for name, limit := range map[string]*relay.RelayLimit{"limited": relay.DefaultLimit(), "unlimited": nil} {
		t.Run(name, func(t *testing.T) {
			a, b, _ := RelayedPair(t, limit)
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
				require.False(t, isCircuit(d.Conn().RemoteMultiaddr()), "a new stream prefers the direct conn")
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
	}
}

func TestARelayedPairHasNoDirectWayByItself(t *testing.T) {
	a, b, _ := RelayedPair(t, nil)
	echoStream(t, a, b)
	OpenDirect(t, a, b)
	CloseDirect(t, a, b)
	for h, far := range map[host.Host]peer.ID{a: b.ID(), b: a.ID()} {
		for _, addr := range h.Peerstore().Addrs(far) {
			require.True(t, isCircuit(addr), "%s", addr)
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
}

func TestARelayedPairHasItsLimits(t *testing.T) {
	t.Parallel() // it waits for real
	a, b, _ := RelayedPair(t, &relay.RelayLimit{Data: 16 << 10, Duration: time.Minute})
	s := echoStream(t, a, b)
	_, _ = io.Copy(s, io.LimitReader(zeros{}, 32<<10))
	require.NoError(t, s.SetReadDeadline(time.Now().Add(20*time.Second)))
	n, err := io.Copy(io.Discard, s)
	require.ErrorIs(t, err, network.ErrReset)
	require.Less(t, n, int64(16<<10))
	requirePaths(t, a, b, 0, 0)

	started := time.Now()
	a, b, _ = RelayedPair(t, &relay.RelayLimit{Data: 1 << 20, Duration: 2 * time.Second})
	s = echoStream(t, a, b)
	_, err = s.Read(make([]byte, 1))
	require.ErrorIs(t, err, network.ErrReset)
	require.GreaterOrEqual(t, time.Since(started), 2*time.Second)
	require.Less(t, time.Since(started), 10*time.Second)
}

func TestARelayComesBackAtItsAddressWithItsIdentity(t *testing.T) {
	a, b, r := RelayedPair(t, relay.DefaultLimit())
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
		Reserve(t, b, r.Host())
		s = redial(t, a, b, r)
		requirePaths(t, a, b, 1, 0)
	}
}

// redial is echoStream for a host whose dials to b and the relay have failed, without libp2p's backoff of 5 s.
func redial(t *testing.T, a, b host.Host, r *RelayServer) network.Stream {
	t.Helper()
	for _, pid := range []peer.ID{b.ID(), r.Host().ID()} {
		a.Network().(*swarm.Swarm).Backoff().Clear(pid)
	}
	return echoStream(t, a, b)
}

func TestARelayWithoutReservationsRefusesThem(t *testing.T) {
	rc := relay.DefaultResources()
	rc.MaxReservations = 1
	r := NewRelayWith(t, rc)
	a, b := Host(t, LimitedRelay), Host(t, LimitedRelay)
	Reserve(t, a, r.Host())
	info := peer.AddrInfo{ID: r.Host().ID(), Addrs: r.Host().Addrs()}
	_, err := client.Reserve(t.Context(), b, info)
	require.ErrorContains(t, err, "RESERVATION_REFUSED")
}
