package netcheck

import (
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// An Answer is yes, no, or unknown.
type Answer string

// The answers.
const (
	Unknown Answer = "unknown"
	Yes     Answer = "yes"
	No      Answer = "no"
)

func answerOf(yes bool) Answer {
	if yes {
		return Yes
	}
	return No
}

// A Behavior is the part of the remote address on which a NAT's mapping, or the filtering of a NAT or a firewall, depends.
type Behavior string

// The behaviors.
const (
	// UnknownBehavior means that the behavior could not be determined.
	UnknownBehavior Behavior = "unknown"
	// None means that there is no NAT.
	None Behavior = "none"
	// EndpointIndependent depends on nothing.
	EndpointIndependent Behavior = "endpoint-independent"
	// AddressDependent depends on the IP address.
	AddressDependent Behavior = "address-dependent"
	// AddressAndPortDependent depends on both.
	AddressAndPortDependent Behavior = "address-and-port-dependent"
	// Dependent is AddressDependent or AddressAndPortDependent.
	Dependent Behavior = "dependent"
	// NotPortDependent is EndpointIndependent or AddressDependent. It takes a second helper, with another IP address, to tell them apart.
	NotPortDependent Behavior = "endpoint-independent or address-dependent"
)

// A Transport holds the findings about a transport.
type Transport struct {
	Asked    int           `json:"asked"`    // helpers with an address of this transport
	Answered int           `json:"answered"` // helpers that have answered
	RTT      time.Duration `json:"rtt_ns"`   // the shortest round trip; zero if none is known
	// Outside are the addresses at which helpers see the same socket.
	Outside  []netip.AddrPort `json:"outside"`
	PortKept Answer           `json:"port_kept"` // whether the outside port equals the local one
	Mapping  Behavior         `json:"mapping"`
	// Filtering and Hairpin are set for UDP only. Hairpin is whether the router passes packets that this machine sends to its own outside
	// address. It is Unknown without a NAT, and if the mapping depends on the other side.
	Filtering Behavior `json:"filtering"`
	Hairpin   Answer   `json:"hairpin"`
	// Reachable is whether a helper can dial the port that the host listens on.
	Reachable Answer `json:"reachable"`
}

func newTransport() Transport {
	return Transport{Outside: []netip.AddrPort{}, PortKept: Unknown, Mapping: UnknownBehavior, Filtering: UnknownBehavior,
		Hairpin: Unknown, Reachable: Unknown}
}

// An IP holds the findings about a version of IP.
type IP struct {
	Local []netip.Addr `json:"local"` // addresses of this machine, without loopback and link-local ones
	TCP   Transport    `json:"tcp"`
	UDP   Transport    `json:"udp"`
}

// A Helper is one of the helpers that were asked.
type Helper struct {
	ID    peer.ID       `json:"id"`
	Full  bool          `json:"full"`     // it answers all questions: a relay or a node of peerlane
	RTT   time.Duration `json:"rtt_ns"`   // the shortest round trip; zero if it has not answered
	Ahead time.Duration `json:"ahead_ns"` // how far its clock is ahead of this machine's; zero if it is not Full
	// Private is whether the helper has a private address: it describes its private network only. It is not used if there are public
	// helpers.
	Private bool   `json:"private"`
	Err     string `json:"error,omitempty"`
}

// A sight is the address of a helper, and the address at which it sees a socket.
type sight struct{ to, seen netip.AddrPort }

// mappingOf returns the mapping that the sights of some sockets reveal. isLocal reports whether an address belongs to this machine.
func mappingOf(isLocal func(netip.AddrPort) bool, sockets ...[]sight) Behavior {
	all := slices.Concat(sockets...)
	if len(all) == 0 {
		return UnknownBehavior
	}
	if !slices.ContainsFunc(all, func(s sight) bool { return !isLocal(s.seen) }) {
		return None
	}
	var addrs, ports, byAddr, byPort bool // whether pairs that differ in it were compared, and whether they were seen differently
	for _, socket := range sockets {
		for i, a := range socket {
			for _, b := range socket[:i] {
				differs := a.seen != b.seen
				switch {
				case a.to.Addr() != b.to.Addr():
					addrs, byAddr = true, byAddr || differs
				case a.to.Port() != b.to.Port():
					ports, byPort = true, byPort || differs
				}
			}
		}
	}
	switch {
	case byPort:
		return AddressAndPortDependent
	case byAddr && ports:
		return AddressDependent
	case byAddr:
		return Dependent
	case addrs:
		return EndpointIndependent
	case ports:
		return NotPortDependent
	}
	return UnknownBehavior
}

// filteringOf returns the filtering, given whether a packet came from another port of an address that the socket had sent to, and whether
// one came from another address.
func filteringOf(port, addr Answer) Behavior {
	switch {
	case addr == Yes:
		return EndpointIndependent
	case port == No:
		return AddressAndPortDependent
	case port == Yes && addr == No:
		return AddressDependent
	case port == Yes:
		return NotPortDependent
	}
	return UnknownBehavior
}
