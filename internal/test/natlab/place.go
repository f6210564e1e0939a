package natlab

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/internal/nat"
)

// A Place is where hosts and routers are plugged in: the internet, or the LAN of a router. It forwards packets between them.
type Place struct {
	prefixes []netip.Prefix // one of IPv4, one of IPv6, or both
	router   *Router        // whose LAN it is; nil for the internet

	mu    sync.RWMutex
	ports []*port
	next  int // the number of the next address
}

// A port is where something is plugged into a place.
type port struct {
	place  *Place
	link   *Link
	addrs  []netip.Addr   // of the host or router
	behind []netip.Prefix // networks behind the router
	in     func(packet)   // takes a packet that comes from the place
}

// take returns unused addresses, one of each prefix.
func (pl *Place) take(prefixes []netip.Prefix) []netip.Addr {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.next++
	var addrs []netip.Addr
	for _, prefix := range prefixes {
		addrs = append(addrs, nth(prefix, pl.next))
	}
	return addrs
}

// plug connects a host or router with the given addresses.
func (pl *Place) plug(in func(packet), addrs []netip.Addr) *port {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	p := &port{place: pl, link: newLink(), in: in, addrs: addrs}
	pl.ports = append(pl.ports, p)
	return p
}

func (pl *Place) unplug(p *port) {
	pl.mu.Lock()
	pl.ports = slices.DeleteFunc(pl.ports, func(q *port) bool { return q == p })
	pl.mu.Unlock()
	p.link.close()
}

// nth returns the nth address of a prefix.
func nth(prefix netip.Prefix, n int) netip.Addr {
	b := prefix.Addr().AsSlice()
	b[len(b)-1] += byte(n)
	b[len(b)-2] += byte(n >> 8)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// addr returns the port's address of the same version as other, or the zero Addr.
func (p *port) addr(other netip.Addr) netip.Addr {
	for _, a := range p.addrs {
		if a.Is4() == other.Is4() && !a.IsLinkLocalUnicast() {
			return a
		}
	}
	return netip.Addr{}
}

// out sends a packet from the host or router to the place. answer is called with the ICMP error if the packet is too large.
func (p *port) out(pk packet, answer func([]byte)) {
	if mtu := p.link.mtu(); len(pk.b) > mtu {
		if b, ok := tooBig(pk, p.addr(pk.srcAddr()), mtu); ok {
			answer(b)
		}
		return
	}
	p.link.up.send(pk.b, pk.protocol() == byte(nat.UDP), func(b []byte) {
		if pk, ok := parse(b); ok {
			p.place.from(p, pk)
		}
	})
}

// deliver sends a packet from the place to the host or router.
func (p *port) deliver(pk packet) {
	if mtu := p.link.mtu(); len(pk.b) > mtu {
		if b, ok := tooBig(pk, p.addr(pk.dstAddr()), mtu); ok {
			if answer, ok := parse(b); ok {
				p.place.from(p, answer)
			}
		}
		return
	}
	p.link.down.send(pk.b, pk.protocol() == byte(nat.UDP), func(b []byte) {
		if pk, ok := parse(b); ok {
			p.in(pk)
		}
	})
}

// from forwards a packet that comes from a port: to another port, or out through the place's router.
func (pl *Place) from(src *port, pk packet) {
	dst := pk.dstAddr()
	if dst.IsMulticast() || dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		pl.flood(src, pk)
		return
	}
	if to := pl.find(dst); to != nil {
		to.deliver(pk)
		return
	}
	if pl.router != nil && !dst.IsLinkLocalUnicast() {
		pl.router.outward(src, pk)
	}
}

// flood sends a packet to every port of a LAN but the one it came from. Nothing on the internet is sent to all.
func (pl *Place) flood(src *port, pk packet) {
	if pl.router == nil {
		return
	}
	pl.mu.RLock()
	ports := slices.Clone(pl.ports)
	pl.mu.RUnlock()
	for _, to := range ports {
		if to != src {
			b := slices.Clone(pk.b)
			to.deliver(packet{b: b, v6: pk.v6, l4: pk.l4})
		}
	}
}

// find returns the port through which dst is reached, or nil.
func (pl *Place) find(dst netip.Addr) *port {
	pl.mu.RLock()
	defer pl.mu.RUnlock()
	for _, p := range pl.ports {
		if slices.Contains(p.addrs, dst) || slices.ContainsFunc(p.behind, func(x netip.Prefix) bool { return x.Contains(dst) }) {
			return p
		}
	}
	return nil
}

// A Router stands between its LAN and the place that it is plugged into, translates IPv4 addresses, or IPv6 to IPv4, and filters IPv6.
type Router struct {
	LAN *Place

	wan      *port
	nat      *nat.NAT // of IPv4; nil: addresses are not translated, and everything comes in
	firewall *nat.NAT // of IPv6; nil: everything comes in
	nat64    *nat.NAT // from IPv6 inside to IPv4; nil: there is none
	only     atomic.Pointer[[]netip.Addr]
}

