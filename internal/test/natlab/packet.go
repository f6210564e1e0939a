package natlab

import (
	"encoding/binary"
	"net/netip"

	"github.com/peerlane/peerlane/internal/nat"
)

// A packet is an IP packet, whose header has been checked. Its bytes are rewritten in place.
type packet struct {
	b  []byte
	v6 bool
	l4 int // where the header of the transport begins; 0 when it is not looked at: a later fragment, or IPv6 extension headers
}

// The lengths and numbers of IPv4 (RFC 791), IPv6 (RFC 8200), ICMP (RFC 792) and ICMPv6 (RFC 4443).
const (
	header4 = 20
	header6 = 40

	protoICMP6 = 58

	icmpEchoReply    = 0
	icmpUnreachable  = 3
	icmpFragNeeded   = 4 // a code of icmpUnreachable
	icmpEcho         = 8
	icmpTimeExceeded = 11
	icmp6TooBig      = 2
)

// parse returns the packet in b, which it keeps; ok is false when it is none that the lab forwards.
func parse(b []byte) (p packet, ok bool) {
	if len(b) == 0 {
		return packet{}, false
	}
	switch b[0] >> 4 {
	case 4:
		head := int(b[0]&15) * 4
		if len(b) < header4 || head < header4 || len(b) < head || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
			return packet{}, false
		}
		p = packet{b: b, l4: head}
		if binary.BigEndian.Uint16(b[6:])&0x1fff != 0 { // a later fragment
			p.l4 = 0
		}
	case 6:
		if len(b) < header6 || header6+int(binary.BigEndian.Uint16(b[4:])) != len(b) {
			return packet{}, false
		}
		p = packet{b: b, v6: true, l4: header6}
	default:
		return packet{}, false
	}
	if p.l4 > 0 && len(b) < p.l4+p.minTransport() {
		return packet{}, false
	}
	return p, true
}

// minTransport returns how many bytes of the transport's header are looked at.
func (p packet) minTransport() int {
	switch p.protocol() {
	case byte(nat.TCP):
		return 18
	case byte(nat.UDP), byte(nat.ICMP), protoICMP6:
		return 8
	}
	return 0
}

func (p packet) protocol() byte {
	if p.v6 {
		return p.b[6]
	}
	return p.b[9]
}

func (p packet) srcAddr() netip.Addr { return p.addrAt(12, 8) }
func (p packet) dstAddr() netip.Addr { return p.addrAt(16, 24) }

func (p packet) addrAt(at4, at6 int) netip.Addr {
	if p.v6 {
		return netip.AddrFrom16([16]byte(p.b[at6:]))
	}
	return netip.AddrFrom4([4]byte(p.b[at4:]))
}

// hop decrements the TTL, and reports false if it has expired.
func (p packet) hop() bool {
	if p.v6 {
		if p.b[7] <= 1 {
			return false
		}
		p.b[7]--
		return true
	}
	if p.b[8] <= 1 {
		return false
	}
	old := binary.BigEndian.Uint16(p.b[8:])
	p.b[8]--
	fix(p.b[10:], old, binary.BigEndian.Uint16(p.b[8:]))
	return true
}

// flow returns the packet's protocol, addresses and ports; ok is false if it has no ports.
func (p packet) flow() (nat.Packet, bool) {
	if p.l4 == 0 {
		return nat.Packet{}, false
	}
	t := p.b[p.l4:]
	var src, dst uint16
	proto := nat.Protocol(p.protocol())
	switch proto {
	case nat.TCP, nat.UDP:
		src, dst = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	case nat.ICMP:
		switch id := binary.BigEndian.Uint16(t[4:]); t[0] {
		case icmpEcho:
			src = id
		case icmpEchoReply:
			dst = id
		default:
			return nat.Packet{}, false
		}
	default:
		return nat.Packet{}, false
	}
	return nat.Packet{Protocol: proto, Src: netip.AddrPortFrom(p.srcAddr(), src), Dst: netip.AddrPortFrom(p.dstAddr(), dst)}, true
}

// setSrc and setDst give the packet another address and port, with its checksums.
func (p packet) setSrc(to netip.AddrPort) { p.set(to, 12, 8, 0, icmpEcho) }
func (p packet) setDst(to netip.AddrPort) { p.set(to, 16, 24, 2, icmpEchoReply) }

func (p packet) set(to netip.AddrPort, at4, at6, atPort int, echo byte) {
	sum := p.transportSum()
	addr := p.b[at4 : at4+4]
	if p.v6 {
		addr = p.b[at6 : at6+16]
	}
	fresh := to.Addr().AsSlice()
	for i := 0; i < len(addr); i += 2 {
		old, now := binary.BigEndian.Uint16(addr[i:]), binary.BigEndian.Uint16(fresh[i:])
		if !p.v6 {
			fix(p.b[10:], old, now)
		}
		if sum != nil && p.protocol() != byte(nat.ICMP) { // whose checksum has no addresses in it
			fix(sum, old, now)
		}
	}
	copy(addr, fresh)
	if sum == nil {
		return
	}
	port := p.b[p.l4+atPort:]
	if p.protocol() == byte(nat.ICMP) {
		if p.b[p.l4] != echo {
			return
		}
		port = p.b[p.l4+4:]
	}
	old := binary.BigEndian.Uint16(port)
	binary.BigEndian.PutUint16(port, to.Port())
	fix(sum, old, to.Port())
}

