//go:build linux

package natlab

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/peerlane/peerlane/internal/nat"
)

// patience is how long a packet is waited for that must come, and quiet how long one that must not. All that could bring it has
// happened before: the lab forwards without delay.
const (
	patience = 5 * time.Second
	quiet    = 50 * time.Millisecond
)

func listen(t *testing.T, h *Host) *net.UDPConn {
	t.Helper()
	c, err := h.ListenUDP(":0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// at returns the address of c on the host's interface.
func at(i *Interface, v int, c *net.UDPConn) netip.AddrPort {
	return netip.AddrPortFrom(addrOf(i, v), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
}

func addrOf(i *Interface, v int) netip.Addr {
	for _, a := range i.Addrs() {
		if a.Is4() == (v == 4) {
			return a
		}
	}
	return netip.Addr{}
}

func sendTo(t *testing.T, c *net.UDPConn, to netip.AddrPort) {
	t.Helper()
	_, err := c.WriteToUDPAddrPort([]byte("hello"), to)
	require.NoError(t, err)
}

// from returns where the next packet comes from, or the zero AddrPort if none comes.
func from(t *testing.T, c *net.UDPConn, wait time.Duration) netip.AddrPort {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(wait)))
	b := make([]byte, 100)
	_, src, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
}

// requireComes checks that a packet comes, or that none does.
func requireComes(t *testing.T, want bool, c *net.UDPConn, format string, args ...any) {
	t.Helper()
	wait := patience
	if !want {
		wait = quiet
	}
	require.Equalf(t, want, from(t, c, wait).IsValid(), format, args...)
}

func TestHostsOnTheInternetTalk(t *testing.T) {
	lab := New(t)
	a, b := lab.Host(), lab.Host()
	ia, ib := a.Plug(lab.Internet), b.Plug(lab.Internet)
	for _, v := range []int{4, 6} {
		ca, cb := listen(t, a), listen(t, b)
		sendTo(t, ca, at(ib, v, cb))
		require.Equal(t, at(ia, v, ca), from(t, cb, patience), "IPv%d", v)
		sendTo(t, cb, at(ia, v, ca))
		require.Equal(t, at(ib, v, cb), from(t, ca, patience), "IPv%d", v)
	}
	require.Positive(t, ia.Link().Sent())
	require.Positive(t, ia.Link().Received())
}

// Behind each kind of NAT: whether a second peer sees the same address, and who can send to it.
func TestHostsSeeTheNATOfEachKind(t *testing.T) {
	for name, tt := range map[string]struct {
		kind            nat.Kind
		same, stranger  bool
		doubled, remote bool
	}{
		"easiest": {kind: nat.Easiest, same: true, stranger: true},
		"easy":    {kind: nat.Easy, same: true},
		"hard":    {kind: nat.Hard},
		"double":  {kind: nat.Easy, same: true, doubled: true},
	} {
		t.Run(name, func(t *testing.T) {
			lab := New(t)
			place := lab.Internet
			if tt.doubled {
				place = lab.Router(place, Home(nat.Easy)).LAN
			}
			home := lab.Host(lab.Router(place, Home(tt.kind)).LAN)
			one, two := lab.Host(), lab.Host()
			iOne, iTwo := one.Plug(lab.Internet), two.Plug(lab.Internet)
			c, c1, c2 := listen(t, home), listen(t, one), listen(t, two)

			sendTo(t, c, at(iOne, 4, c1))
			seen := from(t, c1, patience)
			require.True(t, seen.IsValid())
			sendTo(t, c2, seen)
			requireComes(t, tt.stranger, c, "a stranger's packet comes in")
			sendTo(t, c1, seen)
			require.Equal(t, at(iOne, 4, c1), from(t, c, patience))

			sendTo(t, c, at(iTwo, 4, c2))
			seenByTwo := from(t, c2, patience)
			require.True(t, seenByTwo.IsValid())
			require.Equal(t, tt.same, seen == seenByTwo)
			sendTo(t, c2, seenByTwo)
			require.Equal(t, at(iTwo, 4, c2), from(t, c, patience))
		})
	}
}

func TestAFirewallFiltersIPv6(t *testing.T) {
	lab := New(t)
	home, out := lab.Host(), lab.Host()
	ih, io := home.Plug(lab.Router(lab.Internet, Home(nat.Easy)).LAN), out.Plug(lab.Internet)
	ch, co := listen(t, home), listen(t, out)
	sendTo(t, co, at(ih, 6, ch))
	require.False(t, from(t, ch, quiet).IsValid())
	sendTo(t, ch, at(io, 6, co))
	require.Equal(t, at(ih, 6, ch), from(t, co, patience), "the address is kept")
	sendTo(t, co, at(ih, 6, ch))
	require.Equal(t, at(io, 6, co), from(t, ch, patience))
}

func TestTCPThroughANAT(t *testing.T) {
	lab := New(t)
	router := lab.Router(lab.Internet, Home(nat.Hard))
	home, out := lab.Host(router.LAN), lab.Host()
	io4 := addrOf(out.Plug(lab.Internet), 4)
	ln, err := out.Listen(":0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	const size = 8 << 20
	got := make(chan int64, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- -1
			return
		}
		n, _ := io.Copy(io.Discard, c)
		got <- n
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := home.Dial(ctx, net.JoinHostPort(io4.String(), port))
	require.NoError(t, err)
	began := time.Now()
	_, err = c.Write(make([]byte, size))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.EqualValues(t, size, <-got)
	t.Logf("%.0f MB/s", size/1e6/time.Since(began).Seconds())
	require.Greater(t, router.Link().Sent(), int64(size))
}

func TestHostsOfOneLANTalkWithoutTheRouter(t *testing.T) {
	lab := New(t)
	router := lab.Router(lab.Internet, Home(nat.Easy))
	a, b := lab.Host(), lab.Host()
	ia, ib := a.Plug(router.LAN), b.Plug(router.LAN)
	ca, cb := listen(t, a), listen(t, b)
	sendTo(t, ca, at(ib, 4, cb))
	require.Equal(t, at(ia, 4, ca), from(t, cb, patience))
	require.Zero(t, router.Link().Sent())
}

// A packet from inside to the router's outside address comes back in.
func TestHairpin(t *testing.T) {
	lab := New(t)
	router := lab.Router(lab.Internet, Home(nat.Easiest))
	a, b, out := lab.Host(router.LAN), lab.Host(router.LAN), lab.Host()
	io := out.Plug(lab.Internet)
	ca, cb, co := listen(t, a), listen(t, b), listen(t, out)
	sendTo(t, cb, at(io, 4, co))
	seen := from(t, co, patience)
	sendTo(t, ca, seen)
	require.Equal(t, seen.Addr(), from(t, cb, patience).Addr())
}

func TestLinkConditions(t *testing.T) {
	lab := New(t)
	a, b := lab.Host(), lab.Host()
	ia, ib := a.Plug(lab.Internet), b.Plug(lab.Internet)
	ca, cb := listen(t, a), listen(t, b)

	ia.Link().Set(Conditions{Delay: 100 * time.Millisecond})
	began := time.Now()
	sendTo(t, ca, at(ib, 4, cb))
	require.True(t, from(t, cb, patience).IsValid())
	require.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond)

	ia.Link().Set(Conditions{Loss: 1})
	sendTo(t, ca, at(ib, 4, cb))
	require.False(t, from(t, cb, quiet).IsValid())

	ia.Link().Set(Conditions{NoUDP: true})
	sendTo(t, ca, at(ib, 4, cb))
	require.False(t, from(t, cb, quiet).IsValid())

	ia.Link().Set(Conditions{})
	ia.Link().Cut()
	sendTo(t, ca, at(ib, 4, cb))
	require.False(t, from(t, cb, quiet).IsValid())
	ia.Link().Heal()
	sendTo(t, ca, at(ib, 4, cb))
	require.True(t, from(t, cb, patience).IsValid())

	ia.Link().Set(Conditions{Rate: 100_000})
	began = time.Now()
	for range 11 {
		_, err := ca.WriteToUDPAddrPort(make([]byte, 972), at(ib, 4, cb)) // 1000 bytes with the headers
		require.NoError(t, err)
	}
	for range 11 {
		require.True(t, from(t, cb, patience).IsValid())
	}
	require.GreaterOrEqual(t, time.Since(began), 100*time.Millisecond)
}

// A packet that does not fit is answered, and the sender learns the size.
func TestMTU(t *testing.T) {
	lab := New(t)
	a, b := lab.Host(), lab.Host()
	a.Plug(lab.Router(lab.Internet, Home(nat.Easy)).LAN)
	ib := b.Plug(lab.Internet)
	ib.Link().Set(Conditions{MTU: 1400})
	ca, cb := listen(t, a), listen(t, b)
	for _, size := range []int{1400 - 28, 1400 - 28 + 1} {
		_, err := ca.WriteToUDPAddrPort(make([]byte, size), at(ib, 4, cb))
		require.NoError(t, err)
		requireComes(t, size <= 1372, cb, "%d bytes", size)
	}
	raw, err := ca.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO) // no pieces
	}))
	require.NoError(t, err)
	_, err = ca.WriteToUDPAddrPort(make([]byte, 1373), at(ib, 4, cb))
	require.ErrorIs(t, err, unix.EMSGSIZE, "the answer came back through the NAT")
	_, err = ca.WriteToUDPAddrPort(make([]byte, 1372), at(ib, 4, cb))
	require.NoError(t, err)
	require.True(t, from(t, cb, patience).IsValid())
}

