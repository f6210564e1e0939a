package node

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// Row: G17, G20: one host listens on all transports, at addresses of one list. A dialer can verify its Peer ID on each of them, without a
// certificate file.
func TestOneHostListensOnEveryTransport(t *testing.T) {
	listen := []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/udp/0/quic-v1",
		"/ip4/127.0.0.1/udp/0/quic-v1/webtransport", "/ip4/127.0.0.1/udp/0/webrtc-direct", "/unix" + socketFile(t)}
	b := start(t, Options{ListenAddrs: listen})
	addrs := b.Info().Addrs
	require.Len(t, addrs, len(listen))
	for _, a := range addrs {
		name := a.String()
		for _, transport := range []string{"unix", "webrtc-direct", "webtransport", "quic-v1", "ws", "tcp"} {
			if strings.Contains(name, "/"+transport) {
				name = transport
				break
			}
		}
		t.Run(name, func(t *testing.T) {
			dialer := start(t, Options{NoListen: true, WebTransport: true, WebRTC: true})
			dialer.Remember(peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{a}})
			require.NoError(t, dialer.Host().Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
			conns := dialer.Host().Network().ConnsToPeer(b.ID())
			require.Len(t, conns, 1)
			require.Contains(t, conns[0].RemoteMultiaddr().String(), "/"+name)

			impostor, other := start(t, Options{NoListen: true}), start(t, Options{NoListen: true, WebTransport: true, WebRTC: true})
			other.Remember(peer.AddrInfo{ID: impostor.ID(), Addrs: []ma.Multiaddr{a}})
			require.Error(t, other.Host().Connect(t.Context(), peer.AddrInfo{ID: impostor.ID()}), "another peer is there")
		})
	}
}
