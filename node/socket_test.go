package node

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// socketFile returns a socket path that is short enough for every system.
func socketFile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "node")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return filepath.Join(dir, "app.sock")
}

// Row: N4.
func TestTwoNodesConnectOverASocketByAPastedAddress(t *testing.T) {
	path := socketFile(t)
	a, b := start(t, Options{NoListen: true}), start(t, Options{ListenAddrs: []string{"/unix" + path}})
	require.Equal(t, []string{"/p2p/" + b.ID().String() + "/unix" + path}, b.Addrs())
	info, err := ParsePeer(b.Addrs()[0])
	require.NoError(t, err)
	a.Remember(info)
	require.NoError(t, a.Host().Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
	conns := a.Host().Network().ConnsToPeer(b.ID())
	require.Len(t, conns, 1)
	require.Equal(t, "/unix"+path, conns[0].RemoteMultiaddr().String())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	require.NoError(t, (<-ping.Ping(ctx, a.Host(), b.ID())).Error)

	require.Empty(t, b.Host().Addrs(), "not announced to peers")
	require.NoError(t, b.Close())
	require.NoFileExists(t, path)
}

// A node that listens on a socket and on loopback returns both addresses.
func TestAddrsHasLoopbackAndSockets(t *testing.T) {
	path := socketFile(t)
	n := start(t, Options{ListenAddrs: []string{"/unix" + path, "/ip4/127.0.0.1/tcp/0"}})
	all := n.Addrs()
	require.Len(t, all, 2)
	require.Contains(t, all, "/p2p/"+n.ID().String()+"/unix"+path)
	require.Len(t, n.Info().Addrs, 2)
}

// A peer that announces a socket of this machine, such as another program's, cannot make this host connect to it.
func TestASocketThatAPeerAnnouncesIsNotDialed(t *testing.T) {
	path := socketFile(t)
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	touched := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			touched <- c
		}
	}()
	bait := ma.StringCast("/unix" + path)
	evil, n := start(t, Options{NoListen: true}), start(t, Options{})
	n.Host().Peerstore().AddAddrs(evil.ID(), []ma.Multiaddr{bait}, peerstore.PermanentAddrTTL)
	require.ErrorContains(t, n.Host().Connect(t.Context(), peer.AddrInfo{ID: evil.ID()}), "were given to this side")
	require.Empty(t, touched)

	trusting := start(t, Options{}) // libp2p does not retry an address that has just failed
	trusting.Remember(peer.AddrInfo{ID: evil.ID(), Addrs: []ma.Multiaddr{bait}})
	failed := make(chan error, 1)
	go func() { failed <- trusting.Host().Connect(t.Context(), peer.AddrInfo{ID: evil.ID()}) }()
	c := <-touched // the user named the socket
	require.NoError(t, c.Close())
	require.Error(t, <-failed)
}

func TestAnAddressFactoryOfTheCallerStaysInForce(t *testing.T) {
	announced := ma.StringCast("/ip4/1.2.3.4/tcp/5")
	n := start(t, Options{Libp2p: []libp2p.Option{libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr {
		return []ma.Multiaddr{announced, ma.StringCast("/unix/run/x.sock")}
	})}})
	require.Equal(t, []ma.Multiaddr{announced}, n.Host().Addrs())
}

func TestThePeerOfASocketComesBeforeItsPath(t *testing.T) {
	n := start(t, Options{NoListen: true})
	info, err := ParsePeer("/p2p/" + n.ID().String() + "/unix/run/app.sock")
	require.NoError(t, err)
	require.Equal(t, peer.AddrInfo{ID: n.ID(), Addrs: []ma.Multiaddr{ma.StringCast("/unix/run/app.sock")}}, info)
	_, err = ParsePeer("/unix/run/app.sock/p2p/" + n.ID().String())
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "before a path")
}

// Claim: node.Options.WebTransport, node.Options.WebRTC
func TestOptionalTransportsAreOffByDefault(t *testing.T) {
	wt := ma.StringCast("/ip4/1.2.3.4/udp/1/quic-v1/webtransport")
	rtc := ma.StringCast("/ip4/1.2.3.4/udp/1/webrtc-direct/certhash/uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g")
	canDial := func(n *Node, a ma.Multiaddr) bool {
		return n.Host().Network().(interface {
			CanDial(peer.ID, ma.Multiaddr) bool
		}).CanDial(n.ID(), a)
	}
	bare, both := start(t, Options{}), start(t, Options{WebTransport: true, WebRTC: true})
	listens := start(t, Options{ListenAddrs: []string{"/ip4/127.0.0.1/udp/0/quic-v1/webtransport"}})
	require.False(t, canDial(bare, rtc))
	require.True(t, canDial(both, rtc))
	require.False(t, canDial(listens, rtc))
	require.True(t, canDial(listens, wt))
	require.True(t, canDial(both, wt))
	require.Len(t, listens.Addrs(), 1)
}