func TestReplug(t *testing.T) {
	lab := New(t)
	a, b := lab.Host(), lab.Host()
	ib := b.Plug(lab.Internet)
	cb := listen(t, b)
	first := a.Plug(lab.Router(lab.Internet, Home(nat.Easy)).LAN)
	c1 := listen(t, a)
	sendTo(t, c1, at(ib, 4, cb))
	before := from(t, cb, patience)
	require.True(t, before.IsValid())
	first.Unplug()
	_, err := c1.WriteToUDPAddrPort([]byte("hello"), at(ib, 4, cb))
	require.Error(t, err, "there is no network")
	a.Plug(lab.Router(lab.Internet, Home(nat.Easy)).LAN)
	sendTo(t, c1, at(ib, 4, cb))
	after := from(t, cb, patience)
	require.True(t, after.IsValid())
	require.NotEqual(t, before.Addr(), after.Addr())
}

func TestProgramsRunOnTheirHost(t *testing.T) {
	lab := New(t)
	h := lab.Host()
	i := h.Plug(lab.Internet)
	out, err := h.Output(t.Context(), "cat", "/proc/net/fib_trie")
	require.NoError(t, err)
	require.Contains(t, out, addrOf(i, 4).String())
	_, err = h.Output(t.Context(), "cat", "/nothing")
	require.ErrorContains(t, err, "/nothing")
}

// Link-local addresses reach the LAN, and nothing behind its router.
func TestLinkLocal(t *testing.T) {
	for _, v := range []int{4, 6} {
		lab := New(t)
		router := lab.Router(lab.Internet, nil)
		a, b := lab.Host(), lab.Host()
		ia, ib := a.PlugLinkLocal(router.LAN, v), b.PlugLinkLocal(router.LAN, v)
		ca, cb := listen(t, a), listen(t, b)
		to := at(ib, v, cb)
		if v == 6 {
			to = netip.AddrPortFrom(to.Addr().WithZone("eth0"), to.Port())
		}
		sendTo(t, ca, to)
		require.Equal(t, at(ia, v, ca).Port(), from(t, cb, patience).Port(), "IPv%d", v)
	}
}
