package faultnet

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// A UDP is a UDP proxy on loopback that breaks on command. Like a NAT it has one socket towards the target for each
// client address, its flow. A flow lives until Close.
//
// Nobody is told of a fault: who is cut off finds out by its own timeouts. A client that comes back from the same address
// after a Cut is not heard; go-libp2p dials from one socket again and again unless quicreuse.DisableReuseport is set.
type UDP struct {
	front   *net.UDPConn   // what clients send to
	running sync.WaitGroup // serve, send, and one receive per socket of a flow

	mu       sync.Mutex
	moved    sync.Cond // queue, frozen or closed changed, or a packet is due
	target   string
	flows    map[netip.AddrPort]*flow
	queue    []packet // in the order of arrival; at most queueLen
	delay    time.Duration
	loss     float64
	dice     *rand.Rand
	frozen   bool
	vanished bool
	closed   bool
}

// queueLen is how many packets are held while they are delayed or frozen. Later ones are dropped.
const queueLen = 4096

// maxPacket is the size of the largest datagram.
const maxPacket = 64 << 10

// A flow is what one client address sends and gets. Its fields but client are guarded by UDP.mu.
type flow struct {
	client netip.AddrPort
	up     *net.UDPConn // connected to the target
	dead   bool
}

// A packet is on its way from a client to the target, or back.
type packet struct {
	flow *flow
	back bool
	data []byte
	due  time.Time
}

// UDPProxy returns a proxy to target, which is a host and port, or empty until SetTarget.
func UDPProxy(t testing.TB, target string) *UDP {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatalf("faultnet: udp proxy: %v", err)
	}
	_ = front.SetReadBuffer(queueLen * 1500) // as much as the kernel gives
	p := &UDP{front: front, target: target, flows: make(map[netip.AddrPort]*flow)}
	p.moved.L = &p.mu
	p.running.Go(p.serve)
	p.running.Go(p.send)
	t.Cleanup(p.Close)
	return p
}

// Addr returns the host and port to send to.
func (p *UDP) Addr() string { return p.front.LocalAddr().String() }

// SetTarget sets where later flows go.
func (p *UDP) SetTarget(target string) { p.change(func() { p.target = target }) }

// Cut is Kill.
func (p *UDP) Cut() { p.Kill() }

// Kill drops all packets of the flows that exist now, for ever. Other client addresses work.
func (p *UDP) Kill() {
	p.change(func() {
		for _, f := range p.flows {
			f.dead = true
		}
		p.queue = nil
	})
}

// Freeze holds packets until Thaw, 4096 of them, and drops those that come after.
func (p *UDP) Freeze() { p.change(func() { p.frozen = true }) }

// Thaw ends Freeze.
func (p *UDP) Thaw() { p.change(func() { p.frozen = false }) }

// Vanish with true drops all packets, those held too, and with false lets later ones pass.
func (p *UDP) Vanish(on bool) {
	p.change(func() {
		if p.vanished = on; on {
			p.queue = nil
		}
	})
}

// SetDelay delays the packets that come in from now on by d in each direction.
func (p *UDP) SetDelay(d time.Duration) { p.change(func() { p.delay = d }) }

// SetLoss drops each packet with the probability rate, by a sequence that only seed decides. Zero drops none.
func (p *UDP) SetLoss(rate float64, seed uint64) {
	p.change(func() { p.loss, p.dice = rate, rand.New(rand.NewPCG(seed, 0)) })
}

// Rebind moves every flow to a new source port, as a NAT does that has forgotten it. What the target sends to the old
// port is lost.
func (p *UDP) Rebind() {
	p.change(func() {
		if p.closed {
			return
		}
		for _, f := range p.flows {
			up, err := p.openLocked(f)
			if err != nil {
				f.dead = true // as without the proxy's socket it is
				continue
			}
			_ = f.up.Close()
			f.up = up
		}
	})
}

// Flows returns how many client addresses there are, those of dead flows too.
func (p *UDP) Flows() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.flows)
}

