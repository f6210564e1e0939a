package peerlanetest

import (
	"net/netip"
	"time"

	"github.com/peerlane/peerlane/internal/nat"
)

// A NAT says how a network address translator behaves, in the words of RFC 4787.
type NAT uint8

// The NATs.
const (
	// EasiestNAT gives a socket one outside address, to which everybody can send ("full cone").
	EasiestNAT NAT = 1
	// EasyNAT gives a socket one outside address, to which those can send that it has sent to. Most home routers are like that.
	EasyNAT NAT = 2
	// HardNAT gives a socket another outside port, a random one, for each address that it sends to ("symmetric").
	HardNAT NAT = 3
)

func (k NAT) kind() (nat.Kind, bool) {
	switch k {
	case EasiestNAT:
		return nat.Easiest, true
	case EasyNAT:
		return nat.Easy, true
	case HardNAT:
		return nat.Hard, true
	}
	return nat.Kind{}, false
}

// AddNAT puts the hosts at the inside addresses, as in "192.168.1.2", behind a NAT: others see them at the outside address, and reach
// them as far as the NAT lets them. Hosts behind one NAT reach each other at their inside addresses.
func (n *Network) AddNAT(k NAT, outside string, inside ...string) {
	n.t.Helper()
	kind, ok := k.kind()
	if !ok {
		n.t.Fatalf("peerlanetest: no such NAT: %d", k)
	}
	out, err := netip.ParseAddr(outside)
	if err != nil {
		n.t.Fatalf("peerlanetest: outside address of a NAT: %v", err)
	}
	table := nat.New(kind, out)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.outside[out] = table
	for _, s := range inside {
		in, err := netip.ParseAddr(s)
		if err != nil {
			n.t.Fatalf("peerlanetest: inside address of a NAT: %v", err)
		}
		n.behind[in] = table
	}
}

// RestartNATs makes every NAT forget who has sent to whom, and give sockets other ports than before.
func (n *Network) RestartNATs() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, table := range n.outside {
		table.Remap()
	}
}

// routeLocked returns the socket that a packet arrives at, and from where it seems to come. The socket is nil if the packet is lost.
func (n *Network) routeLocked(from, to netip.AddrPort) (peer *socket, seen netip.AddrPort) {
	mine := n.behind[from.Addr()]
	if mine != nil && mine == n.behind[to.Addr()] {
		return n.sockets[to], from
	}
	p := nat.Packet{Protocol: nat.UDP, Src: from, Dst: to}
	if mine != nil {
		var ok bool
		if p, ok = mine.Out(time.Now(), p); !ok {
			return nil, from
		}
	}
	if theirs := n.outside[to.Addr()]; theirs != nil {
		var ok bool
		if p, ok = theirs.In(time.Now(), p); !ok {
			return nil, from
		}
	} else if n.behind[to.Addr()] != nil { // an inside address means nothing outside
		return nil, from
	}
	return n.sockets[p.Dst], p.Src
}
