package dialaddr

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	relay = "/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit"
	hash  = "/certhash/uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g"
)

func TestLeadsTo(t *testing.T) {
	for _, v := range []struct {
		dialed, remote string
		want           bool
	}{
		{"/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1", true},
		{"/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2", false},
		{"/dns4/example.org/tcp/1", "/ip4/1.2.3.4/tcp/1", true},
		{"/dns/example.org/tcp/1", "/ip6/::1/tcp/1", true},
		{"/dns4/example.org/tcp/1", "/ip6/::1/tcp/1", false},
		{"/dns6/example.org/tcp/1", "/ip4/1.2.3.4/tcp/1", false},
		{"/dns4/example.org/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1", false},
		{"/dns4/example.org/tcp/443/wss", "/ip4/1.2.3.4/tcp/443/tls/ws", true},
		{"/dns4/example.org/tcp/443/tls/sni/example.org/ws", "/ip4/1.2.3.4/tcp/443/wss", true},
		{"/dnsaddr/example.org", "/ip4/1.2.3.4/tcp/1", true},
		{"/ip4/1.2.3.4/udp/1/quic-v1/webtransport" + hash, "/ip4/1.2.3.4/udp/1/quic-v1/webtransport", true},
		{"/dns4/example.org/tcp/1" + relay, "/ip4/1.2.3.4/tcp/1" + relay, true},
		{"/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/1" + relay, false},
		{"/dns4/example.org/tcp/1", "/ip4/1.2.3.4/tcp/1" + relay, false},
	} {
		require.Equal(t, v.want, LeadsTo(ma.StringCast(v.dialed), ma.StringCast(v.remote)), "%s, %s", v.dialed, v.remote)
	}
	require.False(t, LeadsTo(nil, ma.StringCast("/ip4/1.2.3.4/tcp/1")))
	require.False(t, LeadsTo(ma.StringCast("/ip4/1.2.3.4/tcp/1"), nil))
}

func TestIsWhole(t *testing.T) {
	for a, want := range map[string]bool{
		"/ip4/1.2.3.4/tcp/1":                                  true,
		"/ip4/1.2.3.4/udp/1/quic-v1":                          true,
		"/ip4/1.2.3.4/tcp/1" + relay:                          true,
		"/ip4/1.2.3.4/udp/1/quic-v1/webtransport":             false,
		"/ip4/1.2.3.4/udp/1/quic-v1/webtransport" + hash:      true,
		"/ip4/1.2.3.4/udp/1/webrtc-direct":                    false,
		"/ip4/1.2.3.4/udp/1/webrtc-direct" + hash:             true,
		"/ip4/1.2.3.4/tcp/443/tls/sni/example.org/ws":         true,
		"/ip4/1.2.3.4/tcp/443/wss/p2p/" + relay[5:5+52]:       true,
		"/dns4/example.org/udp/1/quic-v1/webtransport":        false,
		"/dns4/example.org/udp/1/quic-v1/webtransport" + hash: true,
	} {
		require.Equal(t, want, IsWhole(ma.StringCast(a)), a)
	}
}

func TestBareLeavesItsArgumentAlone(t *testing.T) {
	a := ma.StringCast("/dns4/example.org/tcp/443/wss")
	require.Equal(t, "/dns4/example.org/tcp/443/tls/ws", Bare(a).String())
	require.Equal(t, "/dns4/example.org/tcp/443/wss", a.String())
}
