//go:build linux

package natlab

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/peerlane/peerlane/internal/nat"
)

// behind64 is a host with IPv6 alone behind a NAT64, and one on the internet with IPv4.
func behind64(t *testing.T, kind nat.Kind) (lab *Lab, router *Router, home, out *Host, io *Interface) {
	t.Helper()
	lab = New(t)
	router = lab.Router(lab.Internet, &RouterOptions{NAT64: &kind, Firewall: true})
	home, out = lab.Host(router.LAN), lab.Host()
	return lab, router, home, out, out.Plug(lab.Internet)
}

func synthesizedPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(Synthesized(a.Addr()), a.Port())
}

func TestUDPThroughANAT64(t *testing.T) {
	for name, tt := range map[string]struct {
		kind           nat.Kind
		same, stranger bool
	}{
		"easiest": {nat.Easiest, true, true},
		"easy":    {nat.Easy, true, false},
		"hard":    {nat.Hard, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			lab, router, home, one, iOne := behind64(t, tt.kind)
			two := lab.Host()
			iTwo := two.Plug(lab.Internet)
			c, c1, c2 := listen(t, home), listen(t, one), listen(t, two)

			sendTo(t, c, synthesizedPort(at(iOne, 4, c1)))
			seen := from(t, c1, patience)
			require.Equal(t, router.wan.addrs[0], seen.Addr())
			sendTo(t, c2, seen)
			requireComes(t, tt.stranger, c, "a stranger's packet comes in")
			sendTo(t, c1, seen)
			require.Equal(t, synthesizedPort(at(iOne, 4, c1)), from(t, c, patience))

			sendTo(t, c, synthesizedPort(at(iTwo, 4, c2)))
			seenByTwo := from(t, c2, patience)
			require.True(t, seenByTwo.IsValid())
			require.Equal(t, tt.same, seen == seenByTwo)
			router.DropDirect(addrOf(iTwo, 4))
			sendTo(t, c, synthesizedPort(at(iOne, 4, c1)))
			require.False(t, from(t, c1, quiet).IsValid(), "only the second host is let through")
		})
	}
}

// A host behind a NAT64 has no route to IPv4.
func TestNAT64HasIPv6Alone(t *testing.T) {
	_, _, home, _, io := behind64(t, nat.Easy)
	c := listen(t, home)
	_, err := c.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(addrOf(io, 4), 9))
	require.ErrorIs(t, err, unix.ENETUNREACH)
}

func TestTCPThroughANAT64(t *testing.T) {
	for name, kind := range map[string]nat.Kind{"easy": nat.Easy, "hard": nat.Hard} {
		t.Run(name, func(t *testing.T) {
			_, router, home, out, i := behind64(t, kind)
			ln, err := out.Listen("0.0.0.0:0")
			require.NoError(t, err)
			defer func() { _ = ln.Close() }()
			const size = 4 << 20
			got := make(chan int64, 1)
			go func() {
				c, err := ln.Accept()
				if err != nil {
					got <- -1
					return
				}
				n, _ := io.Copy(io.Discard, c)
				_, _ = c.Write(make([]byte, n)) // all of it comes back
				_ = c.Close()
				got <- n
			}()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, port, err := net.SplitHostPort(ln.Addr().String())
			require.NoError(t, err)
			c, err := home.Dial(ctx, net.JoinHostPort(Synthesized(addrOf(i, 4)).String(), port))
			require.NoError(t, err)
			defer func() { _ = c.Close() }()
			_, err = c.Write(make([]byte, size))
			require.NoError(t, err)
			require.NoError(t, c.(*net.TCPConn).CloseWrite())
			n, err := io.Copy(io.Discard, c)
			require.NoError(t, err)
			require.EqualValues(t, size, n)
			require.EqualValues(t, size, <-got)
			require.Greater(t, router.Link().Sent(), int64(size))
		})
	}
}

