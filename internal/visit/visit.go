// Package visit opens connections outside a host, each under a temporary identity. A connection of the host would not do: the host manages
// it, and the peer may use it for other streams.
//
//	tr, err := visit.TCP(local)
//	c, err := tr.Dial(ctx, addr, peer)
//	id, err := visit.Identify(ctx, c)
package visit

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	identifypb "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-msgio/pbio"
	"github.com/libp2p/go-reuseport"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

// QUIC returns a QUIC transport with a temporary identity, on the sockets of reuse.
func QUIC(reuse *quicreuse.ConnManager) (transport.Transport, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	return quic.NewTransport(key, reuse, nil, nil, nil)
}

// TCP returns a TCP transport with a temporary identity. It dials from local, which other sockets may use at the same time. If local is
// nil, the system chooses the port.
func TCP(local net.Addr) (transport.Transport, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	secure, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	up, err := upgrader.New([]sec.SecureTransport{secure}, muxers, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	from := func(ma.Multiaddr) (tcp.ContextDialer, error) {
		return &lingerless{net.Dialer{LocalAddr: local, Control: reuseport.Control}}, nil
	}
	return tcp.NewTCPTransport(up, nil, nil, tcp.WithDialerForAddr(from))
}

// A lingerless dialer opens connections that leave no TIME_WAIT behind, because the host may need the same pair of addresses.
type lingerless struct{ net.Dialer }

// DialContext opens a TCP connection.
func (d *lingerless) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.Dialer.DialContext(ctx, network, address)
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // otherwise the pair of addresses is occupied for a minute
	}
	return c, err
}

// A Stream is a stream on a connection of this package. It is reset when the ctx passed to Open ends. The caller must call Close.
type Stream struct {
	network.MuxedStream
	stop func() bool
}

// Close ends the stream.
func (s *Stream) Close() error {
	s.stop()
	return s.MuxedStream.Close()
}

// Open opens a stream of a protocol. The error matches ErrNotSupported if the peer does not speak the protocol.
func Open(ctx context.Context, c transport.CapableConn, proto protocol.ID) (*Stream, error) {
	stream, err := c.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	s := &Stream{stream, context.AfterFunc(ctx, func() { _ = stream.Reset() })}
	if err := multistream.SelectProtoOrFail(proto, io.ReadWriteCloser(stream)); err != nil {
		s.stop()
		_ = stream.Reset() // nothing was sent
		if _, ok := errors.AsType[multistream.ErrNotSupported[protocol.ID]](err); ok {
			return nil, ErrNotSupported
		}
		return nil, err
	}
	return s, nil
}

// ErrNotSupported reports that the peer does not speak a protocol.
var ErrNotSupported = errors.New("visit: the peer does not speak the protocol")

// An Identity is a peer's answer to an identify request (specs/identify).
type Identity struct {
	Observed  ma.Multiaddr // the address at which the peer sees this side; nil if it sent none
	Addrs     []ma.Multiaddr
	Protocols []string
}

// Limits of an identify answer.
const (
	maxIdentity = 64 << 10 // per message
	maxMessages = 10
	maxAddrs    = 64
)

// Identify asks the peer at the other end of a connection for its identity.
func Identify(ctx context.Context, c transport.CapableConn) (Identity, error) {
	s, err := Open(ctx, c, identify.ID)
	if err != nil {
		return Identity{}, err
	}
	defer func() { _ = s.Close() }() // everything has been read
	return readIdentity(s)
}

// readIdentity reads an answer to its end, or its first maxMessages messages.
func readIdentity(from io.Reader) (id Identity, err error) {
	r := pbio.NewDelimitedReader(from, maxIdentity)
	for range maxMessages {
		var m identifypb.Identify
		switch err := r.ReadMsg(&m); {
		case errors.Is(err, io.EOF):
			return id, nil
		case err != nil && id.Observed != nil:
			return id, nil // the observed address is enough
		case err != nil:
			return Identity{}, err
		}
		id.add(&m)
	}
	return id, nil
}

// add merges a message into the identity.
func (id *Identity) add(m *identifypb.Identify) {
	if a, err := ma.NewMultiaddrBytes(m.ObservedAddr); err == nil && len(a) > 0 {
		id.Observed = a
	}
	for _, b := range m.ListenAddrs {
		if a, err := ma.NewMultiaddrBytes(b); err == nil && len(a) > 0 && len(id.Addrs) < maxAddrs {
			id.Addrs = append(id.Addrs, a)
		}
	}
	id.Protocols = append(id.Protocols, m.Protocols...)
}