// DropDirect loses all packets but those to and from the addresses, as a route does that is broken for some. Without addresses it ends.
func (r *Router) DropDirect(but ...netip.Addr) {
	if len(but) == 0 {
		r.only.Store(nil)
		return
	}
	r.only.Store(&but)
}

// passes reports whether packets to and from an address outside pass.
func (r *Router) passes(outside netip.Addr) bool {
	only := r.only.Load()
	return only == nil || slices.Contains(*only, outside)
}

// Link returns the router's link to the place that it is plugged into.
func (r *Router) Link() *Link { return r.wan.link }

// Restart makes the router forget who spoke with whom.
func (r *Router) Restart() { r.each((*nat.NAT).Forget) }

// Remap makes the router forget who spoke with whom, and give everyone another port than before.
func (r *Router) Remap() { r.each((*nat.NAT).Remap) }

func (r *Router) each(f func(*nat.NAT)) {
	for _, n := range []*nat.NAT{r.nat, r.firewall, r.nat64} {
		if n != nil {
			f(n)
		}
	}
}

// table returns the table that a packet has to pass, or nil.
func (r *Router) table(pk packet) *nat.NAT {
	if pk.v6 {
		return r.firewall
	}
	return r.nat
}

// outward takes a packet from the LAN that is for elsewhere.
func (r *Router) outward(src *port, pk packet) {
	own := r.gateway(pk.srcAddr())
	answer := func(b []byte) {
		if back, ok := parse(b); ok {
			src.deliver(back)
		}
	}
	if !pk.hop() {
		if b, ok := timeExceeded(pk, own); ok {
			answer(b)
		}
		return
	}
	if r.nat64 != nil && wellKnown.Contains(pk.dstAddr()) {
		r.outward64(pk, answer)
		return
	}
	if mtu := r.wan.link.mtu(); len(pk.b) > mtu { // before it is translated, so that the answer need not be
		if b, ok := tooBig(pk, own, mtu); ok {
			answer(b)
		}
		return
	}
	if !r.passes(pk.dstAddr()) || !r.translateOut(pk) {
		return
	}
	if r.nat != nil && r.nat.Outside(pk.dstAddr()) { // the router itself, seen from inside
		r.inward(pk)
		return
	}
	r.wan.out(pk, answer)
}

func (r *Router) translateOut(pk packet) bool {
	table := r.table(pk)
	if table == nil {
		return true
	}
	flow, ok := pk.flow()
	if !ok {
		return false
	}
	out, ok := table.Out(time.Now(), flow)
	if ok {
		pk.setSrc(out.Src)
	}
	return ok
}

// inward takes a packet from outside.
func (r *Router) inward(pk packet) {
	if !pk.hop() || !r.passes(pk.srcAddr()) {
		return
	}
	if r.nat64 != nil && !pk.v6 {
		r.inward64(pk)
		return
	}
	if !r.translateIn(pk) {
		return
	}
	if to := r.LAN.find(pk.dstAddr()); to != nil {
		to.deliver(pk)
	}
}

func (r *Router) translateIn(pk packet) bool {
	table := r.table(pk)
	if table == nil {
		return true
	}
	if quoted, ok := pk.quoted(); ok {
		return r.translateError(pk, quoted)
	}
	if pk.v6 && pk.protocol() == protoICMP6 {
		return true // errors, which the host's kernel checks
	}
	flow, ok := pk.flow()
	if !ok {
		return false
	}
	in, ok := table.In(time.Now(), flow)
	if ok {
		pk.setDst(in.Dst)
	}
	return ok
}

// translateError lets an ICMP error in for a packet that went out.
func (r *Router) translateError(pk, quoted packet) bool {
	went, ok := quoted.flow()
	if !ok {
		return false
	}
	in, ok := r.nat.In(time.Now(), nat.Packet{Protocol: went.Protocol, Src: went.Dst, Dst: went.Src})
	if !ok {
		return false
	}
	to := in.Dst
	copy(quoted.b[12:16], to.Addr().AsSlice())
	if went.Protocol != nat.ICMP {
		quoted.b[quoted.l4], quoted.b[quoted.l4+1] = byte(to.Port()>>8), byte(to.Port())
	}
	pk.sumICMP()
	pk.setDst(netip.AddrPortFrom(to.Addr(), 0))
	return true
}

// gateway returns the router's own address on its LAN.
func (r *Router) gateway(other netip.Addr) netip.Addr {
	for _, prefix := range r.LAN.prefixes {
		if prefix.Addr().Is4() == other.Is4() {
			return nth(prefix, gatewayNumber)
		}
	}
	return netip.Addr{}
}

// gatewayNumber is the last part of a gateway's address.
const gatewayNumber = 254
