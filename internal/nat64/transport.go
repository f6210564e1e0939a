package nat64

import (
	"context"
	"io"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/transport"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	ws "github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"
)

// Over is a libp2p transport that dials IPv4 addresses through a NAT64 where the machine has no IPv4.
type Over struct {
	transport.Transport // libp2p's own
	translator          *Translator
}

// Dial opens a connection. Its remote address is a, whatever was dialed.
func (o *Over) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	to := o.translator.Out(ctx, a)
	c, err := o.Transport.Dial(ctx, to, p)
	if err != nil {
		return nil, err
	}
	return o.dialed(c, a, to), nil
}

// dialed returns a connection that was dialed at to in place of a. One that was dialed at the NAT64's address itself, as a resolver may have
// told it, keeps that.
func (o *Over) dialed(c transport.CapableConn, a, to ma.Multiaddr) transport.CapableConn {
	if to.Equal(a) {
		return c
	}
	return o.translator.conn(c)
}

// Listen listens. Connections that come in through a NAT64 have the IPv4 address of the peer.
func (o *Over) Listen(a ma.Multiaddr) (transport.Listener, error) {
	l, err := o.Transport.Listen(a)
	if err != nil {
		return nil, err
	}
	return &listener{l, o.translator}, nil
}

type listener struct {
	transport.Listener
	translator *Translator
}

// Accept waits for a connection.
func (l *listener) Accept() (transport.CapableConn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.translator.conn(c), nil
}

// A conn is a connection whose remote address is another one than that of its packets.
type conn struct {
	transport.CapableConn
	remote ma.Multiaddr
}

// RemoteMultiaddr returns the peer's address.
func (c *conn) RemoteMultiaddr() ma.Multiaddr { return c.remote }

// conn returns c, or c with the remote address that c's stands for.
func (t *Translator) conn(c transport.CapableConn) transport.CapableConn {
	has := c.RemoteMultiaddr()
	if a := t.In(has); !a.Equal(has) {
		return &conn{c, a}
	}
	return c
}

// limits count connections by the addresses of peers. All that a NAT64 stands for are one network of IPv6, which has few.
type limits struct {
	network.ResourceManager
	translator *Translator
}

// OpenConnection opens the scope of a connection.
func (l *limits) OpenConnection(dir network.Direction, usesFD bool, a ma.Multiaddr) (network.ConnManagementScope, error) {
	return l.ResourceManager.OpenConnection(dir, usesFD, l.translator.In(a))
}

// Limits returns a resource manager that counts connections through a NAT64 by the IPv4 addresses.
func (t *Translator) Limits(m network.ResourceManager) network.ResourceManager { return &limits{m, t} }

// A TCPTransport is libp2p's TCP over a NAT64.
type TCPTransport struct {
	Over
	updates transport.DialUpdater
}

// TCP is a constructor for libp2p.Transport.
func TCP(u transport.Upgrader, m network.ResourceManager, shared *tcpreuse.ConnMgr) (*TCPTransport, error) {
	return System.tcp(u, m, shared)
}

func (t *Translator) tcp(u transport.Upgrader, m network.ResourceManager, shared *tcpreuse.ConnMgr) (*TCPTransport, error) {
	inner, err := tcp.NewTCPTransport(u, t.Limits(m), shared)
	if err != nil {
		return nil, err
	}
	return &TCPTransport{Over{inner, t}, inner}, nil
}

// DialWithUpdates is Dial, and says how far the dial is, unless it is through a NAT64.
func (t *TCPTransport) DialWithUpdates(
	ctx context.Context, a ma.Multiaddr, p peer.ID, updates chan<- transport.DialUpdate,
) (transport.CapableConn, error) {
	to := t.translator.Out(ctx, a)
	if !to.Equal(a) {
		updates = nil // they name the address, which who listens does not know
	}
	c, err := t.updates.DialWithUpdates(ctx, to, p, updates)
	if err != nil {
		return nil, err
	}
	return t.dialed(c, a, to), nil
}

// A WebSocketTransport is libp2p's WebSocket over a NAT64.
type WebSocketTransport struct {
	Over
	transport.Resolver
}

// WebSocket is a constructor for libp2p.Transport.
func WebSocket(u transport.Upgrader, m network.ResourceManager, shared *tcpreuse.ConnMgr) (*WebSocketTransport, error) {
	return System.webSocket(u, m, shared)
}

func (t *Translator) webSocket(u transport.Upgrader, m network.ResourceManager, shared *tcpreuse.ConnMgr) (*WebSocketTransport, error) {
	inner, err := ws.New(u, t.Limits(m), shared)
	if err != nil {
		return nil, err
	}
	return &WebSocketTransport{Over{inner, t}, inner}, nil
}

// A QUICTransport is libp2p's QUIC over a NAT64.
type QUICTransport struct{ Over }

// QUIC is a constructor for libp2p.Transport.
func QUIC(
	key crypto.PrivKey, reuse *quicreuse.ConnManager, psk pnet.PSK, gater connmgr.ConnectionGater, m network.ResourceManager,
) (*QUICTransport, error) {
	return System.QUIC(key, reuse, psk, gater, m)
}

// QUIC returns libp2p's QUIC, which dials as t says.
func (t *Translator) QUIC(
	key crypto.PrivKey, reuse *quicreuse.ConnManager, psk pnet.PSK, gater connmgr.ConnectionGater, m network.ResourceManager,
) (*QUICTransport, error) {
	if m == nil {
		m = &network.NullResourceManager{}
	}
	inner, err := quic.NewTransport(key, reuse, psk, gater, t.Limits(m))
	if err != nil {
		return nil, err
	}
	return &QUICTransport{Over{inner, t}}, nil
}

// ListenOrder is that of libp2p's transport.
func (t *QUICTransport) ListenOrder() int { return quic.ListenOrder }

// Close closes libp2p's transport.
func (t *QUICTransport) Close() error {
	if c, ok := t.Transport.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
