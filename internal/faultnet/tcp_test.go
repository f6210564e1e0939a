package faultnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

const (
	soon  = 5 * time.Second        // bounds what must happen
	quiet = 150 * time.Millisecond // shows what must not happen
)

// tcpEnds returns a proxy and a dialer of connections through it, each with its far end.
func tcpEnds(t *testing.T) (p *TCP, dial func() (near, far *net.TCPConn)) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	p = TCPProxy(t, l.Addr().String())
	return p, func() (near, far *net.TCPConn) {
		near = dialTCP(t, p)
		require.NoError(t, l.SetDeadline(time.Now().Add(soon)))
		far, err := l.AcceptTCP()
		require.NoError(t, err)
		t.Cleanup(func() { far.Close() })
		return near, far
	}
}

func dialTCP(t *testing.T, p *TCP) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// requireCarries checks that from's bytes reach to.
func requireCarries(t *testing.T, from, to net.Conn) {
	t.Helper()
	_, err := from.Write([]byte("ping"))
	require.NoError(t, err)
	require.NoError(t, to.SetReadDeadline(time.Now().Add(soon)))
	buf := make([]byte, 4)
	_, err = io.ReadFull(to, buf)
	require.NoError(t, err)
	require.Equal(t, "ping", string(buf))
}

// requireQuiet checks that nothing reaches c for a moment.
func requireQuiet(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(quiet)))
	n, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Zero(t, n)
}

func requireReset(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
	_, err := io.Copy(io.Discard, c)
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

// requireRefused checks that the proxy resets a new connection, which on loopback may happen before Dial returns.
func requireRefused(t *testing.T, p *TCP) {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		require.ErrorIs(t, err, syscall.ECONNRESET)
		return
	}
	defer c.Close()
	requireReset(t, c)
}

func requireConns(t *testing.T, p *TCP, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return p.Conns() == n }, soon, time.Millisecond, "open: want %d", n)
}

func TestTCPProxyPassesNettest(t *testing.T) {
	t.Parallel() // it waits for real
	_, dial := tcpEnds(t)
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		near, far := dial()
		return near, far, func() { _, _ = near.Close(), far.Close() }, nil
	})
}

func TestTCPProxyPassesOnHowAConnectionEnds(t *testing.T) {
	p, dial := tcpEnds(t)
	near, far := dial()
	require.NoError(t, near.CloseWrite())
	require.Equal(t, io.EOF, second(far.Read(make([]byte, 1))))
	requireCarries(t, far, near) // the other half is open
	require.NoError(t, far.Close())
	require.Equal(t, io.EOF, second(near.Read(make([]byte, 1))))
	require.NoError(t, near.Close())
	requireConns(t, p, 0)

	near, far = dial()
	requireCarries(t, near, far)
	reset(near)
	requireReset(t, far)
	requireConns(t, p, 0)
}

func TestTCPCutResetsBothSidesAndTakesNewConnections(t *testing.T) {
	p, dial := tcpEnds(t)
	near, far := dial()
	near2, far2 := dial()
	requireCarries(t, near, far)
	require.Equal(t, 2, p.Conns())
	p.Cut()
	for _, c := range []net.Conn{near, far, near2, far2} {
		requireReset(t, c)
	}
	requireConns(t, p, 0)
	near, far = dial()
	requireCarries(t, near, far)
	requireCarries(t, far, near)
}

func TestTCPCutAfterForwardsNotAByteMore(t *testing.T) {
	p, dial := tcpEnds(t)
	near, far := dial()
	p.CutAfter(14)
	requireCarries(t, near, far)
	requireCarries(t, far, near)
	_, err := near.Write(pattern(10)) // 8 of 14 are gone
	require.NoError(t, err)
	require.NoError(t, far.SetReadDeadline(time.Now().Add(soon)))
	got, err := io.ReadAll(far)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.LessOrEqual(t, len(got), 6)
	require.Equal(t, pattern(len(got)), append([]byte{}, got...))
	requireReset(t, near)
	near, far = dial()
	requireCarries(t, near, far)
	p.CutAfter(0)
	requireReset(t, near)
}

