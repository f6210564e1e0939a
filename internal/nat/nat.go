// Package nat is the table of a network address translator, or of a firewall: which packets it lets through, and with which
// addresses. It is for tests. It is pure: it sees the addresses of packets and the time, and does no I/O, so that the same NAT
// stands between network namespaces and between hosts in memory.
//
//	n := nat.New(nat.Easy, netip.MustParseAddr("11.0.0.10"))
//	out, ok := n.Out(now, packet) // from inside: the source is translated
//	in, ok := n.In(now, answer)   // from outside: the destination is translated, or the packet is dropped
//
// The words are those of RFC 4787 (UDP) and RFC 5382 (TCP): mapping says when two packets from one inside address share an
// outside address, filtering says which outside addresses may use it.
package nat

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// A Behavior says on what of the other side's address a mapping or a filter depends (RFC 4787, sections 4.1 and 5).
type Behavior uint8

// The behaviors.
const (
	EndpointIndependent     Behavior = 0
	AddressDependent        Behavior = 1
	AddressAndPortDependent Behavior = 2
)

// of returns the part of to that the behavior looks at.
func (b Behavior) of(to netip.AddrPort) netip.AddrPort {
	switch b {
	case EndpointIndependent:
		return netip.AddrPort{}
	case AddressDependent:
		return netip.AddrPortFrom(to.Addr(), 0)
	default:
		return to
	}
}

// A Kind is how a NAT behaves. The zero Kind is Easiest.
type Kind struct {
	Mapping     Behavior
	Filtering   Behavior
	RandomPorts bool // outside ports are random; otherwise the inside port where it is free
	Ports       int  // how many outside ports there are, from 1024 on, as a carrier's NAT limits them; zero means all
}

// The kinds of home routers and carriers.
var (
	// Easiest is a "full cone": whoever knows the outside address can send to it.
	Easiest = Kind{}
	// Easy is what most home routers do, Linux among them: one outside address for each inside address, and in come the
	// addresses that were sent to.
	Easy = Kind{Filtering: AddressAndPortDependent}
	// Hard is a "symmetric NAT": a new random port for each address that is sent to.
	Hard = Kind{Mapping: AddressAndPortDependent, Filtering: AddressAndPortDependent, RandomPorts: true}
)

// A Protocol is an IP protocol that has ports.
type Protocol uint8

// The protocols. For ICMP, the identifier of an echo is the port of its inside.
const (
	ICMP Protocol = 1
	TCP  Protocol = 6
	UDP  Protocol = 17
)

// A Packet is a packet's protocol and addresses.
type Packet struct {
	Protocol Protocol
	Src, Dst netip.AddrPort
}

// How long a mapping is kept that nothing uses. UDP is Linux's for a flow with answers (RFC 4787 asks for two minutes), TCP that of
// RFC 5382.
const (
	udpTimeout = 2 * time.Minute
	tcpTimeout = 2*time.Hour + 4*time.Minute
)

func (p Protocol) timeout() time.Duration {
	if p == TCP {
		return tcpTimeout
	}
	return udpTimeout
}

// A NAT is the table of one translator. It is safe for concurrent use.
type NAT struct {
	kind    Kind
	outside netip.Addr // invalid: a firewall, which keeps addresses

	mu      sync.Mutex
	inside  map[insideKey]*mapping
	ports   map[outsideKey]*mapping
	dropped int
	moved   bool // after Remap no port is preserved
}

// A mapping lets packets through between an inside address and others.
type mapping struct {
	protocol        Protocol
	inside, outside netip.AddrPort
	key             insideKey
	used            time.Time
	sentTo          map[netip.AddrPort]struct{} // as far as the filter looks
}

type insideKey struct {
	protocol Protocol
	inside   netip.AddrPort
	to       netip.AddrPort // as far as the mapping looks
}

type outsideKey struct {
	protocol Protocol
	outside  netip.AddrPort
}