// transportSum returns where the transport's checksum is, or nil if the lab does not know it or UDP has none.
func (p packet) transportSum() []byte {
	if p.l4 == 0 {
		return nil
	}
	switch p.protocol() {
	case byte(nat.TCP):
		return p.b[p.l4+16:]
	case byte(nat.UDP):
		sum := p.b[p.l4+6:]
		if binary.BigEndian.Uint16(sum) == 0 {
			return nil
		}
		return sum
	case byte(nat.ICMP):
		return p.b[p.l4+2:]
	}
	return nil
}

// fix updates the checksum at sum for a 16-bit word that was old and is now (RFC 1624, equation 3).
func fix(sum []byte, old, now uint16) {
	s := uint32(^binary.BigEndian.Uint16(sum)) + uint32(^old) + uint32(now)
	s = s&0xffff + s>>16
	s = s&0xffff + s>>16
	binary.BigEndian.PutUint16(sum, ^uint16(s))
}

// checksum returns the Internet checksum of b, whose own is zero, on top of sum (RFC 1071).
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// tooBig returns the ICMP error for a packet of more than mtu bytes: fragmentation needed, or packet too big. ok is false if there is
// none, because the packet allows fragmentation, which the lab does not do, or is an ICMP error itself.
func tooBig(p packet, from netip.Addr, mtu int) (answer []byte, ok bool) {
	switch {
	case p.v6:
		if p.protocol() == protoICMP6 {
			return nil, false
		}
		return icmp6(from, p, icmp6TooBig, uint32(mtu)), true
	case p.b[6]&0x40 == 0 || p.isICMPError():
		return nil, false
	}
	return icmp4(from, p, icmpUnreachable, icmpFragNeeded, uint32(mtu)), true
}

// timeExceeded returns the ICMP error for a packet whose TTL has expired. The lab sends none for IPv6.
func timeExceeded(p packet, from netip.Addr) (answer []byte, ok bool) {
	if p.v6 || p.isICMPError() {
		return nil, false
	}
	return icmp4(from, p, icmpTimeExceeded, 0, 0), true
}

func (p packet) isICMPError() bool {
	return !p.v6 && p.protocol() == byte(nat.ICMP) && p.l4 > 0 && (p.b[p.l4] == icmpUnreachable || p.b[p.l4] == icmpTimeExceeded)
}

// icmp4 returns an ICMP error to the sender of p, which quotes its header and 8 bytes.
func icmp4(from netip.Addr, p packet, kind, code byte, rest uint32) []byte {
	quote := p.b[:min(len(p.b), int(p.b[0]&15)*4+8)]
	b := make([]byte, header4+8, header4+8+len(quote))
	b[0], b[8], b[9] = 0x45, 64, byte(nat.ICMP)
	binary.BigEndian.PutUint16(b[2:], uint16(header4+8+len(quote)))
	copy(b[12:], from.AsSlice())
	copy(b[16:], p.srcAddr().AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b[:header4], 0))
	b[header4], b[header4+1] = kind, code
	binary.BigEndian.PutUint32(b[header4+4:], rest)
	b = append(b, quote...)
	binary.BigEndian.PutUint16(b[header4+2:], checksum(b[header4:], 0))
	return b
}

// icmp6 returns an ICMPv6 error to the sender of p, which quotes as much of it as fits.
func icmp6(from netip.Addr, p packet, kind byte, rest uint32) []byte {
	quote := p.b[:min(len(p.b), 1280-header6-8)]
	b := make([]byte, header6+8, header6+8+len(quote))
	b[0], b[6], b[7] = 0x60, protoICMP6, 64
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(quote)))
	copy(b[8:], from.AsSlice())
	copy(b[24:], p.srcAddr().AsSlice())
	b[header6] = kind
	binary.BigEndian.PutUint32(b[header6+4:], rest)
	b = append(b, quote...)
	pseudo := uint32(len(b)-header6) + protoICMP6
	for i := 8; i < header6; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[header6+2:], checksum(b[header6:], pseudo))
	return b
}

// quoted returns the packet that an ICMP error quotes; its bytes may end after 8 of the transport's.
func (p packet) quoted() (packet, bool) {
	if !p.isICMPError() {
		return packet{}, false
	}
	b := p.b[p.l4+8:]
	if len(b) < header4 || b[0]>>4 != 4 || len(b) < int(b[0]&15)*4+8 {
		return packet{}, false
	}
	return packet{b: b, l4: int(b[0]&15) * 4}, true
}

// sumICMP computes the checksum of an ICMP error whose quote has changed.
func (p packet) sumICMP() {
	t := p.b[p.l4:]
	t[2], t[3] = 0, 0
	binary.BigEndian.PutUint16(t[2:], checksum(t, 0))
}
