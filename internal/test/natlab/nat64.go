package natlab

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/peerlane/peerlane/internal/nat"
)

// wellKnown is the prefix of IPv6 addresses that stand for IPv4 addresses (RFC 6052, section 2.1).
var wellKnown = netip.MustParsePrefix("64:ff9b::/96")

// Synthesized returns the IPv6 address under which a NAT64 knows an IPv4 address.
func Synthesized(ip netip.Addr) netip.Addr {
	b := wellKnown.Addr().As16()
	copy(b[12:], ip.AsSlice())
	return netip.AddrFrom16(b)
}

// embedded is the inverse of Synthesized.
func embedded(ip netip.Addr) netip.Addr {
	b := ip.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

// longer is how much longer a packet of IPv6 is than the same one of IPv4.
const longer = header6 - header4

const (
	icmp6Echo      = 128
	icmp6EchoReply = 129
)

// outward64 takes a packet from the LAN to an IPv4 address, and translates it (RFC 7915, section 5).
func (r *Router) outward64(pk packet, answer func([]byte)) {
	if mtu := r.wan.link.mtu() + longer; len(pk.b) > mtu {
		if b, ok := tooBig(pk, r.gateway(pk.srcAddr()), mtu); ok {
			answer(b)
		}
		return
	}
	flow, ok := pk.flow64()
	if !ok {
		return
	}
	flow.Dst = netip.AddrPortFrom(embedded(flow.Dst.Addr()), flow.Dst.Port())
	if !r.passes(flow.Dst.Addr()) {
		return
	}
	out, ok := r.nat64.Out(time.Now(), flow)
	if !ok {
		return
	}
	four := pk.to4(out)
	if r.nat64.Outside(out.Dst.Addr()) { // the router itself, seen from inside
		r.inward64(four)
		return
	}
	r.wan.out(four, func([]byte) {}) // it fits
}

// inward64 takes a packet of IPv4 from outside, and translates it (RFC 7915, section 4).
func (r *Router) inward64(pk packet) {
	if quoted, ok := pk.quoted(); ok {
		r.errorIn64(pk, quoted)
		return
	}
	flow, ok := pk.flow64()
	if !ok {
		return
	}
	in, ok := r.nat64.In(time.Now(), flow)
	if !ok {
		return
	}
	to := r.LAN.find(in.Dst.Addr())
	if to == nil {
		return
	}
	if mtu := to.link.mtu() - longer; len(pk.b) > mtu {
		if b, ok := tooBig(pk, r.wan.addrs[0], mtu); ok {
			if back, ok := parse(b); ok {
				r.wan.out(back, func([]byte) {})
			}
		}
		return
	}
	in.Src = netip.AddrPortFrom(Synthesized(in.Src.Addr()), in.Src.Port())
	to.deliver(pk.to6(in))
}

// errorIn64 lets "fragmentation needed" in, as "packet too big", for a packet that went out. Other errors are lost.
func (r *Router) errorIn64(pk, quoted packet) {
	went, ok := quoted.flow64()
	if !ok || pk.b[pk.l4] != icmpUnreachable || pk.b[pk.l4+1] != icmpFragNeeded {
		return
	}
	in, ok := r.nat64.In(time.Now(), nat.Packet{Protocol: went.Protocol, Src: went.Dst, Dst: went.Src})
	if !ok {
		return
	}
	to := r.LAN.find(in.Dst.Addr())
	if to == nil {
		return
	}
	six := quoted.to6(nat.Packet{Protocol: went.Protocol, Src: in.Dst, Dst: netip.AddrPortFrom(Synthesized(went.Dst.Addr()), went.Dst.Port())})
	mtu := binary.BigEndian.Uint16(pk.b[pk.l4+6:])
	if back, ok := parse(icmp6(Synthesized(pk.srcAddr()), six, icmp6TooBig, uint32(mtu)+longer)); ok {
		to.deliver(back)
	}
}

// flow64 is flow for what a NAT64 translates: no fragments, and of ICMP echoes alone.
func (p packet) flow64() (nat.Packet, bool) {
	if !p.v6 {
		if p.l4 == 0 || p.b[6]&0x20 != 0 || p.protocol() == byte(nat.UDP) && p.transportSum() == nil {
			return nat.Packet{}, false
		}
		return p.flow()
	}
	if p.protocol() != protoICMP6 {
		return p.flow()
	}
	f := nat.Packet{Protocol: nat.ICMP, Src: netip.AddrPortFrom(p.srcAddr(), 0), Dst: netip.AddrPortFrom(p.dstAddr(), 0)}
	switch id := binary.BigEndian.Uint16(p.b[p.l4+4:]); p.b[p.l4] {
	case icmp6Echo:
		f.Src = netip.AddrPortFrom(p.srcAddr(), id)
	case icmp6EchoReply:
		f.Dst = netip.AddrPortFrom(p.dstAddr(), id)
	default:
		return nat.Packet{}, false
	}
	return f, true
}

// to4 returns the packet of IPv6 as one of IPv4, with other addresses.
func (p packet) to4(f nat.Packet) packet {
	body := p.b[p.l4:]
	b := make([]byte, header4, header4+len(body))
	b[0], b[1] = 0x45, p.b[0]<<4|p.b[1]>>4
	binary.BigEndian.PutUint16(b[2:], uint16(header4+len(body)))
	b[6] = 0x40 // don't fragment
	b[8], b[9] = p.b[7], byte(f.Protocol)
	copy(b[12:], f.Src.Addr().AsSlice())
	copy(b[16:], f.Dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b, 0))
	out := packet{b: append(b, body...), l4: header4}
	p.translated(out, f)
	return out
}

