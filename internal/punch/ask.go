package punch

import (
	"context"
	"errors"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/internal/nat64"
	"github.com/peerlane/peerlane/internal/visit"
)

// AskAt asks the peer at an address where it sees this host's listening socket of the same transport, and returns that. It opens a
// connection from there and closes it again, under an identity that it makes up. The NAT keeps the mapping for a while.
func (s *Service) AskAt(ctx context.Context, a ma.Multiaddr, pid peer.ID) (ma.Multiaddr, error) {
	want, _ := kindOf(a)
	if local := s.observer.locals(ctx)[want]; local != nil {
		return s.observer.askAt(ctx, local, a, pid)
	}
	return nil, errors.New("punch: the host does not listen with the transport of " + a.String())
}

// askAt is AskAt. local is the address that the host listens on with the transport of a.
func (o *observer) askAt(ctx context.Context, local, a ma.Multiaddr, pid peer.ID) (ma.Multiaddr, error) {
	tr, err := o.from(local, a)
	if err != nil {
		return nil, err
	}
	c, err := tr.Dial(ctx, nat64.System.Out(ctx, a), pid)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // it has served its purpose
	id, err := visit.Identify(ctx, c)
	if err == nil && id.Observed == nil {
		err = errors.New("punch: the peer does not say where it sees this host")
	}
	return id.Observed, err
}

// from returns a transport that dials from where the host listens.
func (o *observer) from(local, a ma.Multiaddr) (transport.Transport, error) {
	if !isQUIC(a) {
		at, err := manet.ToNetAddr(local)
		if err != nil {
			return nil, err
		}
		return visit.TCP(at)
	}
	own, ok := o.transport(local).(*quicTransport)
	if !ok {
		return nil, errors.New("punch: the host's QUIC is not that of Transports")
	}
	return visit.QUIC(own.reuse)
}

func isQUIC(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_QUIC_V1)
	return err == nil
}