// New returns a NAT with one outside address. If outside is the zero Addr, it is a firewall: it filters, and translates nothing.
func New(kind Kind, outside netip.Addr) *NAT {
	const all = 1<<16 - firstPort
	if kind.Ports <= 0 || kind.Ports > all {
		kind.Ports = all
	}
	n := &NAT{kind: kind, outside: outside}
	n.Forget()
	return n
}

// Out returns p with the source that it has outside. It makes a mapping if there is none; ok is false when no port is left.
func (n *NAT) Out(now time.Time, p Packet) (out Packet, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := insideKey{p.Protocol, p.Src, n.kind.Mapping.of(p.Dst)}
	m := n.inside[key]
	if m != nil && m.expired(now) {
		n.remove(m)
		m = nil
	}
	if m == nil {
		outside, ok := n.choose(now, p)
		if !ok {
			n.dropped++
			return Packet{}, false
		}
		m = &mapping{protocol: p.Protocol, inside: p.Src, outside: outside, key: key, sentTo: make(map[netip.AddrPort]struct{})}
		n.inside[key] = m
		n.ports[outsideKey{p.Protocol, outside}] = m
	}
	m.used = now
	m.sentTo[n.kind.Filtering.of(p.Dst)] = struct{}{}
	p.Src = m.outside
	return p, true
}

// In returns p with the destination that it has inside; ok is false when the NAT drops it.
func (n *NAT) In(now time.Time, p Packet) (in Packet, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.ports[outsideKey{p.Protocol, p.Dst}]
	if m == nil || m.expired(now) || !m.lets(n.kind.Filtering.of(p.Src)) {
		n.dropped++
		return Packet{}, false
	}
	m.used = now
	p.Dst = m.inside
	return p, true
}

// Outside reports whether a is the NAT's outside address.
func (n *NAT) Outside(a netip.Addr) bool { return n.outside.IsValid() && a == n.outside }

// Forget drops every mapping, as a router does that is restarted.
func (n *NAT) Forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inside = make(map[insideKey]*mapping)
	n.ports = make(map[outsideKey]*mapping)
}

// Remap drops every mapping, and makes new ones with other ports than before.
func (n *NAT) Remap() {
	n.Forget()
	n.mu.Lock()
	n.moved = true
	n.mu.Unlock()
}

// Dropped returns how many packets were not let through.
func (n *NAT) Dropped() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dropped
}

// Mappings returns how many mappings there are, with those that have expired and were not asked for since.
func (n *NAT) Mappings() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.inside)
}

func (m *mapping) expired(now time.Time) bool { return now.Sub(m.used) > m.protocol.timeout() }

func (m *mapping) lets(src netip.AddrPort) bool {
	_, ok := m.sentTo[src]
	return ok
}

func (n *NAT) remove(m *mapping) {
	delete(n.inside, m.key)
	delete(n.ports, outsideKey{m.protocol, m.outside})
}

// firstPort is the first that a NAT gives out: the well-known ones stay alone.
const firstPort = 1024

// choose returns the outside address of a new mapping: the inside port where it is kept and free, or the next free one after a
// random one. n.mu is held.
func (n *NAT) choose(now time.Time, p Packet) (netip.AddrPort, bool) {
	if !n.outside.IsValid() {
		return p.Src, n.free(now, outsideKey{p.Protocol, p.Src})
	}
	if !n.kind.RandomPorts && !n.moved && int(p.Src.Port())-firstPort < n.kind.Ports {
		same := netip.AddrPortFrom(n.outside, p.Src.Port())
		if n.free(now, outsideKey{p.Protocol, same}) {
			return same, true
		}
	}
	start := rand.IntN(n.kind.Ports)
	for i := range n.kind.Ports {
		at := netip.AddrPortFrom(n.outside, uint16(firstPort+(start+i)%n.kind.Ports))
		if n.free(now, outsideKey{p.Protocol, at}) {
			return at, true
		}
	}
	return netip.AddrPort{}, false
}

// free reports whether no mapping has the outside address; it removes one that has expired. n.mu is held.
func (n *NAT) free(now time.Time, key outsideKey) bool {
	m := n.ports[key]
	if m != nil && m.expired(now) {
		n.remove(m)
		m = nil
	}
	return m == nil
}
