package punch

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	identifypb "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-msgio/pbio"
	"github.com/libp2p/go-reuseport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multistream"
)

// askAt asks the peer at an address where it sees this host, and returns that. local is the address that the host listens on with the
// same transport. It opens a connection from there and closes it again, under an identity that it makes up: under the host's, the peer might
// use the connection for other things, and the host's own connections are its own business. The NAT keeps the mapping for a while.
func (o *observer) askAt(ctx context.Context, local, a ma.Multiaddr, pid peer.ID) (ma.Multiaddr, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	var tr transport.Transport
	if isQUIC(a) {
		tr, err = o.askingQUIC(key, local)
	} else {
		tr, err = askingTCP(key, local)
	}
	if err != nil {
		return nil, err
	}
	c, err := tr.Dial(ctx, a, pid)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // it has served its purpose
	stream, err := c.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() })
	defer stop()
	return readIdentity(stream)
}

func isQUIC(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_QUIC_V1)
	return err == nil
}

// askingQUIC returns a QUIC that uses the host's sockets.
func (o *observer) askingQUIC(key crypto.PrivKey, local ma.Multiaddr) (transport.Transport, error) {
	own, ok := o.transport(local).(*quicTransport)
	if !ok {
		return nil, errors.New("punch: the host's QUIC is not that of Transports")
	}
	return quic.NewTransport(key, own.reuse, nil, nil, nil)
}

// askingTCP returns a TCP that dials from a port that the host listens on.
func askingTCP(key crypto.PrivKey, local ma.Multiaddr) (transport.Transport, error) {
	at, err := manet.ToNetAddr(local)
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
		return &lingerless{net.Dialer{LocalAddr: at, Control: reuseport.Control}}, nil
	}
	return tcp.NewTCPTransport(up, nil, nil, tcp.WithDialerForAddr(from))
}

// A lingerless dialer's connections leave no TIME_WAIT behind, for the host may need the pair of addresses.
type lingerless struct{ net.Dialer }

// DialContext opens a TCP connection.
func (d *lingerless) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.Dialer.DialContext(ctx, network, address)
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // without it the two addresses are taken for a minute
	}
	return c, err
}

// maxIdentity is more than an identification has.
const maxIdentity = 64 << 10

// readIdentity returns the address that the other side sees (specs/identify).
func readIdentity(s network.MuxedStream) (ma.Multiaddr, error) {
	if err := multistream.SelectProtoOrFail(identify.ID, io.ReadWriteCloser(s)); err != nil {
		return nil, err
	}
	r := pbio.NewDelimitedReader(s, maxIdentity)
	for {
		var m identifypb.Identify // it may come in several messages
		if err := r.ReadMsg(&m); err != nil {
			return nil, err
		}
		if len(m.ObservedAddr) > 0 {
			return ma.NewMultiaddrBytes(m.ObservedAddr)
		}
	}
}
