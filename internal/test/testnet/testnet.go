// Package testnet gives tests real libp2p hosts on loopback, two at a time, over each transport that peerlane supports.
//
//	a, b := testnet.Pair(t, testnet.QUIC)
//
// The two know each other's addresses and are not connected yet. They have libp2p's default resource manager. Everything
// is closed in t.Cleanup.
//
// Proxied puts a network that breaks on command between the two, and RelayedPair a relay with limits of choice, beside
// which a direct connection can come and go.
package testnet

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	webtransport "github.com/libp2p/go-libp2p/p2p/transport/webtransport"
	ma "github.com/multiformats/go-multiaddr"
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

// setupTime bounds what a pair needs to come up.
const setupTime = 30 * time.Second

// Pair returns two hosts that know each other's addresses and are not connected. opts apply to both.
func Pair(t testing.TB, tr Transport, opts ...libp2p.Option) (a, b host.Host) {
	t.Helper()
	if tr == Relay || tr == LimitedRelay {
		r := NewRelay(t, tr)
		a, b = Host(t, tr, opts...), Host(t, tr, opts...)
		Teach(a, b.ID(), Reserve(t, b, r)...)
		Teach(b, a.ID(), Reserve(t, a, r)...)
		return a, b
	}
	a, b = Host(t, tr, opts...), Host(t, tr, opts...)
	Teach(a, b.ID(), b.Addrs()...)
	Teach(b, a.ID(), a.Addrs()...)
	return a, b
}

// Teach puts addresses of a peer into h's peerstore, for good.
func Teach(h host.Host, pid peer.ID, addrs ...ma.Multiaddr) {
	h.Peerstore().AddAddrs(pid, addrs, peerstore.PermanentAddrTTL)
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

// NewRelay returns a host that relays for others: with libp2p's default limits for LimitedRelay, without any for Relay.
func NewRelay(t testing.TB, tr Transport) host.Host {
	t.Helper()
	h := Host(t, TCPTLS)
	var opts []relay.Option
	if tr == Relay {
		opts = append(opts, relay.WithInfiniteLimits())
	}
	r, err := relay.New(h, opts...)
	if err != nil {
		t.Fatalf("testnet: relay: %v", err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return h
}

// Reserve makes h reachable through a relay, and returns the addresses it then has.
func Reserve(t testing.TB, h, via host.Host) []ma.Multiaddr {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTime)
	defer cancel()
	info := peer.AddrInfo{ID: via.ID(), Addrs: via.Addrs()}
	if err := h.Connect(ctx, info); err != nil {
		t.Fatalf("testnet: connect to the relay: %v", err)
	}
	if _, err := client.Reserve(ctx, h, info); err != nil {
		t.Fatalf("testnet: reserve: %v", err)
	}
	circuit := ma.StringCast("/p2p/" + via.ID().String() + "/p2p-circuit")
	var out []ma.Multiaddr
	for _, a := range via.Addrs() {
		out = append(out, ma.Join(a, circuit))
	}
	return out
}