func TestTCPRefuseResetsNewConnectionsOnly(t *testing.T) {
	p, dial := tcpEnds(t)
	near, far := dial()
	requireCarries(t, near, far)
	p.Refuse(true)
	requireRefused(t, p)
	requireCarries(t, near, far)
	p.Refuse(false)
	near, far = dial()
	requireCarries(t, near, far)
}

func TestTCPProxyWithoutATargetRefuses(t *testing.T) {
	p := TCPProxy(t, "")
	requireRefused(t, p)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gone := l.Addr().String()
	require.NoError(t, l.Close())
	p.SetTarget(gone)
	requireRefused(t, p) // as the target does
	requireConns(t, p, 0)
}

func TestTCPFreezeHoldsBytesEndsAndSenders(t *testing.T) {
	t.Parallel() // it waits for real
	p, dial := tcpEnds(t)
	near, far := dial()
	requireCarries(t, near, far)
	p.Freeze()
	_, err := near.Write([]byte("held"))
	require.NoError(t, err)
	requireQuiet(t, far)

	near2, far2 := dial() // is taken, and frozen too
	const much = 64 << 20
	require.NoError(t, near2.SetWriteDeadline(time.Now().Add(2*quiet)))
	sent, err := near2.Write(make([]byte, much))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "no backpressure")
	require.NoError(t, near2.CloseWrite())
	requireQuiet(t, far2)

	p.Thaw()
	buf := make([]byte, 4)
	require.NoError(t, far.SetReadDeadline(time.Now().Add(soon)))
	_, err = io.ReadFull(far, buf)
	require.NoError(t, err)
	require.Equal(t, "held", string(buf))
	require.NoError(t, far2.SetReadDeadline(time.Now().Add(soon)))
	got, err := io.Copy(io.Discard, far2)
	require.NoError(t, err)
	require.EqualValues(t, sent, got)
}

func TestTCPVanishSwallowsForEverAndNewConnectionsWorkAfterIt(t *testing.T) {
	t.Parallel() // it waits for real
	p, dial := tcpEnds(t)
	near, far := dial()
	requireCarries(t, near, far)
	p.Vanish(true)
	require.NoError(t, near.SetWriteDeadline(time.Now().Add(soon)))
	n, err := near.Write(make([]byte, 32<<20))
	require.NoError(t, err, "swallowed %d", n)
	requireQuiet(t, far)
	lost := dialTCP(t, p) // is accepted, and goes nowhere
	require.NoError(t, second(lost.Write([]byte("x"))))
	requireQuiet(t, lost)
	reset(near)
	requireQuiet(t, far)

	p.Vanish(false)
	requireQuiet(t, lost)
	near, far2 := dial()
	requireCarries(t, near, far2)
	requireQuiet(t, far)
	p.Cut()
	requireReset(t, far)
	requireReset(t, lost)
}

func TestTCPDelayIsOneWay(t *testing.T) {
	t.Parallel() // it waits for real
	p, dial := tcpEnds(t)
	near, far := dial()
	requireCarries(t, near, far)
	p.SetDelay(100 * time.Millisecond)
	started := time.Now()
	requireCarries(t, near, far)
	require.GreaterOrEqual(t, time.Since(started), 100*time.Millisecond)
	requireCarries(t, far, near)
	require.GreaterOrEqual(t, time.Since(started), 200*time.Millisecond)
	near, far = dial()
	started = time.Now()
	requireCarries(t, near, far)
	require.GreaterOrEqual(t, time.Since(started), 100*time.Millisecond)
}

func TestTCPProxyCloseEndsAFrozenOrVanishedConnection(t *testing.T) {
	for name, fault := range map[string]func(*TCP){
		"frozen":   (*TCP).Freeze,
		"vanished": func(p *TCP) { p.Vanish(true) },
	} {
		t.Run(name, func(t *testing.T) {
			p, dial := tcpEnds(t)
			near, far := dial()
			requireCarries(t, near, far)
			fault(p)
			p.Close()
			requireReset(t, near)
			requireReset(t, far)
			require.Zero(t, p.Conns())
			p.Cut()
			p.Thaw()
		})
	}
}
