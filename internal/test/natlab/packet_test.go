package natlab

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/nat"
)

var (
	a4 = netip.MustParseAddrPort("192.168.1.2:4001")
	b4 = netip.MustParseAddrPort("11.0.0.1:5002")
	c4 = netip.MustParseAddrPort("11.0.0.9:61000")
	a6 = netip.MustParseAddrPort("[2600:11:0:1::2]:4001")
	b6 = netip.MustParseAddrPort("[2600:11::1]:5002")
	c6 = netip.MustParseAddrPort("[2600:11::9]:61000")
)

// build returns a packet with right checksums.
func build(proto nat.Protocol, src, dst netip.AddrPort, size int) []byte {
	var t []byte
	switch proto {
	case nat.TCP:
		t = make([]byte, 20+size)
		t[12] = 5 << 4
	case nat.UDP:
		t = make([]byte, 8+size)
		binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
	default:
		t = make([]byte, 8+size)
		t[0] = icmpEcho
		binary.BigEndian.PutUint16(t[4:], src.Port())
	}
	if proto != nat.ICMP {
		binary.BigEndian.PutUint16(t, src.Port())
		binary.BigEndian.PutUint16(t[2:], dst.Port())
	}
	for i := len(t) - size; i < len(t); i++ {
		t[i] = byte(i)
	}
	var b []byte
	if src.Addr().Is4() {
		b = make([]byte, header4)
		b[0], b[8], b[9] = 0x45, 64, byte(proto)
		binary.BigEndian.PutUint16(b[2:], uint16(header4+len(t)))
		copy(b[12:], src.Addr().AsSlice())
		copy(b[16:], dst.Addr().AsSlice())
		binary.BigEndian.PutUint16(b[10:], checksum(b, 0))
	} else {
		b = make([]byte, header6)
		b[0], b[6], b[7] = 0x60, byte(proto), 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(t)))
		copy(b[8:], src.Addr().AsSlice())
		copy(b[24:], dst.Addr().AsSlice())
	}
	b = append(b, t...)
	p, _ := parse(b)
	if sum := p.sumForTest(); sum != nil {
		binary.BigEndian.PutUint16(sum, checksum(b[p.l4:], p.pseudo()))
	}
	return b
}

// sumForTest is transportSum, also for UDP that has none yet.
func (p packet) sumForTest() []byte {
	if p.protocol() == byte(nat.UDP) {
		return p.b[p.l4+6:]
	}
	return p.transportSum()
}

// pseudo returns the sum of the pseudo header (RFC 9293, section 3.1, and RFC 8200, section 8.1).
func (p packet) pseudo() uint32 {
	if p.protocol() == byte(nat.ICMP) {
		return 0
	}
	sum := uint32(p.protocol()) + uint32(len(p.b)-p.l4)
	from := 12
	if p.v6 {
		from = 8
	}
	for i := from; i < p.l4; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p.b[i:]))
	}
	return sum
}

func requireSums(t *testing.T, b []byte) packet {
	t.Helper()
	p, ok := parse(b)
	require.True(t, ok)
	if !p.v6 {
		require.Zero(t, checksum(b[:p.l4], 0), "of the header")
	}
	if p.protocol() != protoICMP6 {
		require.Zero(t, checksum(b[p.l4:], p.pseudo()), "of the transport")
	}
	return p
}

func TestRewritingKeepsTheChecksums(t *testing.T) {
	for _, proto := range []nat.Protocol{nat.TCP, nat.UDP, nat.ICMP} {
		for _, ends := range [][3]netip.AddrPort{{a4, b4, c4}, {a6, b6, c6}} {
			if proto == nat.ICMP && ends[0].Addr().Is6() {
				continue
			}
			for _, size := range []int{0, 1, 1000} {
				b := build(proto, ends[0], ends[1], size)
				p := requireSums(t, b)
				p.setSrc(ends[2])
				p.setDst(ends[0])
				require.True(t, p.hop())
				p = requireSums(t, b)
				flow, ok := p.flow()
				require.True(t, ok)
				want := nat.Packet{Protocol: proto, Src: ends[2], Dst: ends[0]}
				if proto == nat.ICMP {
					want.Dst = netip.AddrPortFrom(ends[0].Addr(), 0)
				}
				require.Equal(t, want, flow)
			}
		}
	}
}

func TestHopCountsDownToTheEnd(t *testing.T) {
	for _, b := range [][]byte{build(nat.UDP, a4, b4, 1), build(nat.UDP, a6, b6, 1)} {
		p, ok := parse(b)
		require.True(t, ok)
		for range 63 {
			require.True(t, p.hop())
			requireSums(t, b)
		}
		require.False(t, p.hop())
	}
}

func TestICMPErrorsQuoteThePacket(t *testing.T) {
	router := netip.MustParseAddr("11.0.0.254")
	b := build(nat.UDP, a4, b4, 1400)
	b[6] |= 0x40 // don't fragment
	p, _ := parse(b)
	answer, ok := tooBig(p, router, 1300)
	require.True(t, ok)
	binary.BigEndian.PutUint16(b[10:], 0)
	pk := requireSums(t, answer)
	require.Equal(t, a4.Addr(), pk.dstAddr())
	quoted, ok := pk.quoted()
	require.True(t, ok)
	flow, ok := quoted.flow()
	require.True(t, ok)
	require.Equal(t, nat.Packet{Protocol: nat.UDP, Src: a4, Dst: b4}, flow)
	require.EqualValues(t, 1300, binary.BigEndian.Uint16(answer[pk.l4+6:]))
	_, ok = tooBig(pk, router, 10)
	require.False(t, ok, "no error about an error")

	b[6] = 0
	_, ok = tooBig(p, router, 1300)
	require.False(t, ok, "it may be cut in pieces")

	p6, _ := parse(build(nat.UDP, a6, b6, 1400))
	answer, ok = tooBig(p6, b6.Addr(), 1300)
	require.True(t, ok)
	pk6 := requireSums(t, answer)
	require.Equal(t, a6.Addr(), pk6.dstAddr())
	require.Zero(t, checksum(answer[header6:], pk6.pseudo()), "of ICMPv6")

	answer, ok = timeExceeded(p, router)
	require.True(t, ok)
	require.True(t, requireSums(t, answer).isICMPError())
}

// What a host sends may be anything.
func FuzzParse(f *testing.F) {
	for _, proto := range []nat.Protocol{nat.TCP, nat.UDP, nat.ICMP} {
		f.Add(build(proto, a4, b4, 3))
		f.Add(build(proto, a6, b6, 3))
	}
	p, _ := parse(build(nat.UDP, a4, b4, 100))
	f.Add(icmp4(b4.Addr(), p, icmpUnreachable, icmpFragNeeded, 1280))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parse(b)
		if !ok {
			return
		}
		p.flow()
		if quoted, ok := p.quoted(); ok {
			quoted.flow()
			p.sumICMP()
		}
		src, dst := c4, a4
		if p.v6 {
			src, dst = c6, a6
		}
		p.setSrc(src)
		p.setDst(dst)
		p.hop()
		tooBig(p, src.Addr(), 1280)
		timeExceeded(p, src.Addr())
		again, ok := parse(b)
		require.True(t, ok)
		require.Equal(t, src.Addr(), again.srcAddr())
		require.Equal(t, dst.Addr(), again.dstAddr())
	})
}
