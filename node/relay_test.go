package node

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

func relayAndPeers(t *testing.T, service *RelayService) (relay, a, b *Node) {
	t.Helper()
	relay, a, b = newNode(t, &Options{Loopback: true, RelayService: service}), newNode(t, &Options{Loopback: true}), newNode(t, &Options{Loopback: true})
	return relay, a, b
}

func newNode(t *testing.T, o *Options) *Node {
	t.Helper()
	n, err := New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// through connects a to b over the relay, and returns the connection.
func through(ctx context.Context, relay, a, b *Node) (network.Conn, error) {
	circuit := ma.Join(relay.Info().Addrs[0], ma.StringCast("/p2p/"+relay.ID().String()+"/p2p-circuit"))
	err := a.Host().Connect(network.WithAllowLimitedConn(ctx, "test"), peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{circuit}})
	if err != nil {
		return nil, err
	}
	return a.Host().Network().ConnsToPeer(b.ID())[0], nil
}

// Claim: node.Options.RelayService, node.RelayService.Data, node.RelayService.Duration
func TestConnectionsReportTheLimitsOfTheirRelay(t *testing.T) {
	for _, tt := range []struct {
		service  RelayService
		data     uint64
		duration time.Duration
	}{
		{RelayService{}, 128 << 10, 2 * time.Minute},
		{RelayService{Data: 1 << 20, Duration: time.Hour}, 1 << 20, time.Hour},
		{RelayService{Data: -1}, 0, 0},
	} {
		relay, a, b := relayAndPeers(t, &tt.service)
		_, err := client.Reserve(t.Context(), b.Host(), relay.Info())
		require.NoError(t, err)
		c, err := through(t.Context(), relay, a, b)
		require.NoError(t, err)
		stat := c.Stat()
		require.Equal(t, tt.data != 0, stat.Limited)
		data, _ := stat.Extra[client.StatLimitData].(uint64)
		duration, _ := stat.Extra[client.StatLimitDuration].(time.Duration)
		require.Equal(t, tt.data, data)
		require.Equal(t, tt.duration, duration)
	}
}

// Claim: node.RelayService.Allow, node.RelayService.Reservations, node.RelayService.Circuits
func TestARelayEnforcesItsLimits(t *testing.T) {
	key := t.TempDir() + "/key"
	allowedKey, _, err := LoadKey(key)
	require.NoError(t, err)
	id, err := peer.IDFromPrivateKey(allowedKey)
	require.NoError(t, err)
	relay, a, b := relayAndPeers(t, &RelayService{Allow: []peer.ID{id}, Circuits: 1})
	_, err = client.Reserve(t.Context(), b.Host(), relay.Info())
	require.ErrorContains(t, err, "PERMISSION_DENIED")
	known := newNode(t, &Options{Loopback: true, KeyFile: key})
	_, err = client.Reserve(t.Context(), known.Host(), relay.Info())
	require.NoError(t, err)
	_, err = through(t.Context(), relay, a, known)
	require.NoError(t, err, "the dialer need not be on the list")
	_, err = through(t.Context(), relay, b, known)
	require.ErrorContains(t, err, "RESOURCE_LIMIT_EXCEEDED")

	one, a, b := relayAndPeers(t, &RelayService{Reservations: 1})
	_, err = client.Reserve(t.Context(), b.Host(), one.Info())
	require.NoError(t, err)
	_, err = client.Reserve(t.Context(), a.Host(), one.Info())
	require.ErrorContains(t, err, "RESERVATION_REFUSED")
}

func TestRelayServiceIsValidated(t *testing.T) {
	for field, service := range map[string]RelayService{
		"RelayService.Data":         {Data: leastRelayData - 1},
		"RelayService.Duration":     {Duration: -1},
		"RelayService.Reservations": {Reservations: -1},
		"RelayService.Circuits":     {Circuits: -1},
		"RelayService.Allow":        {Allow: []peer.ID{}},
	} {
		_, err := New(t.Context(), &Options{RelayService: &service})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, field)
	}
	_, err := New(t.Context(), &Options{RelayService: &RelayService{Data: -1, Duration: time.Hour}})
	require.ErrorContains(t, err, "RelayService.Duration")
	n, err := New(t.Context(), &Options{Loopback: true, RelayService: &RelayService{Data: leastRelayData}})
	require.NoError(t, err)
	require.NoError(t, n.Close())
}
