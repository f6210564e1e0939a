package netcheck

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	quicgo "github.com/quic-go/quic-go"

	"github.com/peerlane/peerlane/internal/nat64"
	"github.com/peerlane/peerlane/internal/visit"
)

// A socket is a UDP socket that dials QUIC connections under a temporary identity, and receives datagrams.
type socket struct {
	*tap
	reuse *quicreuse.ConnManager
	tr    transport.Transport
}

// newSocket opens a socket for "udp4" or "udp6". The caller must call Close.
func newSocket(network string) (*socket, error) {
	udp, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	s := &socket{tap: &tap{UDPConn: udp, expected: make(map[[8]byte]chan netip.AddrPort)}}
	listen := func(string, *net.UDPAddr) (net.PacketConn, error) { return s.tap.plain(), nil }
	s.reuse, err = quicreuse.NewConnManager(quicgo.StatelessResetKey{}, quicgo.TokenGeneratorKey{}, quicreuse.OverrideListenUDP(listen))
	if err == nil {
		s.tr, err = visit.QUIC(s.reuse)
	}
	if err != nil {
		_ = udp.Close() // nothing was sent
		return nil, err
	}
	return s, nil
}

// dial opens a connection from the socket.
func (s *socket) dial(ctx context.Context, a ma.Multiaddr, pid peer.ID) (transport.CapableConn, error) {
	return s.tr.Dial(ctx, nat64.System.Out(ctx, a), pid)
}

// Close closes the socket and its connections.
func (s *socket) Close() {
	_ = s.reuse.Close()   // always nil
	_ = s.UDPConn.Close() // reuse may have closed it
}

// A tap is a socket from which QUIC reads all packets except the expected datagrams.
type tap struct {
	*net.UDPConn

	mu       sync.Mutex
	expected map[[8]byte]chan netip.AddrPort
}

// plain hides from QUIC the read methods that bypass ReadFrom.
func (t *tap) plain() net.PacketConn {
	return struct {
		net.PacketConn
		buffered
	}{t, t.UDPConn}
}

// buffered has the further methods that QUIC looks for.
type buffered interface {
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
}

// port returns the local port.
func (t *tap) port() uint16 { return portOf(t.LocalAddr()) }

// expect returns a channel of the source addresses of datagrams with a nonce. It holds a few; further ones are dropped.
func (t *tap) expect(nonce [8]byte) <-chan netip.AddrPort {
	from := make(chan netip.AddrPort, datagrams)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expected[nonce] = from
	return from
}

// ReadFrom reads the next packet other than an expected datagram.
func (t *tap) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := t.UDPConn.ReadFrom(b)
		if err != nil {
			return n, from, err
		}
		nonce, ok := nonceOf(b[:n])
		if !ok {
			return n, from, nil
		}
		t.mu.Lock()
		c := t.expected[nonce]
		t.mu.Unlock()
		select {
		case c <- unsynthesized(addrPort(from)): // blocks if c is nil
		default:
		}
	}
}

// send sends a datagram. It may be lost.
func (t *tap) send(ctx context.Context, nonce [8]byte, to netip.AddrPort) {
	_, _ = t.WriteToUDPAddrPort(datagram(nonce), netip.AddrPortFrom(nat64.System.Addr(ctx, to.Addr()), to.Port()))
}

// unsynthesized returns the address of a peer, which through a NAT64 is another one than that of its packets.
func unsynthesized(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(nat64.System.InAddr(at.Addr()), at.Port())
}

// addrPort returns the address and port of a socket, or the zero AddrPort.
func addrPort(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		at = a.AddrPort()
	case *net.TCPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}

func portOf(a net.Addr) uint16 { return addrPort(a).Port() }

// endpoint returns the address and port at the start of a multiaddr, or the zero AddrPort.
func endpoint(a ma.Multiaddr) netip.AddrPort {
	if len(a) < 2 {
		return netip.AddrPort{}
	}
	at, err := manet.ToNetAddr(a[:2])
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(at)
}
