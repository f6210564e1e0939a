package netcheck

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/visit"
)

var (
	errBusy   = errors.New("the helper is busy: try again in a minute")
	errUnable = errors.New("the helper cannot serve the request")
)

func (s status) err() error {
	switch s {
	case statusDone, statusMissed:
		return nil
	case statusBusy:
		return errBusy
	}
	return errUnable
}

// ask sends a request, and returns the stream after its first answer. The caller must close it.
func ask(ctx context.Context, c transport.CapableConn, r request) (s *visit.Stream, a answer, trip time.Duration, err error) {
	s, err = visit.Open(ctx, c, Protocol)
	if err != nil {
		return nil, a, 0, err
	}
	began := time.Now()
	if _, err = s.Write(encodeRequest(r)); err == nil {
		if a, err = readAnswer(s); err == nil {
			trip = time.Since(began)
			err = a.status.err()
		}
	}
	if err != nil {
		_ = s.Close() // not needed any more
		return nil, a, 0, err
	}
	return s, a, trip, nil
}

// see asks a helper at which address it sees a connection, and how far its clock is ahead. It assumes that the helper read its clock
// halfway through the round trip.
func see(ctx context.Context, c transport.CapableConn) (seen ma.Multiaddr, ahead, trip time.Duration, err error) {
	s, a, trip, err := ask(ctx, c, request{kind: kindSee})
	if err != nil {
		return nil, 0, 0, err
	}
	_ = s.Close() // the answer has been read
	return a.seen, time.Until(a.clock.Add(trip / 2)).Round(time.Millisecond), trip, nil
}

// dialMe asks a helper to dial a port of this host, and reports whether the helper reached it.
func dialMe(ctx context.Context, c transport.CapableConn, port uint16, over byte, self peer.ID) (bool, error) {
	s, a, _, err := ask(ctx, c, request{kind: kindDial, port: port, over: over, peer: self})
	if err != nil {
		return false, err
	}
	_ = s.Close() // the answer has been read
	return a.status == statusDone, nil
}

// sendMe asks a helper to send datagrams to a port of this host, or to that of c if port is zero. It returns the port from which the helper
// sends. The caller must close the stream. On it, the helper then reports where a datagram with the nonce came from, or that none arrived.
func sendMe(ctx context.Context, c transport.CapableConn, port uint16, nonce [8]byte) (*visit.Stream, uint16, error) {
	s, a, _, err := ask(ctx, c, request{kind: kindSend, port: port, nonce: nonce})
	return s, a.port, err
}

func newNonce() (nonce [8]byte) {
	_, _ = rand.Read(nonce[:]) // never fails
	return nonce
}

// udpOf returns the name of the UDP network for an address.
func udpOf(ip netip.Addr) string {
	if ip.Is4() {
		return "udp4"
	}
	return "udp6"
}

// multiaddr returns the multiaddr of a TCP or QUIC endpoint.
func multiaddr(at netip.AddrPort, over byte) ma.Multiaddr {
	ip, rest := "ip6", "tcp/%d"
	if at.Addr().Is4() {
		ip = "ip4"
	}
	if over == overQUIC {
		rest = "udp/%d/quic-v1"
	}
	return ma.StringCast(fmt.Sprintf("/%s/%s/"+rest, ip, at.Addr().WithZone(""), at.Port()))
}
