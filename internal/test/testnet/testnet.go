// Package testnet gives tests real libp2p hosts on loopback, two at a time, over each transport that peerlane supports.
//
//	a, b := testnet.Pair(t, testnet.QUIC)
//
// The two know each other's addresses and are not connected yet. They have libp2p's default resource manager. Everything
// is closed in t.Cleanup.
//
// Proxied puts a network that breaks on command between the two, and RelayedPair a relay with limits of choice, beside
// which a direct connection can come and go. Package peerlanetest has hosts in memory, which need no real time.
package testnet

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	webtransport "github.com/libp2p/go-libp2p/p2p/transport/webtransport"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/peerlanetest"
)

// A Transport says how the two hosts of a pair reach each other.
type Transport string

// The transports.
const (
	TCPTLS       Transport = "tcp-tls"
	TCPNoise     Transport = "tcp-noise"
	QUIC         Transport = "quic"
	WebSocket    Transport = "websocket"
	WebTransport Transport = "webtransport"
	Relay        Transport = "relay"         // only through a circuit relay without limits
	LimitedRelay Transport = "limited-relay" // only through a circuit relay with libp2p's default limits
)

// Direct returns the transports that every claim about a conn is tested on and that need no relay.
func Direct() []Transport { return []Transport{TCPTLS, TCPNoise, QUIC, WebSocket} }

// All returns Direct and Relay.
func All() []Transport { return append(Direct(), Relay) }

// HasStopSending reports whether a writer on this transport is told by the transport that its peer reads no more. Where
// it is not, streams are muxed by yamux.
func (tr Transport) HasStopSending() bool { return tr == QUIC || tr == WebTransport }

// Pair returns two hosts that know each other's addresses and are not connected. opts apply to both.
func Pair(t testing.TB, tr Transport, opts ...libp2p.Option) (a, b host.Host) {
	t.Helper()
	if tr == Relay || tr == LimitedRelay {
		a, b = Host(t, tr, opts...), Host(t, tr, opts...)
		meetAt(NewRelay(t, tr), a, b)
		return a, b
	}
	a, b = Host(t, tr, opts...), Host(t, tr, opts...)
	peerlanetest.Teach(a, b.ID(), b.Addrs()...)
	peerlanetest.Teach(b, a.ID(), a.Addrs()...)
	return a, b
}

// Host returns a host that listens on loopback for one transport; for a relay it listens nowhere.
func Host(t testing.TB, tr Transport, opts ...libp2p.Option) host.Host {
	t.Helper()
	all := []libp2p.Option{libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery()}
	h, err := libp2p.New(append(append(all, options(tr)...), opts...)...)
	if err != nil {
		t.Fatalf("testnet: host for %s: %v", tr, err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func options(tr Transport) []libp2p.Option {
	tlsSec, noiseSec := libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.Security(noise.ID, noise.New)
	overTCP := libp2p.Transport(tcp.NewTCPTransport)
	listen := func(suffix string) libp2p.Option { return libp2p.ListenAddrStrings("/ip4/127.0.0.1" + suffix) }
	switch tr {
	case TCPTLS:
		return []libp2p.Option{overTCP, tlsSec, listen("/tcp/0"), libp2p.DisableRelay()}
	case TCPNoise:
		return []libp2p.Option{overTCP, noiseSec, listen("/tcp/0"), libp2p.DisableRelay()}
	case QUIC:
		return []libp2p.Option{libp2p.Transport(quic.NewTransport), listen("/udp/0/quic-v1"), libp2p.DisableRelay()}
	case WebSocket:
		return []libp2p.Option{
			libp2p.Transport(websocket.New), noiseSec, listen("/tcp/0/ws"), libp2p.DisableRelay(),
		}
	case WebTransport:
		return []libp2p.Option{
			libp2p.Transport(webtransport.New), listen("/udp/0/quic-v1/webtransport"), libp2p.DisableRelay(),
		}
	case Relay, LimitedRelay:
		return []libp2p.Option{overTCP, tlsSec, libp2p.NoListenAddrs, libp2p.EnableRelay()}
	}
	panic(fmt.Sprintf("BUG: unknown transport %q", tr))
}

// NewRelay returns a relay over TCP: with libp2p's default limits for LimitedRelay, without any for Relay.
func NewRelay(t testing.TB, tr Transport) *peerlanetest.Relay {
	t.Helper()
	resources := relay.DefaultResources()
	if tr == Relay {
		resources.Limit = nil
	}
	return peerlanetest.NewRelay(t, resources, func(opts ...libp2p.Option) host.Host { return Host(t, TCPTLS, opts...) })
}

// RelayedPair returns two hosts that know each other through a relay only, and are not connected. limit applies to each relayed
// connection; nil is none. opts apply to both hosts.
//
// Both listen on TCP, but announce that to nobody, so that a direct connection comes from peerlanetest.OpenDirect and from nothing else.
func RelayedPair(t testing.TB, limit *relay.RelayLimit, opts ...libp2p.Option) (a, b host.Host, r *peerlanetest.Relay) {
	t.Helper()
	resources := relay.DefaultResources()
	resources.Limit = limit
	r = peerlanetest.NewRelay(t, resources, func(opts ...libp2p.Option) host.Host { return Host(t, TCPTLS, opts...) })
	opts = append([]libp2p.Option{
		libp2p.EnableRelay(), libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return nil }),
	}, opts...)
	a, b = Host(t, TCPTLS, opts...), Host(t, TCPTLS, opts...)
	meetAt(r, a, b)
	return a, b, r
}

// meetAt makes two hosts know each other through a relay.
func meetAt(r *peerlanetest.Relay, a, b host.Host) {
	peerlanetest.Teach(a, b.ID(), r.Reserve(b)...)
	peerlanetest.Teach(b, a.ID(), r.Reserve(a)...)
}
