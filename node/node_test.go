package node

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/stretchr/testify/require"
)

// start returns a node on loopback that is closed when the test ends.
func start(t *testing.T, opts Options) *Node {
	t.Helper()
	if opts.ListenAddrs == nil && !opts.NoListen {
		opts.Loopback = true
	}
	n, err := New(t.Context(), &opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// await returns the first event for which ok returns true.
func await[E any](t *testing.T, sub event.Subscription, ok func(E) bool) E {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		select {
		case v := <-sub.Out():
			if e := v.(E); ok(e) {
				return e
			}
		case <-ctx.Done():
			t.Fatalf("no such %T within 20 s", *new(E))
		}
	}
}

// Claim: node.Options.ListenAddrs
func TestTwoNodesConnectOverTCPAndQUICByAPastedAddress(t *testing.T) {
	for _, listen := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(listen, func(t *testing.T) {
			a, b := start(t, Options{}), start(t, Options{ListenAddrs: []string{listen}})
			require.Len(t, b.Addrs(), 1)
			info, err := ParsePeer(b.Addrs()[0])
			require.NoError(t, err)
			require.Equal(t, b.ID(), info.ID)
			a.Remember(info)
			require.NoError(t, a.Host().Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
		})
	}
}

func TestCloseMayBeCalledAgain(t *testing.T) {
	n, err := New(t.Context(), &Options{Loopback: true, Limits: &Limits{Peers: 3}})
	require.NoError(t, err)
	require.NoError(t, n.Close())
	require.NoError(t, n.Close())
}

func TestNewReturnsTheErrorOfACanceledContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := New(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestNewFailsIfItCannotListen(t *testing.T) {
	for _, addrs := range [][]string{
		{"/ip4/203.0.113.1/tcp/0"},
		{"/ip4/127.0.0.1/tcp/0", "/ip4/203.0.113.1/tcp/0"}, // one working address is not enough
	} {
		_, err := New(t.Context(), &Options{ListenAddrs: addrs, Limits: &Limits{Peers: 1}})
		require.ErrorContains(t, err, "listen on /ip4/203.0.113.1/tcp/0", "%v", addrs)
	}
}

// Claim: node.Options.KeyFile
func TestTheIdentityOfAKeyFileSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	first, second := start(t, Options{KeyFile: path}), start(t, Options{KeyFile: path})
	require.Equal(t, first.ID(), second.ID())
	require.NotEqual(t, first.ID(), start(t, Options{}).ID())
	_, err := New(t.Context(), &Options{KeyFile: t.TempDir()})
	require.ErrorIs(t, err, ErrKeyFormat)
}

// Claim: node.Options.UserAgent
func TestTheUserAgentIsSentToPeers(t *testing.T) {
	for want, opts := range map[string]Options{"peerlane": {}, "myapp/2": {UserAgent: "myapp/2"}} {
		a, b := start(t, Options{}), start(t, opts)
		sub, err := a.Host().EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted), eventbus.BufSize(16))
		require.NoError(t, err)
		require.NoError(t, a.Host().Connect(t.Context(), b.Info()))
		e := await(t, sub, func(event.EvtPeerIdentificationCompleted) bool { return true })
		require.Equal(t, want, e.AgentVersion)
		require.NoError(t, sub.Close())
	}
}

// Claim: node.Options.NoListen
func TestNoListenHasNoAddressAndStillDials(t *testing.T) {
	a, b := start(t, Options{NoListen: true}), start(t, Options{})
	require.Empty(t, a.Addrs())
	require.NoError(t, a.Host().Connect(t.Context(), b.Info()))
}

// Claim: node.Options.Libp2p
func TestLibp2pOptionsAreApplied(t *testing.T) {
	n := start(t, Options{Libp2p: []libp2p.Option{libp2p.Ping(false)}})
	require.NotContains(t, n.Host().Mux().Protocols(), ping.ID)
	require.Contains(t, start(t, Options{}).Host().Mux().Protocols(), protocol.ID(ping.ID))
}

// A host that does not listen can be dialed through its relay.
// Claim: node.Options.Relays, node.Reservation.Relay, node.Reservation.Addrs, node.Reservation.Until, node.Reservation.Data
// Claim: node.Reservation.Duration
func TestRelaysMakeAHostReachable(t *testing.T) {
	r := start(t, Options{ListenAddrs: []string{"/ip4/127.0.0.1/tcp/0"}, RelayService: &RelayService{}})
	require.Contains(t, r.Host().Mux().Protocols(), protocol.ID(proto.ProtoIDv2Hop), "it is a relay once New returns")
	b := start(t, Options{NoListen: true, Relays: r.Addrs()})
	all, err := b.AwaitReservation(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, r.ID(), all[0].Relay)
	require.EqualValues(t, 128<<10, all[0].Data)
	require.Equal(t, 2*time.Minute, all[0].Duration)
	require.Greater(t, time.Until(all[0].Until), time.Minute)
	require.Len(t, all[0].Addrs, 1)
	require.Equal(t, r.Addrs()[0]+"/p2p-circuit", all[0].Addrs[0].String())
	require.Eventually(t, func() bool { return slices.ContainsFunc(b.Host().Addrs(), isCircuit) }, 20*time.Second, time.Millisecond,
		"the host announces it")
	a := start(t, Options{NoListen: true})
	info, err := ParsePeer(r.Addrs()[0] + "/p2p-circuit/p2p/" + b.ID().String())
	require.NoError(t, err)
	require.NoError(t, a.Host().Connect(network.WithAllowLimitedConn(t.Context(), "test"), info))
}

// A restarted relay has lost its reservations. The host reserves again soon after.
// Claim: node.Reservation.Err, node.Reservation.Since
func TestAReservationComesBackWithItsRelay(t *testing.T) {
	key := t.TempDir() + "/key"
	options := Options{KeyFile: key, ListenAddrs: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}, RelayService: &RelayService{}}
	r, err := New(t.Context(), &options)
	require.NoError(t, err)
	at := r.Addrs()
	b := start(t, Options{NoListen: true, Relays: at})
	_, err = b.AwaitReservation(t.Context())
	require.NoError(t, err)
	closed := time.Now()
	require.NoError(t, r.Close())
	require.Eventually(t, func() bool { return b.Reservations()[0].Err != nil }, 20*time.Second, time.Millisecond)
	require.Empty(t, b.Reservations()[0].Addrs)
	require.Zero(t, b.Reservations()[0].Until)
	require.False(t, b.Reservations()[0].Since.Before(closed))
	options.ListenAddrs = []string{strings.Split(at[0], "/p2p/")[0]}
	start(t, options)
	began := time.Now()
	_, err = b.AwaitReservation(t.Context())
	require.NoError(t, err)
	require.Less(t, time.Since(began), 2*time.Second+soonAgain)
}

func TestAwaitReservationReturnsTheReasons(t *testing.T) {
	t.Parallel() // it waits
	all, err := start(t, Options{}).AwaitReservation(t.Context())
	require.NoError(t, err)
	require.Empty(t, all)

	none := start(t, Options{Loopback: true}) // not a relay
	b := start(t, Options{NoListen: true, Relays: none.Addrs()[:1]})
	_, err = b.AwaitReservation(t.Context())
	require.ErrorContains(t, err, none.ID().String())

	absent := start(t, Options{NoListen: true, Relays: []string{"/ip4/127.0.0.1/tcp/1/p2p/" + testPeer}})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err = absent.AwaitReservation(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, testPeer)
}