// to6 returns the packet of IPv4 as one of IPv6, with other addresses.
func (p packet) to6(f nat.Packet) packet {
	body := p.b[p.l4:]
	b := make([]byte, header6, header6+len(body))
	b[0], b[1] = 0x60|p.b[1]>>4, p.b[1]<<4
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	b[6], b[7] = byte(f.Protocol), p.b[8]
	if f.Protocol == nat.ICMP {
		b[6] = protoICMP6
	}
	copy(b[8:], f.Src.Addr().AsSlice())
	copy(b[24:], f.Dst.Addr().AsSlice())
	out := packet{b: append(b, body...), v6: true, l4: header6}
	p.translated(out, f)
	return out
}

// translated gives out, which is p with another header, its ports and checksum. Of a packet that is quoted by an error, the checksum may be
// missing.
func (p packet) translated(out packet, f nat.Packet) {
	t := out.b[out.l4:]
	if f.Protocol == nat.ICMP {
		out.echo(f)
		return
	}
	old := [2]uint16{binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])}
	now := [2]uint16{f.Src.Port(), f.Dst.Port()}
	sum := t[6:]
	if f.Protocol == nat.TCP {
		if len(t) < 18 {
			sum = make([]byte, 2)
		} else {
			sum = t[16:]
		}
	}
	for i := range 2 {
		binary.BigEndian.PutUint16(t[2*i:], now[i])
		fix(sum, old[i], now[i])
	}
	was, is := p.ends(), out.ends() // the rest of the pseudo header stays
	for i := 0; i < max(len(was), len(is)); i += 2 {
		fix(sum, wordAt(was, i), wordAt(is, i))
	}
	if f.Protocol == nat.UDP && binary.BigEndian.Uint16(sum) == 0 {
		binary.BigEndian.PutUint16(sum, 0xffff) // zero is none
	}
}

// ends returns the packet's addresses.
func (p packet) ends() []byte {
	if p.v6 {
		return p.b[8:header6]
	}
	return p.b[12:header4]
}

// wordAt returns the 16 bits at i, or zero behind the end.
func wordAt(b []byte, i int) uint16 {
	if i >= len(b) {
		return 0
	}
	return binary.BigEndian.Uint16(b[i:])
}

// echo gives an echo the type, identifier and checksum of its version of IP.
func (p packet) echo(f nat.Packet) {
	t := p.b[p.l4:]
	isReply := t[0] == icmpEchoReply || t[0] == icmp6EchoReply
	id := f.Src.Port()
	if isReply {
		id = f.Dst.Port()
	}
	binary.BigEndian.PutUint16(t[4:], id)
	t[2], t[3] = 0, 0
	var pseudo uint32
	if p.v6 {
		t[0] = icmp6Echo
		if isReply {
			t[0] = icmp6EchoReply
		}
		pseudo = uint32(len(t)) + protoICMP6
		for i := 8; i < header6; i += 2 {
			pseudo += uint32(binary.BigEndian.Uint16(p.b[i:]))
		}
	} else {
		t[0] = icmpEcho
		if isReply {
			t[0] = icmpEchoReply
		}
	}
	binary.BigEndian.PutUint16(t[2:], checksum(t, pseudo))
}
