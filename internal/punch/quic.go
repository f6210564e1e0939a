package punch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
	quicgo "github.com/quic-go/quic-go"

	"github.com/peerlane/peerlane/internal/nat64"
	"github.com/peerlane/peerlane/internal/pause"
)

// QUIC is the option of libp2p for a host with a service: QUIC that gets through more NATs than libp2p's.
func QUIC(cfg *libp2p.Config) error { return cfg.Apply(libp2p.Transport(newQUIC)) }

// A quicTransport is libp2p's QUIC, whose server dials too when holes are punched. libp2p's waits for the client, whose packets go to a port
// that a NAT of the server's may have given to another peer alone; a client that dials from there gets through.
type quicTransport struct {
	*nat64.QUICTransport
	reuse  *quicreuse.ConnManager // has the sockets
	key    crypto.PrivKey
	gater  connmgr.ConnectionGater
	limits network.ResourceManager

	mu     sync.Mutex
	routes map[route]net.PacketConn // sockets of their own from which peers are dialed
}

// A route is a peer at an address.
type route struct {
	peer peer.ID
	to   netip.AddrPort
}

func newQUIC(
	key crypto.PrivKey, reuse *quicreuse.ConnManager, psk pnet.PSK, gater connmgr.ConnectionGater, limits network.ResourceManager,
) (*quicTransport, error) {
	inner, err := nat64.QUIC(key, reuse, psk, gater, limits)
	if err != nil {
		return nil, err
	}
	return &quicTransport{QUICTransport: inner, reuse: reuse, key: key, gater: gater, limits: limits,
		routes: make(map[route]net.PacketConn)}, nil
}

// serverWaits is how long the server waits for the client before it dials.
const serverWaits = 500 * time.Millisecond

// Dial opens a connection.
func (t *quicTransport) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	if socket := t.take(route{p, udpOf(a)}); socket != nil {
		return t.dialFrom(ctx, socket, a, p)
	}
	punching, client, why := network.GetSimultaneousConnect(ctx)
	if !punching || client {
		return t.QUICTransport.Dial(ctx, a, p)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn transport.CapableConn
		err  error
	}
	results := make(chan result)
	dial := func(ctx context.Context, wait time.Duration) {
		err := pause.For(ctx, wait)
		var r result
		if err == nil {
			r.conn, err = t.QUICTransport.Dial(ctx, a, p)
		}
		r.err = err
		results <- r
	}
	go dial(ctx, 0)                                                       // ends with ctx
	go dial(network.WithSimultaneousConnect(ctx, true, why), serverWaits) // ends with ctx
	var first transport.CapableConn
	var failed error
	for range 2 {
		switch r := <-results; {
		case r.err != nil:
			failed = errors.Join(failed, r.err)
		case first != nil:
			_ = r.conn.Close() // one is enough
		default:
			first = r.conn
			cancel()
		}
	}
	if first == nil {
		return nil, fmt.Errorf("punch: %w", failed)
	}
	return first, nil
}

// through makes the next dial of a route go out from a socket, which is then the connection's. The caller must call done after the dial.
func (t *quicTransport) through(r route, socket net.PacketConn) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.routes[r]; old != nil {
		_ = old.Close() // nothing was sent that matters
	}
	t.routes[r] = socket
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.routes[r] == socket { // it was not dialed
			delete(t.routes, r)
			_ = socket.Close() // nothing was sent that matters
		}
	}
}

// take takes the socket from which a route is dialed; nil is the host's own.
func (t *quicTransport) take(r route) net.PacketConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	socket := t.routes[r]
	delete(t.routes, r)
	return socket
}

// dialFrom dials from a socket, which is closed when the connection is, or when there is none.
func (t *quicTransport) dialFrom(ctx context.Context, socket net.PacketConn, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	listen := func(string, *net.UDPAddr) (net.PacketConn, error) { return socket, nil }
	reuse, err := quicreuse.NewConnManager(quicgo.StatelessResetKey{}, quicgo.TokenGeneratorKey{},
		quicreuse.DisableReuseport(), quicreuse.OverrideListenUDP(listen))
	if err == nil {
		var tr transport.Transport
		if tr, err = nat64.QUIC(t.key, reuse, nil, t.gater, t.limits); err == nil {
			var c transport.CapableConn
			if c, err = tr.Dial(ctx, a, p); err == nil {
				return c, nil
			}
		}
	}
	_ = socket.Close() // the first error tells; it may be closed already
	return nil, err
}

// sender returns a function that sends bytes from the host's own socket. The caller must call done when it has sent all.
func (t *quicTransport) sender(to *net.UDPAddr) (send func([]byte, net.Addr) (int, error), done func(), err error) {
	tr, err := t.reuse.TransportWithAssociationForDial(t.Transport, udpFor(to.AddrPort().Addr()), to)
	if err != nil {
		return nil, nil, err
	}
	return tr.WriteTo, tr.DecreaseCount, nil
}
