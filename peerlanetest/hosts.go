package peerlanetest

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// HostsOptions are the properties of Hosts.
type HostsOptions struct {
	// Delay is the time that a packet takes from one host to another. If zero, none.
	Delay time.Duration
	// Rate is how many bytes per second each host can send. If zero, there is no limit.
	Rate int
	// Relayed makes a relay the only way between the two hosts, until OpenDirect.
	Relayed bool
	// RelayLimit is what the relay lets through on each connection. If nil, there is no limit.
	RelayLimit *relay.RelayLimit
	// Libp2p are further options of both hosts.
	Libp2p []libp2p.Option
}

// Hosts are two libp2p hosts on a network in memory. They know each other's addresses and are not connected.
type Hosts struct {
	*Network

	Alice, Bob host.Host
	Relay      *Relay // nil unless Relayed
}

// NewHosts returns two hosts. nil options are the zero ones. Everything is closed in t.Cleanup.
func NewHosts(t testing.TB, o *HostsOptions) *Hosts {
	t.Helper()
	if o == nil {
		o = &HostsOptions{}
	}
	h := &Hosts{Network: NewNetwork(t, &NetworkOptions{Delay: o.Delay, Rate: o.Rate})}
	if !o.Relayed {
		opts := append([]libp2p.Option{libp2p.DisableRelay()}, o.Libp2p...)
		h.Alice, h.Bob = h.Host("10.0.0.1:4001", opts...), h.Host("10.0.0.2:4001", opts...)
		Teach(h.Alice, h.Bob.ID(), h.Bob.Addrs()...)
		Teach(h.Bob, h.Alice.ID(), h.Alice.Addrs()...)
		return h
	}
	resources := relay.DefaultResources()
	resources.Limit = o.RelayLimit
	h.Relay = NewRelay(t, resources, func(opts ...libp2p.Option) host.Host { return h.Host("10.0.0.3:4001", opts...) })
	h.relay = h.Relay.Host().ID()
	opts := append([]libp2p.Option{
		libp2p.EnableRelay(), libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return nil }), // no address is known, but the relay's
	}, o.Libp2p...)
	h.Alice, h.Bob = h.Host("10.0.0.1:4001", opts...), h.Host("10.0.0.2:4001", opts...)
	Teach(h.Alice, h.Bob.ID(), h.Relay.Reserve(h.Bob)...)
	Teach(h.Bob, h.Alice.ID(), h.Relay.Reserve(h.Alice)...)
	return h
}
