package peerlanetest

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// queueSize is how many bytes wait at a sender with a Rate.
const queueSize = 64 << 10

// A socket is a UDP socket on a Network. Its fields are guarded by Network.mu.
type socket struct {
	net   *Network
	local netip.AddrPort
	moved chan struct{} // has a value when a reader has to look again

	closed bool
	read   time.Time // the deadline
	queue  []packet  // sent to it and not yet read, in the order of arrival
	busy   time.Time // until when what it has sent takes to leave, with a Rate
	last   time.Time // when the latest packet that it has sent arrives
}

// A packet is one datagram on its way.
type packet struct {
	data []byte
	from netip.AddrPort
	at   time.Time // when it arrives
}

var _ net.PacketConn = (*socket)(nil)

// listen opens a socket at a port, which is any if zero. It takes the place of one that is there.
func (n *Network) listen(ip netip.Addr, port int) *socket {
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == 0 {
		n.port++ // of all hosts together: a test does not open 32768
		port = int(n.port)
	}
	at := netip.AddrPortFrom(ip, uint16(port))
	if old := n.sockets[at]; old != nil {
		old.closeLocked()
	}
	s := &socket{net: n, local: at, moved: make(chan struct{}, 1)}
	n.sockets[at] = s
	n.opened = append(n.opened, s)
	return s
}

// wake makes the reader look again.
func (s *socket) wake() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// ReadFrom returns the next packet that has arrived, and waits for it. What does not fit into b is lost.
func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p, wait, err := s.next()
		if err != nil {
			return 0, nil, s.opError("read", err)
		}
		if wait == 0 {
			return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.moved:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// next returns a packet that has arrived, or for how long to wait for one.
func (s *socket) next() (p packet, wait time.Duration, err error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	now := time.Now()
	wait = 1<<63 - 1
	switch {
	case s.closed:
		return packet{}, 0, net.ErrClosed
	case !s.read.IsZero() && !now.Before(s.read):
		return packet{}, 0, os.ErrDeadlineExceeded
	case !s.read.IsZero():
		wait = s.read.Sub(now)
	}
	if len(s.queue) == 0 || s.net.frozen {
		return packet{}, wait, nil
	}
	if first := s.queue[0]; first.at.After(now) {
		return packet{}, min(wait, first.at.Sub(now)), nil
	}
	p, s.queue = s.queue[0], s.queue[1:]
	return p, 0, nil
}

// WriteTo sends a packet, which may be lost. It never waits.
func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if s.closed {
		return 0, s.opError("write", net.ErrClosed)
	}
	at := to.(*net.UDPAddr).AddrPort()
	peer, seen := s.net.routeLocked(s.local, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
	arrives, lost := s.sendLocked(len(b))
	if peer != nil && !lost && !s.net.apart[pairOf(s.local.Addr(), peer.local.Addr())] {
		p := packet{slices.Clone(b), seen, arrives}
		i := len(peer.queue)
		for i > 0 && peer.queue[i-1].at.After(arrives) {
			i--
		}
		peer.queue = slices.Insert(peer.queue, i, p)
		peer.wake()
	}
	s.net.packets++
	s.net.bytes += int64(len(b))
	s.net.countLocked(len(b))
	return len(b), nil
}

// sendLocked returns when a packet of so many bytes arrives that is sent now, or that it is lost.
func (s *socket) sendLocked(bytes int) (arrives time.Time, lost bool) {
	leaves := time.Now()
	if rate := time.Duration(s.net.rate); rate > 0 {
		if s.busy.Sub(leaves) > queueSize*time.Second/rate {
			return time.Time{}, true
		}
		if s.busy.After(leaves) {
			leaves = s.busy
		}
		leaves = leaves.Add(time.Duration(bytes) * time.Second / rate)
		s.busy = leaves
	}
	arrives = leaves.Add(s.net.delay)
	if arrives.Before(s.last) {
		arrives = s.last
	}
	s.last = arrives
	return arrives, s.net.vanished
}

// Close ends the socket. What was not read is lost.
func (s *socket) Close() error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.closeLocked()
	return nil
}

func (s *socket) closeLocked() {
	if s.closed {
		return
	}
	s.closed, s.queue = true, nil
	if s.net.sockets[s.local] == s {
		delete(s.net.sockets, s.local)
	}
	s.wake()
}

// LocalAddr returns where the socket is.
func (s *socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.local) }

// SetReadDeadline makes reads, pending or future, fail from t on. The zero time means never.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.read = t
	s.wake()
	return nil
}

// SetWriteDeadline does nothing, as no write waits.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline is SetReadDeadline.
func (s *socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetReadBuffer and SetWriteBuffer are what quic-go asks of a socket, which complains if it has none.
func (s *socket) SetReadBuffer(int) error  { return nil }
func (s *socket) SetWriteBuffer(int) error { return nil }

func (s *socket) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: s.LocalAddr(), Err: err}
}
