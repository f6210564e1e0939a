package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHostPairIsConnectedOverTheOneTransportOnly(t *testing.T) {
	for _, tc := range []struct {
		over           transport
		name, security string
	}{
		{overTCP, "tcp", "/tls/1.0.0"},
		{overQUIC, "quic-v1", ""}, // QUIC brings its own TLS 1.3
	} {
		p, err := newHostPair(tc.over)
		require.NoError(t, err, "%s", tc.over)
		require.NoError(t, p.connect(), "%s", tc.over)
		conns := p.dialer.Network().ConnsToPeer(p.listener.ID())
		require.Len(t, conns, 1, "%s", tc.over)
		require.Equal(t, tc.name, conns[0].ConnState().Transport)
		require.Equal(t, tc.security, string(conns[0].ConnState().Security))
		require.NoError(t, p.run())
	}
}

func TestHostPairRejectsAnUnknownTransport(t *testing.T) {
	_, err := newHostPair("pigeon")
	require.ErrorContains(t, err, `transport "pigeon": unknown`)
}
