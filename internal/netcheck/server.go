package netcheck

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/pause"
	"github.com/peerlane/peerlane/internal/visit"
)

const (
	serveTime = 10 * time.Second       // for one request
	dialTime  = 3 * time.Second        // for one DIAL
	datagrams = 3                      // for one SEND
	sendEvery = 100 * time.Millisecond // between two datagrams
	echoTime  = 2 * time.Second        // to wait for a datagram from the client, after those of SEND
)

// A Server answers hosts that check their network. It is safe for concurrent use. It runs until Close, or until the host is closed.
type Server struct {
	host    host.Host
	limits  *limits
	missed  time.Duration   // from a dial request to the answer that nobody was there; dialTime except in tests
	ctx     context.Context // done when the server is closed
	cancel  context.CancelFunc
	running sync.WaitGroup // handle

	mu     sync.Mutex
	closed bool
}

// Serve makes a host answer other hosts that check their network.
func Serve(h host.Host) *Server {
	s := &Server{host: h, limits: newLimits(), missed: dialTime}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	h.SetStreamHandler(Protocol, s.handle)
	return s
}

// Close stops running requests, and waits until they have ended.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.host.RemoveStreamHandler(Protocol)
	s.cancel()
	s.running.Wait()
}

// handle answers a request.
func (s *Server) handle(stream network.Stream) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = stream.Reset()
		return
	}
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()
	ctx, cancel := context.WithTimeout(s.ctx, serveTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() })
	defer stop()
	if err := s.serve(ctx, stream); err != nil {
		_ = stream.Reset() // the client notices
		return
	}
	_ = stream.Close() // all answers have been sent
}

var errRelayed = errors.New("netcheck: the client's address is not known over a relay")

func (s *Server) serve(ctx context.Context, stream network.Stream) error {
	c := stream.Conn()
	from := endpoint(c.RemoteMultiaddr())
	if _, err := c.RemoteMultiaddr().ValueForProtocol(ma.P_CIRCUIT); err == nil || !from.IsValid() {
		return errRelayed
	}
	if err := stream.Scope().SetService("peerlane.netcheck"); err != nil {
		return err
	}
	r, err := readRequest(stream)
	if err != nil {
		return err
	}
	say := func(a answer) error {
		a.clock, a.seen = time.Now(), orSeen(a.seen, c)
		_, err := stream.Write(encodeAnswer(a))
		return err
	}
	if r.kind == kindSee {
		return say(answer{})
	}
	if _, ok := transportOf(c.RemoteMultiaddr()); !ok { // as WebSocket, which often comes from a proxy: its ports are not the client's
		return say(answer{status: statusUnable})
	}
	done, ok := s.limits.begin(c.RemotePeer(), from.Addr())
	if !ok {
		return say(answer{status: statusBusy})
	}
	defer done()
	if r.kind == kindDial {
		began := time.Now()
		found := s.dial(ctx, r, from.Addr())
		if found == statusMissed { // how soon must not tell what else is at the port
			if err := pause.For(ctx, s.missed-time.Since(began)); err != nil {
				return err
			}
		}
		return say(answer{status: found})
	}
	if r.port != 0 {
		from = netip.AddrPortFrom(from.Addr(), r.port)
	} else if !isQUIC(c.RemoteMultiaddr()) {
		return say(answer{status: statusUnable})
	}
	return send(ctx, r.nonce, from, c.LocalMultiaddr(), say)
}

func orSeen(seen ma.Multiaddr, c network.Conn) ma.Multiaddr {
	if seen != nil {
		return seen
	}
	return c.RemoteMultiaddr()
}

func isQUIC(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_QUIC_V1)
	return err == nil
}

// dial dials a port of the client's IP address from another socket, and reports whether the named peer answers.
func (s *Server) dial(ctx context.Context, r request, ip netip.Addr) status {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	at := multiaddr(netip.AddrPortFrom(ip, r.port), r.over)
	if r.over == overQUIC {
		socket, err := newSocket(udpOf(ip))
		if err != nil {
			return statusUnable
		}
		defer socket.Close()
		c, err := socket.dial(ctx, at, r.peer)
		if err != nil {
			return statusMissed
		}
		_ = c.Close() // the peer answered
		return statusDone
	}
	tr, err := visit.TCP(nil)
	if err != nil {
		return statusUnable
	}
	c, err := tr.Dial(ctx, at, r.peer)
	if err != nil {
		return statusMissed
	}
	_ = c.Close() // the peer answered
	return statusDone
}

// send sends datagrams to the client from a new port of the local address, and then reports where the client's datagram came from.
func send(ctx context.Context, nonce [8]byte, to netip.AddrPort, local ma.Multiaddr, say func(answer) error) error {
	var from *net.UDPAddr
	if ip := endpoint(local).Addr(); ip.Is4() == to.Addr().Is4() && !ip.IsUnspecified() {
		from = net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))
	}
	socket, err := net.ListenUDP(udpOf(to.Addr()), from)
	if err != nil {
		return say(answer{status: statusUnable})
	}
	defer func() { _ = socket.Close() }() // already closed if ctx has ended
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	for i := range datagrams {
		if i > 0 {
			if err := pause.For(ctx, sendEvery); err != nil {
				return err
			}
		}
		if _, err := socket.WriteToUDPAddrPort(datagram(nonce), to); err != nil {
			return say(answer{status: statusUnable})
		}
	}
	if err := say(answer{port: portOf(socket.LocalAddr())}); err != nil {
		return err
	}
	seen, err := echo(socket, nonce)
	if err != nil {
		return say(answer{status: statusMissed})
	}
	return say(answer{seen: multiaddr(seen, overQUIC)})
}

// echo returns the source address of a datagram with the nonce.
func echo(socket *net.UDPConn, nonce [8]byte) (netip.AddrPort, error) {
	if err := socket.SetReadDeadline(time.Now().Add(echoTime)); err != nil {
		return netip.AddrPort{}, err
	}
	b := make([]byte, datagramSize+1)
	for {
		n, from, err := socket.ReadFrom(b)
		if err != nil {
			return netip.AddrPort{}, err
		}
		if got, ok := nonceOf(b[:n]); ok && got == nonce {
			return addrPort(from), nil
		}
	}
}
