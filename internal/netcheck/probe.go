package netcheck

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
)

// A probe finds out which senders reach a socket that has sent to one helper only.
type probe struct {
	family *family
	socket *socket
	conn   transport.CapableConn
	helper *call // the only helper that the socket has sent to

	seen               netip.AddrPort // the address at which the helper sees the socket
	sights             []sight
	fromPort, fromAddr Answer // whether a packet came from another port of the helper, and from another address
}

// run asks the helper and another one to send to the socket. Afterwards the socket sends to the other port of the helper.
func (p *probe) run(ctx context.Context) {
	p.fromPort, p.fromAddr = Unknown, Unknown
	seen, _, _, err := see(ctx, p.conn)
	if err != nil {
		return
	}
	p.seen = endpoint(seen)
	p.sights = append(p.sights, sight{p.helper.to, p.seen})
	nonce := newNonce()
	came := p.socket.expect(nonce)
	stream, port, err := sendMe(ctx, p.conn, 0, nonce)
	if err == nil {
		defer func() { _ = stream.Close() }() // both answers have been read
		var from netip.AddrPort
		from, p.fromPort = p.arrival(ctx, came)
		if from.IsValid() && from.Addr() != p.helper.to.Addr() {
			p.fromAddr = Yes // the helper has several addresses
		}
	}
	if p.fromAddr == Unknown {
		p.askOther(ctx)
	}
	if err != nil {
		return
	}
	to := netip.AddrPortFrom(p.helper.to.Addr(), port)
	for range datagrams {
		p.socket.send(ctx, nonce, to)
	}
	if a, err := readAnswer(stream); err == nil && a.status == statusDone && a.seen != nil {
		p.sights = append(p.sights, sight{to, endpoint(a.seen)})
	}
}

// askOther asks a helper at another address to send to the socket.
func (p *probe) askOther(ctx context.Context) {
	other := p.family.other(p.seen.Addr(), p.helper.to.Addr())
	if other == nil {
		return
	}
	nonce := newNonce()
	came := p.socket.expect(nonce)
	stream, _, err := sendMe(ctx, other.conn, p.seen.Port(), nonce)
	if err != nil {
		return
	}
	_ = stream.Close() // it has sent
	_, p.fromAddr = p.arrival(ctx, came)
}

// arrival waits for a datagram. It returns its source address and Yes, No if none arrives in time, or Unknown if ctx ends the wait.
func (p *probe) arrival(ctx context.Context, came <-chan netip.AddrPort) (netip.AddrPort, Answer) {
	timer := time.NewTimer(arriveTime + 2*p.helper.trip)
	defer timer.Stop()
	select {
	case from := <-came:
		return from, Yes
	case <-timer.C:
		return netip.AddrPort{}, No
	case <-ctx.Done():
		return netip.AddrPort{}, Unknown
	}
}

// reachable reports whether a helper can dial the port on which the host listens over a transport.
func (f *family) reachable(ctx context.Context, over byte, t *Transport) Answer {
	port := f.listens(over)
	if port == 0 {
		return No
	}
	first := f.first(over)
	if first == nil {
		if over == overQUIC && t.Asked > 0 && len(f.calls(overTCP)) > 0 {
			return No // UDP does not pass
		}
		return Unknown
	}
	var talked []netip.Addr // helpers that a NAT may let in because the host has sent to them
	switch at := f.mapped(over, first.seen.Addr()); {
	case at != 0:
		port = at
	case !f.isLocal(first.seen):
		if f.survey.cfg.AskAt == nil {
			return Unknown
		}
		ctx, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		seen, err := f.survey.cfg.AskAt(ctx, multiaddr(first.to, over), first.helper.ID)
		if err != nil || endpoint(seen).Addr() != first.seen.Addr() {
			return Unknown
		}
		port = endpoint(seen).Port()
		talked = append(talked, first.to.Addr())
	}
	return f.dialedBy(ctx, first.seen.Addr(), port, over, talked)
}

// dialedBy makes a helper dial a port. It prefers a helper to which the host has not sent, because a NAT may let in the others.
func (f *family) dialedBy(ctx context.Context, ip netip.Addr, port uint16, over byte, talked []netip.Addr) Answer {
	for _, h := range f.survey.helpers {
		if f.survey.cfg.Known(h.ID) {
			for _, c := range h.calls {
				talked = append(talked, c.to.Addr())
			}
		}
	}
	by, stranger := f.other(ip, talked...), true
	if by == nil {
		by, stranger = f.other(ip), false
	}
	if by == nil {
		return Unknown
	}
	through, err := dialMe(ctx, by.conn, port, over, f.survey.cfg.Self)
	switch {
	case err != nil:
		return Unknown
	case through && !stranger && f.found.UDP.Filtering != EndpointIndependent:
		return Unknown // the NAT may let in this helper only
	}
	return answerOf(through)
}

// first returns the first call over a transport in which the helper saw this side, or nil.
func (f *family) first(over byte) *call {
	calls := f.calls(over)
	if i := slices.IndexFunc(calls, func(c *call) bool { return c.seen.IsValid() }); i >= 0 {
		return calls[i]
	}
	return nil
}

// listens returns the port that the host listens on over a transport, or 0.
func (f *family) listens(over byte) uint16 { return f.portIn(f.survey.cfg.Listens, over, netip.Addr{}) }

// mapped returns the port under which the host can be reached at an address, as far as the host knows, or 0.
func (f *family) mapped(over byte, ip netip.Addr) uint16 {
	return f.portIn(f.survey.cfg.Mapped, over, ip)
}

// portIn returns the port of the first address with a transport and an IP address, or 0. The zero ip matches every address.
func (f *family) portIn(addrs []ma.Multiaddr, over byte, ip netip.Addr) uint16 {
	for _, a := range addrs {
		at := endpoint(a)
		if o, ok := transportOf(a); !ok || o != over || !at.IsValid() || !f.is(at) {
			continue
		}
		if !ip.IsValid() || at.Addr() == ip {
			return at.Port()
		}
	}
	return 0
}