// Close drops everything and waits for the proxy's goroutines.
func (p *UDP) Close() {
	p.change(func() {
		p.closed = true
		_ = p.front.Close()
		for _, f := range p.flows {
			_ = f.up.Close()
		}
	})
	p.running.Wait()
}

// change runs f with mu held and makes send look again.
func (p *UDP) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.moved.Broadcast()
}

// serve takes what clients send. It owns the reading of front, ends when that closes, and reports to no one.
func (p *UDP) serve() {
	buf := make([]byte, maxPacket)
	for {
		n, client, err := p.front.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			p.change(func() { p.acceptLocked(client, buf[:n]) })
		case p.isClosed():
			return
		}
	}
}

// receive takes what the target sends to up, a socket of f. It owns the reading of up, ends when that closes, which may
// be by Rebind, and reports to no one.
func (p *UDP) receive(f *flow, up *net.UDPConn) {
	buf := make([]byte, maxPacket)
	for {
		n, err := up.Read(buf)
		live := false
		p.change(func() {
			live = f.up == up && !p.closed
			if live && err == nil {
				p.enqueueLocked(packet{flow: f, back: true, data: buf[:n]})
			}
		})
		if !live {
			return
		}
		// An error of a live socket says that the target was not there a packet ago (ECONNREFUSED). It may be again.
	}
}

// send puts out what is due, in order. It owns all writing, ends with Close, and reports to no one: a packet that cannot
// be sent is a packet lost.
func (p *UDP) send() {
	for {
		pkt, up, ok := p.next()
		if !ok {
			return
		}
		if pkt.back {
			_, _ = p.front.WriteToUDPAddrPort(pkt.data, pkt.flow.client)
		} else {
			_, _ = up.Write(pkt.data)
		}
	}
}

// next waits for a packet that is due, and returns it with its flow's socket. After Close ok is false.
func (p *UDP) next() (pkt packet, up *net.UDPConn, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed {
		if p.frozen || len(p.queue) == 0 {
			p.moved.Wait()
			continue
		}
		if wait := time.Until(p.queue[0].due); wait > 0 {
			alarm := time.AfterFunc(wait, func() { p.change(func() {}) })
			p.moved.Wait()
			alarm.Stop()
			continue
		}
		pkt, p.queue = p.queue[0], p.queue[1:]
		return pkt, pkt.flow.up, true
	}
	return packet{}, nil, false
}

// acceptLocked queues a packet from a client, whose flow it opens if need be.
func (p *UDP) acceptLocked(client netip.AddrPort, data []byte) {
	if p.vanished || p.closed || p.target == "" {
		return
	}
	f := p.flows[client]
	if f == nil {
		f = &flow{client: client}
		up, err := p.openLocked(f)
		if err != nil {
			return
		}
		f.up = up
		p.flows[client] = f
	}
	p.enqueueLocked(packet{flow: f, data: data})
}

// openLocked returns a new socket to the target for f, with its receive running.
func (p *UDP) openLocked(f *flow) (*net.UDPConn, error) {
	addr, err := net.ResolveUDPAddr("udp", p.target)
	if err != nil {
		return nil, err
	}
	up, err := net.DialUDP("udp", nil, addr)
	if err != nil {
		return nil, err
	}
	_ = up.SetReadBuffer(queueLen * 1500) // as much as the kernel gives
	p.running.Go(func() { p.receive(f, up) })
	return up, nil
}

// enqueueLocked queues a copy of pkt, or drops it.
func (p *UDP) enqueueLocked(pkt packet) {
	lost := p.loss > 0 && p.dice.Float64() < p.loss
	if lost || pkt.flow.dead || p.vanished || len(p.queue) >= queueLen {
		return
	}
	pkt.data = append([]byte(nil), pkt.data...)
	pkt.due = time.Now().Add(p.delay)
	p.queue = append(p.queue, pkt)
}

func (p *UDP) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}
