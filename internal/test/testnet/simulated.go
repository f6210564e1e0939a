package testnet

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	ma "github.com/multiformats/go-multiaddr"
)

// A Simulation is a network in memory for hosts that speak QUIC. It knows no real clock, so that a test in a
// testing/synctest bubble has hosts whose timeouts take no time. An address that is no host's swallows what it is sent.
type Simulation struct {
	t   testing.TB
	net *simnet.Simnet
}

// Simulated starts a network in which each packet takes latency. It is closed in t.Cleanup, after its hosts.
func Simulated(t testing.TB, latency time.Duration) *Simulation {
	t.Helper()
	n := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(latency), Logger: slog.New(slog.DiscardHandler)}
	n.Start()
	t.Cleanup(n.Close)
	return &Simulation{t, n}
}

// Host returns a host at an IPv4 address and UDP port.
func (s *Simulation) Host(ip string, port int, opts ...libp2p.Option) host.Host {
	s.t.Helper()
	const speed = 100 * simlibp2p.OneMbps
	link := simnet.LinkSettings{BitsPerSecond: speed}
	all := []libp2p.Option{
		libp2p.ListenAddrs(QUICAddr(ip, port)), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(), libp2p.DisableRelay(),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		simlibp2p.QUICSimnet(s.net, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
	}
	h, err := libp2p.New(append(all, opts...)...)
	if err != nil {
		s.t.Fatalf("testnet: simulated host at %s: %v", ip, err)
	}
	s.t.Cleanup(func() { _ = h.Close() })
	return h
}

// QUICAddr returns the QUIC address of an IPv4 address and a UDP port.
func QUICAddr(ip string, port int) ma.Multiaddr {
	return ma.StringCast(fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", ip, port))
}
