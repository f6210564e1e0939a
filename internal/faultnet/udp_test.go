package faultnet

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// udpEnds returns a proxy, a server's socket behind it, and a dialer of clients.
func udpEnds(t *testing.T) (p *UDP, server *net.UDPConn, dial func() *net.UDPConn) {
	t.Helper()
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { server.Close() })
	p = UDPProxy(t, server.LocalAddr().String())
	return p, server, func() *net.UDPConn {
		c, err := net.Dial("udp", p.Addr())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c.(*net.UDPConn)
	}
}

// get returns the next packet and its sender.
func get(t *testing.T, c *net.UDPConn) (string, *net.UDPAddr) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
	buf := make([]byte, maxPacket)
	n, from, err := c.ReadFromUDP(buf)
	require.NoError(t, err)
	return string(buf[:n]), from
}

func put(t *testing.T, c *net.UDPConn, s string) {
	t.Helper()
	require.NoError(t, second(c.Write([]byte(s))))
}

// requirePath checks that a client reaches the server and is answered. It returns the source address the server saw.
func requirePath(t *testing.T, client, server *net.UDPConn) *net.UDPAddr {
	t.Helper()
	put(t, client, "ping")
	s, from := get(t, server)
	require.Equal(t, "ping", s)
	require.NoError(t, second(server.WriteToUDP([]byte("pong"), from)))
	s, _ = get(t, client)
	require.Equal(t, "pong", s)
	return from
}

func TestUDPProxyGivesEachClientItsOwnSource(t *testing.T) {
	p, server, dial := udpEnds(t)
	c1, c2 := dial(), dial()
	from1, from2 := requirePath(t, c1, server), requirePath(t, c2, server)
	require.NotEqual(t, from1.Port, from2.Port)
	require.Equal(t, from1.Port, requirePath(t, c1, server).Port)
	require.Equal(t, 2, p.Flows())
}

func TestUDPVanishDropsBothWaysAndComesBack(t *testing.T) {
	t.Parallel() // it waits for real
	p, server, dial := udpEnds(t)
	c := dial()
	from := requirePath(t, c, server)
	p.Vanish(true)
	put(t, c, "lost")
	require.NoError(t, second(server.WriteToUDP([]byte("lost"), from)))
	requireQuiet(t, c)
	requireQuiet(t, server)
	p.Vanish(false)
	require.Equal(t, from.Port, requirePath(t, c, server).Port)
}

func TestUDPFreezeKeepsPacketsInOrderUpToTheBound(t *testing.T) {
	p, server, dial := udpEnds(t)
	c := dial()
	requirePath(t, c, server)
	p.Freeze()
	for _, s := range []string{"1", "2", "3"} {
		put(t, c, s)
	}
	requireQuiet(t, server)
	p.Thaw()
	for _, want := range []string{"1", "2", "3"} {
		got, _ := get(t, server)
		require.Equal(t, want, got)
	}
	p.Freeze()
	f := p.flows[c.LocalAddr().(*net.UDPAddr).AddrPort()]
	p.change(func() {
		for range queueLen + 10 {
			p.enqueueLocked(packet{flow: f, data: []byte("x")})
		}
		require.Len(t, p.queue, queueLen)
	})
	p.Vanish(true) // drops those too
	p.Vanish(false)
	p.Thaw()
	requirePath(t, c, server)
}

func TestUDPDelayIsOneWay(t *testing.T) {
	p, server, dial := udpEnds(t)
	c := dial()
	p.SetDelay(100 * time.Millisecond)
	started := time.Now()
	requirePath(t, c, server)
	require.GreaterOrEqual(t, time.Since(started), 200*time.Millisecond)
}

func TestUDPLossHasItsRateAndIsRepeatable(t *testing.T) {
	p := UDPProxy(t, "127.0.0.1:9")
	p.Freeze()
	kept := func(rate float64, seed uint64) (which []byte) {
		p.SetLoss(rate, seed)
		p.change(func() {
			p.queue = nil
			for i := range 200 {
				p.enqueueLocked(packet{flow: &flow{}, data: []byte{byte(i)}})
			}
			for _, pkt := range p.queue {
				which = append(which, pkt.data...)
			}
			p.queue = nil
		})
		return which
	}
	require.Len(t, kept(0, 1), 200)
	require.Empty(t, kept(1, 1))
	require.Equal(t, kept(0.3, 7), kept(0.3, 7))
	require.NotEqual(t, kept(0.3, 7), kept(0.3, 8))
	require.InDelta(t, 140, len(kept(0.3, 7)), 30)
}

func TestUDPRebindChangesTheSourcePortOnly(t *testing.T) {
	p, server, dial := udpEnds(t)
	c := dial()
	from := requirePath(t, c, server)
	p.Rebind()
	to := requirePath(t, c, server)
	require.NotEqual(t, from.Port, to.Port)
	require.NoError(t, second(server.WriteToUDP([]byte("late"), from)))
	requireQuiet(t, c)
	require.Equal(t, 1, p.Flows())
}

func TestUDPKillIsForEverForPresentClientsOnly(t *testing.T) {
	t.Parallel() // it waits for real
	p, server, dial := udpEnds(t)
	c := dial()
	from := requirePath(t, c, server)
	p.Kill()
	p.Rebind() // revives nothing
	put(t, c, "lost")
	require.NoError(t, second(server.WriteToUDP([]byte("lost"), from)))
	requireQuiet(t, server)
	requireQuiet(t, c)
	requirePath(t, dial(), server)
	put(t, c, "lost")
	requireQuiet(t, server)
}

func TestUDPProxyOutlivesAnAbsentTarget(t *testing.T) {
	t.Parallel() // it waits for real
	p := UDPProxy(t, "")
	c, err := net.Dial("udp", p.Addr())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, second(c.Write([]byte("to nobody"))))
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	addr := server.LocalAddr().(*net.UDPAddr)
	require.NoError(t, server.Close())
	p.SetTarget(addr.String())
	for range 3 { // each elicits an ICMP error
		require.NoError(t, second(c.Write([]byte("too early"))))
		requireQuiet(t, c)
	}
	server, err = net.ListenUDP("udp4", addr)
	require.NoError(t, err)
	defer server.Close()
	requirePath(t, c.(*net.UDPConn), server)
}

func TestUDPProxyCloseDropsWhatItHolds(t *testing.T) {
	p, server, dial := udpEnds(t)
	c := dial()
	requirePath(t, c, server)
	p.Freeze()
	put(t, c, "held")
	p.Close()
	p.Rebind()
	p.Thaw()
	require.NoError(t, server.SetReadDeadline(time.Now().Add(quiet)))
	_, _, err := server.ReadFromUDP(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}
