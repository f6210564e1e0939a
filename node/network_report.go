package node

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/internal/netcheck"
)

// A NetworkReport describes how the network of a machine treats traffic. The terms are those of RFC 4787 and RFC 5780.
type NetworkReport struct {
	IPv4 NetworkIP `json:"ipv4"`
	IPv6 NetworkIP `json:"ipv6"`
	// NAT64 is the prefix at which a machine without IPv4 dials IPv4 addresses, and IPv4 is what passes there. It is the zero Prefix on a
	// machine that has IPv4, and where no NAT64 is known.
	NAT64   netip.Prefix    `json:"nat64,omitzero"`
	Router  NetworkRouter   `json:"router"`
	Helpers []NetworkHelper `json:"helpers"`
	Relays  []NetworkRelay  `json:"relays"`
	// HolePunch is whether the node punches holes (Options.HolePunch).
	HolePunch bool `json:"hole_punch"`
	// UDPBuffers is the result of UDPBufferAdvice.
	UDPBuffers string `json:"udp_buffers,omitempty"`
}

// A NetworkRelay describes a relay from the host's point of view.
type NetworkRelay struct {
	ID       peer.ID       `json:"id"`
	RTT      time.Duration `json:"rtt_ns"`   // the shortest round trip; zero if the relay has not answered
	Reserved bool          `json:"reserved"` // others reach the host through it, or could
	Data     int64         `json:"data"`     // bytes that a relayed connection passes each way; 0 if it sets no limit
	Duration time.Duration `json:"duration_ns"`
	Circuits int           `json:"circuits"` // connections of the host through it now
	Err      string        `json:"error,omitempty"`
}

// NetworkIP describes a version of IP.
type NetworkIP = netcheck.IP

// NetworkTransport describes a transport: whether it passes, and how.
type NetworkTransport = netcheck.Transport

// A NetworkHelper is a helper that was asked.
type NetworkHelper = netcheck.Helper

// NetworkRouter is which protocols for port mapping the router speaks.
type NetworkRouter = netcheck.Router

// An Answer is yes, no, or unknown.
type Answer = netcheck.Answer

// The answers.
const (
	Unknown = netcheck.Unknown
	Yes     = netcheck.Yes
	No      = netcheck.No
)

// A NATBehavior is the part of the remote address on which a NAT's mapping, or the filtering of a NAT or a firewall, depends.
type NATBehavior = netcheck.Behavior

// The behaviors.
const (
	UnknownBehavior         = netcheck.UnknownBehavior
	NoNAT                   = netcheck.None
	EndpointIndependent     = netcheck.EndpointIndependent
	AddressDependent        = netcheck.AddressDependent
	AddressAndPortDependent = netcheck.AddressAndPortDependent
	Dependent               = netcheck.Dependent        // on the address, or on both
	NotPortDependent        = netcheck.NotPortDependent // on the address, or on nothing: it takes a second helper to tell them apart
)
