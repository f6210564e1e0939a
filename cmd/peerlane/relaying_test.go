package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/node"
)

const somePeer = "12D3KooWJ1S3qzUYhfhfyvCwXJw1mix8vD6yavU1dbxtrKgG4o2K"

func TestTheFlagsOfRelayAreLimits(t *testing.T) {
	allowed, err := peer.Decode(somePeer)
	require.NoError(t, err)
	defaults := relayCmd{Data: "128KiB", Duration: 2 * time.Minute, Reservations: 128, Circuits: 16}
	for _, test := range []struct {
		change func(*relayCmd)
		want   *node.RelayService // nil: wrong usage
	}{
		{func(*relayCmd) {}, &node.RelayService{Data: 128 << 10, Duration: 2 * time.Minute, Reservations: 128, Circuits: 16}},
		{func(c *relayCmd) { c.Data = "none" }, &node.RelayService{Data: -1, Reservations: 128, Circuits: 16}},
		{func(c *relayCmd) { c.Data, c.Allow = "10MB", []string{somePeer} },
			&node.RelayService{Data: 10e6, Duration: 2 * time.Minute, Reservations: 128, Circuits: 16, Allow: []peer.ID{allowed}}},
		{func(c *relayCmd) { c.Data = "much" }, nil},
		{func(c *relayCmd) { c.Duration = 0 }, nil},
		{func(c *relayCmd) { c.Reservations = 0 }, nil},
		{func(c *relayCmd) { c.Circuits = -1 }, nil},
		{func(c *relayCmd) { c.Allow = []string{"nobody"} }, nil},
	} {
		c := defaults
		test.change(&c)
		got, err := c.service()
		require.Equal(t, test.want, got, "%+v", c)
		if test.want != nil {
			require.NoError(t, err)
			continue
		}
		code, _ := explain(err)
		require.Equal(t, exitUsage, code, "%v", err)
		require.Error(t, c.Run(t.Context(), stdio{}))
	}
}

func TestRelayServesReservations(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, ended := new(lockedBuffer), make(chan error, 1)
	c := relayCmd{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Data: "none", Duration: time.Minute, Reservations: 1, Circuits: 1, Peers: 10}
	go func() { ended <- c.Run(ctx, stdio{strings.NewReader(""), out, out}) }() // ends with ctx
	at := waitFor(t, out, "(?m)^use it   --relay (.*)\n(?s:.*)^ready$")
	require.Contains(t, out.String(), "\nkey      none: ")
	require.Contains(t, out.String(), "\naddress  "+at+"\n")
	n, err := node.New(t.Context(), &node.Options{NoListen: true, Relays: []string{at}})
	require.NoError(t, err)
	all, err := n.AwaitReservation(t.Context())
	require.NoError(t, err)
	require.Zero(t, all[0].Data, "no limit")
	require.NoError(t, n.Close())
	cancel()
	require.NoError(t, <-ended)
}

// A relay starts a private DHT, in which hosts find each other and the relay. It cannot serve the public DHT.
func TestRelayServesADHT(t *testing.T) {
	public := relayCmd{DHT: dhtFlag{on: true}, Data: "none", Duration: time.Minute, Reservations: 1, Circuits: 1, Peers: 10}
	require.ErrorIs(t, public.Run(t.Context(), stdio{}), errUsage)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, ended := new(lockedBuffer), make(chan error, 1)
	c := relayCmd{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Data: "none", Duration: time.Minute, Reservations: 2, Circuits: 2, Peers: 10,
		DHT: dhtFlag{on: true, own: true}}
	go func() { ended <- c.Run(ctx, stdio{strings.NewReader(""), out, out}) }() // ends with ctx
	at := waitFor(t, out, "(?m)^find by  --dht=(.*)\n(?s:.*)^ready$")
	info, err := node.ParsePeer(at)
	require.NoError(t, err)
	use := findFlags{DHT: dhtFlag{on: true, own: true, bootstrap: []peer.AddrInfo{info}}}
	callee, err := node.New(t.Context(), use.callee(&node.Options{Loopback: true}))
	require.NoError(t, err)
	all, err := callee.AwaitReservation(t.Context())
	require.NoError(t, err)
	require.Condition(t, func() bool { return all[0].Relay == info.ID || all[1].Relay == info.ID }, "%v", all)
	circuits, err := reserve(t.Context(), callee, true, func(warning string) { t.Error(warning) })
	require.NoError(t, err)
	require.NotEmpty(t, circuits)
	caller, err := node.New(t.Context(), use.caller(""))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return caller.Host().Connect(network.WithAllowLimitedConn(t.Context(), "test"), peer.AddrInfo{ID: callee.ID()}) == nil
	}, 30*time.Second, 100*time.Millisecond)
	require.NoError(t, caller.Close())
	require.NoError(t, callee.Close())
	cancel()
	require.NoError(t, <-ended)
}

// What a relay prints to paste comes first: an address that others can reach from their networks.
func TestTheAddressThatReachesFarthestComesFirst(t *testing.T) {
	const (
		socket   = "/p2p/" + somePeer + "/unix/run/app.sock"
		loopback = "/ip4/127.0.0.1/tcp/4001/p2p/" + somePeer
		link4    = "/ip4/169.254.3.4/tcp/4001/p2p/" + somePeer
		link6    = "/ip6/fe80::1/tcp/4001/p2p/" + somePeer
		lan      = "/ip4/192.168.1.20/tcp/4001/p2p/" + somePeer
		shared   = "/ip4/100.64.0.1/tcp/4001/p2p/" + somePeer // behind the provider's NAT
		unique   = "/ip6/fd00::1/tcp/4001/p2p/" + somePeer
		public4  = "/ip4/203.0.113.9/tcp/4001/p2p/" + somePeer
		quic     = "/ip4/203.0.113.9/udp/4001/quic-v1/p2p/" + somePeer
		public6  = "/ip6/2600::1/tcp/4001/p2p/" + somePeer
		named    = "/dns4/relay.example/tcp/4001/p2p/" + somePeer
	)
	sorted, far := byReach([]string{socket, loopback, link4, lan, link6, public6, quic, public4, shared, unique, named})
	require.Equal(t, []string{public4, named, quic, public6, lan, shared, unique, link4, link6, socket, loopback}, sorted)
	require.True(t, far)
	for _, near := range []string{socket, loopback, link4, link6, lan, shared, unique} {
		_, far = byReach([]string{near})
		require.False(t, far, near)
	}
	sorted, far = byReach(nil)
	require.Empty(t, sorted)
	require.False(t, far)
}