// A packet that does not fit behind the NAT64 is answered, and the sender learns the size for IPv6; and the same the other way.
func TestMTUThroughANAT64(t *testing.T) {
	_, _, home, out, i := behind64(t, nat.Easy)
	i.Link().Set(Conditions{MTU: 1400})
	c, co := listen(t, home), listen(t, out)
	to := synthesizedPort(at(i, 4, co))
	whole(t, c, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	const headers = header6 + 8
	_, err := c.WriteToUDPAddrPort(make([]byte, 1400+longer-headers), to)
	require.NoError(t, err)
	seen := from(t, co, patience)
	require.True(t, seen.IsValid())
	_, err = c.WriteToUDPAddrPort(make([]byte, 1400+longer-headers+1), to)
	require.NoError(t, err)
	require.False(t, from(t, co, quiet).IsValid())
	_, err = c.WriteToUDPAddrPort(make([]byte, 1400+longer-headers+1), to)
	require.ErrorIs(t, err, unix.EMSGSIZE, "the answer came back through the NAT64")

	i.Link().Set(Conditions{})
	whole(t, co, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	for _, size := range []int{defaultMTU - headers, defaultMTU - headers + 1} {
		_, err = co.WriteToUDPAddrPort(make([]byte, size), seen)
		require.NoError(t, err)
		requireComes(t, size == defaultMTU-headers, c, "%d bytes", size)
	}
	_, err = co.WriteToUDPAddrPort(make([]byte, defaultMTU-headers+1), seen)
	require.ErrorIs(t, err, unix.EMSGSIZE)
}

// whole sets the option with which a socket sends no pieces.
func whole(t *testing.T, c *net.UDPConn, level, option, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) }))
	require.NoError(t, err)
}

func TestTranslationKeepsTheChecksums(t *testing.T) {
	for _, proto := range []nat.Protocol{nat.TCP, nat.UDP, nat.ICMP} {
		for _, size := range []int{0, 1, 1000} {
			four := requireSums(t, build(proto, b4, c4, size))
			six := four.to6(nat.Packet{Protocol: proto, Src: synthesizedPort(b4), Dst: a6})
			require.Equal(t, six.b[7], byte(64))
			parsed := requireSums(t, six.b)
			require.Zero(t, checksum(six.b[six.l4:], pseudo64(parsed)))
			flow, ok := parsed.flow64()
			require.True(t, ok)
			if proto == nat.ICMP {
				require.Equal(t, netip.AddrPortFrom(Synthesized(b4.Addr()), b4.Port()), flow.Src)
			} else {
				require.Equal(t, nat.Packet{Protocol: proto, Src: synthesizedPort(b4), Dst: a6}, flow)
			}
			back := parsed.to4(nat.Packet{Protocol: proto, Src: b4, Dst: c4})
			requireSums(t, back.b)
			require.Equal(t, four.b[four.l4:], back.b[back.l4:])
		}
	}
}

// pseudo64 is pseudo, for ICMPv6 too.
func pseudo64(p packet) uint32 {
	if p.protocol() != protoICMP6 {
		return p.pseudo()
	}
	sum := uint32(protoICMP6) + uint32(len(p.b)-p.l4)
	for i := 8; i < header6; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p.b[i:]))
	}
	return sum
}

// What a host sends through a NAT64 may be anything.
func FuzzTranslate(f *testing.F) {
	for _, proto := range []nat.Protocol{nat.TCP, nat.UDP, nat.ICMP} {
		f.Add(build(proto, a4, b4, 3))
		f.Add(build(proto, a6, b6, 3))
	}
	p, _ := parse(build(nat.TCP, a4, b4, 100))
	f.Add(icmp4(b4.Addr(), p, icmpUnreachable, icmpFragNeeded, 1280))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parse(b)
		if !ok {
			return
		}
		if quoted, ok := p.quoted(); ok {
			if flow, ok := quoted.flow64(); ok {
				quoted.to6(nat.Packet{Protocol: flow.Protocol, Src: a6, Dst: b6})
			}
			return
		}
		flow, ok := p.flow64()
		if !ok {
			return
		}
		if p.v6 {
			p.to4(nat.Packet{Protocol: flow.Protocol, Src: a4, Dst: b4})
		} else {
			p.to6(nat.Packet{Protocol: flow.Protocol, Src: a6, Dst: b6})
		}
	})
}
