package faultnet

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A TCP is a TCP proxy on loopback that breaks on command. It ends each connection the way it was ended: a FIN is passed
// on as a FIN, with half-close, and a reset as a reset.
//
// A connection that was open at any moment of Vanish(true) has lost bytes, so it stays silent after Vanish(false) too.
type TCP struct {
	listener *net.TCPListener
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup // serve, and one run per connection

	mu       sync.Mutex
	target   string
	conns    map[*tcpConn]struct{}
	delay    time.Duration
	refusing bool
	frozen   bool
	vanished bool
	counting bool  // CutAfter was called
	left     int64 // bytes until the cut, if counting
}

// TCPProxy returns a proxy to target, which is a host and port, or empty until SetTarget.
func TCPProxy(t testing.TB, target string) *TCP {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatalf("faultnet: tcp proxy: %v", err)
	}
	p := &TCP{listener: l, target: target, conns: make(map[*tcpConn]struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.running.Go(p.serve)
	t.Cleanup(p.Close)
	return p
}

// Addr returns the host and port to dial.
func (p *TCP) Addr() string { return p.listener.Addr().String() }

// SetTarget sets where later connections go.
func (p *TCP) SetTarget(target string) { p.change(func() { p.target = target }) }

// Cut resets all connections now, by RST. Later ones work.
func (p *TCP) Cut() { p.each((*tcpConn).reset) }

// CutAfter cuts once n more bytes have been forwarded, of all connections and both directions together; none is forwarded
// beyond. Then it is spent: later connections work. With n <= 0 it cuts at once.
func (p *TCP) CutAfter(n int64) {
	if n <= 0 {
		p.Cut()
		return
	}
	p.change(func() { p.counting, p.left = true, n })
}

// Refuse resets later connections at once, from Refuse(true) to Refuse(false).
func (p *TCP) Refuse(on bool) { p.change(func() { p.refusing = on }) }

// Freeze forwards nothing, also not the end of a connection, until Thaw. Senders fill the buffers and then wait.
func (p *TCP) Freeze() {
	p.change(func() { p.frozen = true })
	p.each(func(c *tcpConn) { c.link.Freeze() })
}

// Thaw ends Freeze.
func (p *TCP) Thaw() {
	p.change(func() { p.frozen = false })
	p.each(func(c *tcpConn) { c.link.Thaw() })
}

// Vanish with true swallows all bytes and ends, of later connections too, which do not reach the target. Senders notice
// nothing. With false it lets connections work that are made later.
func (p *TCP) Vanish(on bool) {
	p.change(func() { p.vanished = on })
	if on {
		p.each(func(c *tcpConn) { c.link.Vanish() })
	}
}

// SetDelay delays the bytes that come in from now on by d in each direction. It is not added to connecting.
func (p *TCP) SetDelay(d time.Duration) {
	p.change(func() { p.delay = d })
	p.each(func(c *tcpConn) { c.link.SetDelay(d) })
}

// Conns returns how many connections are open.
func (p *TCP) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Close resets all connections, takes no more, and waits for the proxy's goroutines.
func (p *TCP) Close() {
	p.cancel()
	_ = p.listener.Close()
	p.Cut()
	p.running.Wait()
}

func (p *TCP) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// each calls f for every connection with mu held, so that none is added between.
func (p *TCP) each(f func(*tcpConn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		f(c)
	}
}

// serve accepts connections. It owns nothing, ends when the listener closes, and reports to no one.
func (p *TCP) serve() {
	for {
		client, err := p.listener.AcceptTCP()
		if err != nil {
			return
		}
		c, target := p.admit(client)
		if c == nil {
			reset(client)
			continue
		}
		p.running.Go(func() { p.run(c, target) })
	}
}

// admit registers a connection in the proxy's present state. It returns nil if the connection is refused, and no target
// if the connection must not reach it.
func (p *TCP) admit(client *net.TCPConn) (c *tcpConn, target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refusing || p.target == "" || p.ctx.Err() != nil {
		return nil, ""
	}
	c = &tcpConn{link: NewLink(LinkOptions{Delay: p.delay, swallow: true}), sockets: []*net.TCPConn{client}}
	p.conns[c] = struct{}{}
	if p.frozen {
		c.link.Freeze()
	}
	if p.vanished {
		c.link.Vanish()
		return c, ""
	}
	return c, p.target
}

// run carries one connection. It owns the connection's pumps, ends when they have, and reports to no one.
func (p *TCP) run(c *tcpConn, target string) {
	defer p.change(func() { delete(p.conns, c) })
	client := c.sockets[0]
	near, far := c.link.Ends()
	var pumps sync.WaitGroup
	pumps.Go(func() { p.carry(client, near) })
	if target != "" {
		pumps.Go(func() { p.connect(c, target, far) })
	}
	pumps.Wait()
}

// connect is the target's side of run.
func (p *TCP) connect(c *tcpConn, target string, end *Conn) {
	var d net.Dialer
	s, err := d.DialContext(p.ctx, "tcp", target)
	if err != nil {
		end.abort()
		return
	}
	if c.add(s.(*net.TCPConn)) {
		p.carry(s.(*net.TCPConn), end)
	}
}

// carry copies between a socket and its end of the link, both ways, until both have ended.
func (p *TCP) carry(s *net.TCPConn, end *Conn) {
	var pumps sync.WaitGroup
	pumps.Go(func() { takeIn(s, end) })
	pumps.Go(func() { p.putOut(end, s) })
	pumps.Wait()
	_, _ = s.Close(), end.Close()
}

// takeIn copies from a socket to the link until either ends.
func takeIn(s *net.TCPConn, end *Conn) {
	if _, err := io.Copy(end, s); err != nil {
		end.abort()
		reset(s)
		return
	}
	_ = end.CloseWrite()
}

// putOut copies from the link to a socket until either ends.
func (p *TCP) putOut(end *Conn, s *net.TCPConn) {
	if _, err := io.Copy(&meteredWriter{p, s}, end); err != nil {
		end.abort()
		reset(s)
		return
	}
	_ = s.CloseWrite()
}

// A meteredWriter writes to w what CutAfter of p lets through. It takes the rest and loses it.
type meteredWriter struct {
	p *TCP
	w io.Writer
}

func (m *meteredWriter) Write(b []byte) (int, error) {
	n, last := m.p.grant(len(b))
	if last {
		defer m.p.spend() // also when the Write fails: otherwise nothing would be forwarded ever after
	}
	if n > 0 {
		if n, err := m.w.Write(b[:n]); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// grant returns how many of n bytes may be forwarded, and whether they are the last before CutAfter strikes.
func (p *TCP) grant(n int) (granted int, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.counting {
		return n, false
	}
	granted = int(min(int64(n), p.left))
	p.left -= int64(granted)
	return granted, granted > 0 && p.left == 0
}

// spend is the Cut of CutAfter.
func (p *TCP) spend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counting = false
	for c := range p.conns {
		c.reset()
	}
}

// A tcpConn is a connection through the proxy: two sockets with a link between them.
type tcpConn struct {
	link *Link

	mu      sync.Mutex
	sockets []*net.TCPConn // the client's, and the target's once connected
	dead    bool           // reset was called
}

// add takes over the socket to the target. It reports whether the connection still lives; if not, the socket is closed.
func (c *tcpConn) add(s *net.TCPConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		reset(s)
		return false
	}
	c.sockets = append(c.sockets, s)
	return true
}

// reset ends the connection by RST on both sides.
func (c *tcpConn) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	c.link.Cut()
	for _, s := range c.sockets {
		reset(s)
	}
}

// reset closes s by RST.
func reset(s *net.TCPConn) {
	_ = s.SetLinger(0)
	_ = s.Close()
}
