package punch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/internal/direct"
	"github.com/peerlane/peerlane/internal/nat64"
)

// Behind a hard NAT, the port at which the next peer will see a host is unknown. So the host opens many sockets, and sends to the peer
// from each of them: each gets a port of the NAT's. The peer sends to many ports of that NAT, chosen at random. As in the birthday paradox,
// they soon hit one: after 252 packets on average with 256 sockets, and after 2048 with a probability of 99.97 %. From the socket that was
// hit the host then dials the peer. Each side does both, so neither needs to know whose NAT is the hard one. If both are, it does not help:
// neither is seen at the same port twice.
const (
	wideSockets = 256
	wideProbes  = 2048
	wideEvery   = time.Millisecond       // between two of them
	wideAfter   = 700 * time.Millisecond // of an attempt with one hole
	wideTime    = 4 * time.Second        // that the attempt takes
	wideAgain   = time.Minute            // until it is tried again with the same peer
	wideSlack   = time.Second            // more than that, because the peer began to count later
	wideMost    = 5                      // times, in one network
)

// probeSize is how long a probe is. Its first bits say that it is no QUIC.
const probeSize = 16

// A wide is one such attempt.
type wide struct {
	service *Service
	quic    *quicTransport
	target  netip.AddrPort // of the peer's socket, outside of its NAT, as this host sends to it: through a NAT64 if that is its way
	sockets []net.PacketConn
	running sync.WaitGroup      // read, probe
	hit     chan net.PacketConn // of capacity 1
}

// errNoWide says that this host or the peer has no QUIC over IPv4.
var errNoWide = errors.New("punch: many holes need QUIC over IPv4 on both sides")

// punchWide makes an attempt with many holes. It returns nil when there is a direct connection. Before the peer is dialed, other dials are
// given up.
func (s *Service) punchWide(ctx context.Context, p *seeker, m meeting) error {
	addr, target := wideTarget(m.addrs)
	if addr == nil {
		return errNoWide
	}
	tr, ok := s.observer.transport(addr).(*quicTransport)
	if !ok {
		return errNoWide
	}
	ctx, cancel := context.WithTimeout(ctx, wideTime)
	own, over := p.punching(cancel)
	defer over()
	w := &wide{service: s, quic: tr, hit: make(chan net.PacketConn, 1)}
	w.target = netip.AddrPortFrom(nat64.System.Addr(ctx, target.Addr()), target.Port())
	socket, err := w.find(ctx)
	if err != nil {
		return err
	}
	p.stopOthers(own)
	defer tr.through(route{p.id, target}, socket)()
	return direct.Connect(ctx, s.host, peer.AddrInfo{ID: p.id, Addrs: []ma.Multiaddr{addr}})
}

// find returns a socket that the peer's packets reach.
func (w *wide) find(ctx context.Context) (net.PacketConn, error) {
	if err := w.open(); err != nil {
		return nil, err
	}
	probing, stop := context.WithCancel(ctx)
	w.running.Go(func() { w.probe(probing) })
	var socket net.PacketConn
	select {
	case socket = <-w.hit:
	case <-ctx.Done():
	}
	stop()
	for _, s := range w.sockets {
		if s != socket {
			_ = s.Close() // nothing was sent that matters
		}
	}
	w.running.Wait()
	if socket == nil {
		return nil, fmt.Errorf("%w: %w", errNotThrough, ctx.Err())
	}
	return socket, nil
}

// wideTarget returns the first address of QUIC over IPv4, or nil.
func wideTarget(addrs []ma.Multiaddr) (ma.Multiaddr, netip.AddrPort) {
	for _, a := range addrs {
		if k, _ := kindOf(a); k != "ip4/udp/quic-v1" {
			continue
		}
		if at := udpOf(a); at.IsValid() {
			return a, at
		}
	}
	return nil, netip.AddrPort{}
}

// udpOf returns the address and port of UDP that a multiaddr begins with, or the zero AddrPort.
func udpOf(a ma.Multiaddr) netip.AddrPort {
	if len(a) < 2 {
		return netip.AddrPort{}
	}
	at, err := manet.ToNetAddr(a[:2])
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(at)
}

// addrPort returns the address and port of UDP, or the zero AddrPort.
func addrPort(a net.Addr) netip.AddrPort {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := udp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// transport returns the host's transport for an address, or nil.
func (o *observer) transport(a ma.Multiaddr) transport.Transport {
	if n, ok := o.host.Network().(interface {
		TransportForDialing(ma.Multiaddr) transport.Transport
	}); ok {
		return n.TransportForDialing(a)
	}
	return nil
}

// open opens the sockets, as many as the system allows, and reads from each.
func (w *wide) open() error {
	for range wideSockets {
		socket, err := w.service.listenUDP(w.target.Addr())
		if err != nil {
			if len(w.sockets) > 0 {
				break
			}
			return err
		}
		w.sockets = append(w.sockets, socket)
		w.running.Go(func() { w.read(socket) })
	}
	return nil
}

// read waits for a packet of the peer's. It ends with the packet, or when the socket is closed or its deadline is over.
func (w *wide) read(socket net.PacketConn) {
	b := make([]byte, probeSize)
	for {
		_, from, err := socket.ReadFrom(b)
		if err != nil {
			return
		}
		if addrPort(from) != w.target {
			continue
		}
		select {
		case w.hit <- socket:
		default: // another one was hit too
		}
		return
	}
}

// probe sends from the sockets to the peer, and from the host's own socket to the ports of the peer's NAT. It ends when ctx does.
func (w *wide) probe(ctx context.Context) {
	send, done, err := w.quic.sender(net.UDPAddrFromAddrPort(w.target))
	if err != nil {
		return // the host is closed
	}
	defer done()
	tick := time.NewTicker(wideEvery)
	defer tick.Stop()
	ports := rand.Perm(1<<16 - 1024)
	for i := 0; ; i++ {
		switch i { // again, as what came before the peer began may be lost
		case 0, 500, 1500:
			w.sendAll()
		}
		if i < wideProbes {
			at := netip.AddrPortFrom(w.target.Addr(), uint16(1024+ports[i]))
			_, _ = send(probe(), net.UDPAddrFromAddrPort(at)) // lost, or closed: there are others
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *wide) sendAll() {
	for _, socket := range w.sockets {
		_, _ = socket.WriteTo(probe(), net.UDPAddrFromAddrPort(w.target)) // lost, or closed: there are others
	}
}

// probe returns bytes that are no packet of QUIC (RFC 9000, section 17.2: the fixed bit) nor of what shares its port (RFC 9443).
func probe() []byte {
	b := make([]byte, probeSize)
	b[0] = 4 + byte(rand.N(12))
	for i := 1; i < len(b); i++ {
		b[i] = byte(rand.N(256))
	}
	return b
}
