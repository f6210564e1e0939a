package node

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// helperAt starts a relay at a loopback address.
func helperAt(t *testing.T, ip string, o Options) *Node {
	t.Helper()
	o.ListenAddrs = []string{"/ip4/" + ip + "/tcp/0", "/ip4/" + ip + "/udp/0/quic-v1"}
	n, err := New(t.Context(), &o)
	if err != nil && ip != "127.0.0.1" {
		t.Skipf("there is one loopback address here: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// attempts limits how often a check is repeated: on a busy machine an answer may come too late, and counts as unknown.
const attempts = 3

// networkOf returns a node's report, the first complete one if there is one.
func networkOf(t *testing.T, n *Node, o *NetworkOptions, complete func(NetworkReport) bool) (r NetworkReport) {
	t.Helper()
	for i := 0; i == 0 || i < attempts && !complete(r); i++ {
		var err error
		r, err = n.Network(t.Context(), o)
		require.NoError(t, err)
	}
	t.Logf("%+v", r)
	return r
}

// Claim: node.NetworkOptions.Helpers
// Claim: node.NetworkOptions.Relays
// Claim: node.NetworkReport.IPv4
// Claim: node.NetworkReport.Helpers
// Claim: node.NetworkReport.Relays
// Claim: node.NetworkReport.HolePunch
// Claim: node.NetworkTransport.Asked
// Claim: node.NetworkTransport.Answered
// Claim: node.NetworkTransport.RTT
// Claim: node.NetworkTransport.Outside
// Claim: node.NetworkTransport.PortKept
// Claim: node.NetworkTransport.Mapping
// Claim: node.NetworkTransport.Filtering
// Claim: node.NetworkTransport.Hairpin
// Claim: node.NetworkTransport.Reachable
// Claim: node.NetworkIP.TCP
// Claim: node.NetworkIP.UDP
// Claim: node.NetworkHelper.ID
// Claim: node.NetworkHelper.Full
// Claim: node.NetworkHelper.RTT
// Claim: node.NetworkHelper.Private
// Claim: node.NetworkHelper.Ahead
// Claim: node.NetworkRelay.ID
// Claim: node.NetworkRelay.RTT
// Claim: node.NetworkRelay.Reserved
// Claim: node.NetworkRelay.Data
// Claim: node.NetworkRelay.Duration
// Claim: node.NetworkRelay.Circuits
// Claim: node.Options.NetworkHelper
func TestNetworkWithoutNAT(t *testing.T) {
	t.Parallel() // it waits for routers, as the other tests do
	relay := helperAt(t, "127.0.0.1", Options{RelayService: &RelayService{}})
	helper := helperAt(t, "127.0.0.2", Options{NetworkHelper: true})
	n := newNode(t, &Options{Loopback: true, HolePunch: true})
	r := networkOf(t, n, &NetworkOptions{
		Helpers: []string{helper.Addrs()[0]}, // the helper announces the others
		Relays:  []string{relay.Addrs()[1]},
	}, func(r NetworkReport) bool {
		return r.IPv4.UDP.Filtering == EndpointIndependent && r.IPv4.UDP.Reachable == Yes && r.IPv4.TCP.Reachable == Yes && r.Relays[0].Reserved
	})
	for _, way := range []NetworkTransport{r.IPv4.UDP, r.IPv4.TCP} {
		require.Equal(t, 2, way.Asked)
		require.Equal(t, 2, way.Answered)
		require.Positive(t, way.RTT)
		require.Len(t, way.Outside, 1)
		require.Equal(t, netip.MustParseAddr("127.0.0.1"), way.Outside[0].Addr())
		require.Equal(t, Yes, way.PortKept)
		require.Equal(t, NoNAT, way.Mapping)
		require.Equal(t, Yes, way.Reachable)
		require.Equal(t, Unknown, way.Hairpin)
	}
	require.Equal(t, EndpointIndependent, r.IPv4.UDP.Filtering)
	require.True(t, r.HolePunch)
	require.Len(t, r.Helpers, 2)
	for _, h := range r.Helpers {
		require.Contains(t, []any{relay.ID(), helper.ID()}, h.ID)
		require.True(t, h.Full)
		require.True(t, h.Private)
		require.Positive(t, h.RTT)
		require.Less(t, h.Ahead.Abs(), 10*time.Second)
	}
	require.Len(t, r.Relays, 1)
	of := r.Relays[0]
	require.Equal(t, relay.ID(), of.ID)
	require.Positive(t, of.RTT)
	require.True(t, of.Reserved)
	require.EqualValues(t, 128<<10, of.Data)
	require.Equal(t, 2*time.Minute, of.Duration)
	require.Zero(t, of.Circuits)
	require.Empty(t, n.Host().Network().ConnsToPeer(relay.ID()), "the reservation is given up")
	require.Contains(t, last(r).Text, "nothing is known about the internet")
	_, err := json.Marshal(r)
	require.NoError(t, err)
}

func last(r NetworkReport) NetworkLine {
	lines := r.Lines()
	return lines[len(lines)-1]
}

// With a single helper, findings that need two are unknown. A libp2p host without a Server only reports where it sees this one.
//
// Claim: node.NetworkHelper.Err
// Claim: node.NetworkRelay.Err
func TestNetworkWithLesserHelpers(t *testing.T) {
	t.Parallel()
	plain := helperAt(t, "127.0.0.1", Options{})
	n := newNode(t, &Options{Loopback: true, HolePunch: true})
	r := networkOf(t, n, &NetworkOptions{Relays: []string{plain.Addrs()[0]}}, func(r NetworkReport) bool {
		return r.IPv4.UDP.Mapping == NoNAT && r.IPv4.TCP.Mapping == NoNAT && r.Relays[0].RTT > 0
	})
	require.Equal(t, NoNAT, r.IPv4.UDP.Mapping)
	require.Equal(t, NoNAT, r.IPv4.TCP.Mapping)
	require.Equal(t, UnknownBehavior, r.IPv4.UDP.Filtering)
	require.Equal(t, Unknown, r.IPv4.UDP.Reachable)
	require.False(t, r.Helpers[0].Full)
	require.Empty(t, r.Helpers[0].Err)
	require.Equal(t, "the peer is not a relay", r.Relays[0].Err)

	at := plain.Addrs()[0]
	require.NoError(t, plain.Close())
	r, err := n.Network(t.Context(), &NetworkOptions{Helpers: []string{at}})
	require.NoError(t, err)
	require.NotEmpty(t, r.Helpers[0].Err)
	require.Zero(t, r.Helpers[0].RTT)
	require.Contains(t, last(r).Text, "no helper answers")
}

// By default, the relays are the host's own.
func TestNetworkWithTheRelaysOfTheHost(t *testing.T) {
	t.Parallel()
	relay := helperAt(t, "127.0.0.1", Options{RelayService: &RelayService{Data: 1 << 20}})
	n := newNode(t, &Options{Loopback: true, HolePunch: true, Relays: []string{relay.Addrs()[0]}})
	_, err := n.AwaitReservation(t.Context())
	require.NoError(t, err)
	r := networkOf(t, n, nil, func(r NetworkReport) bool { return r.IPv4.UDP.Filtering == NotPortDependent })
	require.Len(t, r.Relays, 1)
	require.True(t, r.Relays[0].Reserved)
	require.EqualValues(t, 1<<20, r.Relays[0].Data)
	require.NotEmpty(t, n.Host().Network().ConnsToPeer(relay.ID()), "it remains the host's relay")
	require.NotNil(t, n.Reservations()[0].Addrs)
	require.Equal(t, NotPortDependent, r.IPv4.UDP.Filtering, "there is one helper")
}

func TestNetworkAlone(t *testing.T) {
	t.Parallel()
	n := newNode(t, &Options{Loopback: true})
	r, err := n.Network(t.Context(), nil)
	require.NoError(t, err)
	require.Contains(t, last(r).Text, "cannot be checked without a helper")
	for _, bad := range []NetworkOptions{
		{Helpers: []string{"x"}}, {Relays: []string{n.ID().String()}}, {Helpers: strings.Split(strings.Repeat("x,", maxHelpers), ",")},
	} {
		_, err := n.Network(t.Context(), &bad)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "NetworkOptions.")
	}
}
