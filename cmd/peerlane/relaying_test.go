package main

import (
	"context"
	"strings"
	"testing"
	"time"

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
