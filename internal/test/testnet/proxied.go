package testnet

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/peerlanetest"
)

// A proxy is what faultnet.TCP and faultnet.UDP share beside their faults.
type proxy interface {
	faultnet.Fault
	Addr() string
	SetTarget(string)
}

// Proxied returns two hosts with a network between them that breaks on command: f is a *faultnet.TCP for TCPTLS and
// TCPNoise, and a *faultnet.UDP for QUIC. opts apply to both hosts.
//
// a knows b by the proxy's address, which is all that b announces. a listens nowhere, so b cannot dial it. The two are
// not connected. For QUIC, a dials each time from a new port, so that it can reach b again after a Cut.
func Proxied(t testing.TB, tr Transport, opts ...libp2p.Option) (a, b host.Host, f faultnet.Fault) {
	t.Helper()
	return proxiedBy(t, tr, tr == QUIC, opts)
}

// ProxiedForLong is Proxied, except that a keeps to one socket with QUIC, as hosts do: sockets do not add up. After a Cut a does not
// reach b again.
func ProxiedForLong(t testing.TB, tr Transport, opts ...libp2p.Option) (a, b host.Host, f faultnet.Fault) {
	t.Helper()
	return proxiedBy(t, tr, false, opts)
}

func proxiedBy(t testing.TB, tr Transport, fresh bool, opts []libp2p.Option) (a, b host.Host, f faultnet.Fault) {
	t.Helper()
	p, at := newProxy(t, tr)
	announce := libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return []ma.Multiaddr{at} })
	b = Host(t, tr, append([]libp2p.Option{announce}, opts...)...)
	p.SetTarget(hostPort(t, b.Network().ListenAddresses()[0]))
	dialer := []libp2p.Option{libp2p.NoListenAddrs}
	if fresh {
		dialer = append(dialer, freshSockets(t))
	}
	a = Host(t, tr, append(dialer, opts...)...)
	peerlanetest.Teach(a, b.ID(), at)
	return a, b, p
}

// freshSockets makes a host dial QUIC each time from a socket of its own, as libp2p otherwise keeps to one. It closes
// them after the host, because libp2p never does (quicreuse in v0.51.0).
func freshSockets(t testing.TB) libp2p.Option {
	var mu sync.Mutex
	var sockets []net.PacketConn
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range sockets {
			_ = s.Close()
		}
	})
	listen := func(network string, at *net.UDPAddr) (net.PacketConn, error) {
		s, err := net.ListenUDP(network, at)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		sockets = append(sockets, s)
		return s, nil
	}
	return libp2p.QUICReuse(quicreuse.NewConnManager, quicreuse.DisableReuseport(), quicreuse.OverrideListenUDP(listen))
}

// newProxy returns a proxy without a target, and the address under which a host behind it is reached.
func newProxy(t testing.TB, tr Transport) (proxy, ma.Multiaddr) {
	t.Helper()
	var p proxy
	format := "/ip4/%s/tcp/%s"
	switch tr {
	case TCPTLS, TCPNoise:
		p = faultnet.TCPProxy(t, "")
	case QUIC:
		p, format = faultnet.UDPProxy(t, ""), "/ip4/%s/udp/%s/quic-v1"
	default:
		t.Fatalf("testnet: no proxy for %s", tr)
	}
	ip, port, err := net.SplitHostPort(p.Addr())
	if err != nil {
		t.Fatalf("testnet: proxy: %v", err)
	}
	return p, ma.StringCast(fmt.Sprintf(format, ip, port))
}

// hostPort returns where a listens, without what it speaks there.
func hostPort(t testing.TB, a ma.Multiaddr) string {
	t.Helper()
	lower, _ := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_QUIC_V1 })
	at, err := manet.ToNetAddr(lower)
	if err != nil {
		t.Fatalf("testnet: address %s: %v", a, err)
	}
	return at.String()
}
