package netcheck

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-reuseport"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/nat64"
	"github.com/peerlane/peerlane/internal/pause"
	"github.com/peerlane/peerlane/internal/visit"
)

// Waits for datagrams that may be filtered.
const (
	arriveTime   = 600 * time.Millisecond // plus two round trips
	hairpins     = 4                      // datagrams to the host's own outside address
	hairpinEvery = 100 * time.Millisecond
)

// A family is the part of a survey that runs over one version of IP.
type family struct {
	survey *survey
	any    netip.Addr // 0.0.0.0 or ::
	from   netip.Addr // what sockets are bound to: any, or :: if IPv4 is reached through a NAT64
	found  IP

	mu     sync.Mutex
	holder net.Listener // holds the port from which TCP connections are dialed; nil: none
	tcp    transport.Transport
	common *socket // dials all helpers; nil: not open
	fresh  *socket // has sent to one helper only; nil: not open
}

func newFamily(s *survey, unspecified netip.Addr) *family {
	f := &family{survey: s, any: unspecified, from: unspecified, found: IP{Local: []netip.Addr{}, TCP: newTransport(), UDP: newTransport()}}
	if f.isBehindNAT64() {
		f.from = netip.IPv6Unspecified()
	}
	for _, ip := range s.locals {
		if ip.Is4() == f.any.Is4() && ip.IsGlobalUnicast() {
			f.found.Local = append(f.found.Local, ip)
		}
	}
	return f
}

// has reports whether this machine has an address from which it may reach the other.
func (f *family) has(other netip.AddrPort) bool {
	return len(f.found.Local) > 0 || other.Addr().IsLoopback() || f.isBehindNAT64()
}

// isBehindNAT64 reports whether IPv4 is reached from sockets of IPv6.
func (f *family) isBehindNAT64() bool { return f.any.Is4() && f.survey.nat64.IsValid() }

func (f *family) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holder != nil {
		_ = f.holder.Close() // no connection was accepted
	}
	for _, s := range []*socket{f.common, f.fresh} {
		if s != nil {
			s.Close()
		}
	}
}

// open returns the TCP transport and the socket that dial all helpers.
func (f *family) open() (tcp transport.Transport, common *socket, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holder == nil {
		at := netip.AddrPortFrom(f.from, 0).String()
		network := "tcp" + udpOf(f.from)[3:]
		if f.holder, err = reuseport.Listen(network, at); err != nil {
			return nil, nil, err
		}
		if f.tcp, err = visit.TCP(f.holder.Addr()); err != nil {
			return nil, nil, err
		}
	}
	if f.common == nil {
		f.common, err = newSocket(udpOf(f.from))
	}
	return f.tcp, f.common, err
}

// call opens a connection to a helper and greets it.
func (f *family) call(ctx context.Context, h *helper, a ma.Multiaddr, over byte) (c greeting, id visit.Identity, err error) {
	tcp, common, err := f.open()
	if err != nil {
		return c, id, err
	}
	if over == overTCP {
		common = nil
	}
	var conn transport.CapableConn
	if common != nil {
		conn, err = common.dial(ctx, a, h.ID)
	} else {
		conn, err = tcp.Dial(ctx, nat64.System.Out(ctx, a), h.ID)
	}
	if err != nil {
		return c, id, err
	}
	if c, id, err = greet(ctx, conn, h, a, over); err != nil {
		_ = conn.Close() // not needed any more
	}
	return c, id, err
}

// calls returns the calls over a transport that show the way to the internet: those to public addresses, or all if there are none.
func (f *family) calls(over byte) (all []*call) {
	isPublic := slices.ContainsFunc(f.survey.helpers, func(h *helper) bool {
		return slices.ContainsFunc(h.calls, func(c *call) bool { return f.is(c.to) && !isPrivate(c.to.Addr()) })
	})
	for _, c := range f.allCalls(over) {
		if isPublic != isPrivate(c.to.Addr()) {
			all = append(all, c)
		}
	}
	return all
}

// allCalls returns the calls over a transport.
func (f *family) allCalls(over byte) (all []*call) {
	for _, h := range f.survey.helpers {
		for _, c := range h.calls {
			if c.over == over && f.is(c.to) {
				all = append(all, c)
			}
		}
	}
	return all
}

// is reports whether an address is of the family's version of IP.
func (f *family) is(at netip.AddrPort) bool { return at.Addr().Is4() == f.any.Is4() }

// isPrivate reports whether an address is outside the public internet.
func isPrivate(ip netip.Addr) bool {
	return ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()
}

// examine fills in the findings for both transports.
func (f *family) examine(ctx context.Context) {
	f.count(overTCP, &f.found.TCP)
	f.count(overQUIC, &f.found.UDP)
	tcp, udp := f.calls(overTCP), f.calls(overQUIC)
	if f.holder != nil {
		f.judge(&f.found.TCP, portOf(f.holder.Addr()), sightsOf(tcp))
	}
	if f.common != nil {
		f.judge(&f.found.UDP, f.common.port(), sightsOf(udp))
		f.examineUDP(ctx, udp)
	}
	var all sync.WaitGroup
	all.Go(func() { f.found.TCP.Reachable = f.reachable(ctx, overTCP, &f.found.TCP) })
	all.Go(func() { f.found.UDP.Reachable = f.reachable(ctx, overQUIC, &f.found.UDP) })
	all.Wait()
}

// count fills in how many helpers were asked and have answered over a transport.
func (f *family) count(over byte, t *Transport) {
	for _, h := range f.survey.helpers {
		asked := slices.ContainsFunc(h.tried, func(a ma.Multiaddr) bool {
			o, _ := transportOf(a)
			return o == over && f.is(endpoint(a))
		})
		if asked {
			t.Asked++
		}
	}
	var answered []*helper
	for _, c := range f.allCalls(over) {
		if !slices.Contains(answered, c.helper) {
			answered = append(answered, c.helper)
		}
		if t.RTT == 0 || c.trip < t.RTT {
			t.RTT = c.trip
		}
	}
	t.Answered = len(answered)
}

func sightsOf(calls []*call) (all []sight) {
	for _, c := range calls {
		if c.seen.IsValid() {
			all = append(all, sight{c.to, c.seen})
		}
	}
	return all
}

// judge fills in the mapping of a socket, given its port and sights, and the sights of further sockets.
func (f *family) judge(t *Transport, port uint16, sights []sight, further ...[]sight) {
	for _, s := range sights {
		if !slices.Contains(t.Outside, s.seen) {
			t.Outside = append(t.Outside, s.seen)
		}
	}
	if len(sights) > 0 {
		t.PortKept = answerOf(!slices.ContainsFunc(sights, func(s sight) bool { return s.seen.Port() != port }))
	}
	t.Mapping = mappingOf(f.isLocal, append([][]sight{sights}, further...)...)
}

// isLocal reports whether an address belongs to this machine, so that there is no NAT in between.
func (f *family) isLocal(seen netip.AddrPort) bool {
	return slices.Contains(f.survey.locals, seen.Addr())
}

// other returns a call to a full helper that sees this machine at an address, and whose own address is none of those in than.
func (f *family) other(seen netip.Addr, than ...netip.Addr) *call {
	for _, c := range slices.Concat(f.calls(overTCP), f.calls(overQUIC)) {
		if c.full && c.seen.Addr() == seen && !slices.Contains(than, c.to.Addr()) {
			return c
		}
	}
	return nil
}

// examineUDP finds out the filtering, the mapping towards another port of a helper, and the hairpin.
func (f *family) examineUDP(ctx context.Context, udp []*call) {
	i := slices.IndexFunc(udp, func(c *call) bool { return c.full })
	if i < 0 {
		return
	}
	a := udp[i]
	fresh, err := newSocket(udpOf(f.from))
	if err != nil {
		return
	}
	f.mu.Lock()
	f.fresh = fresh
	f.mu.Unlock()
	conn, err := f.dialFresh(ctx, a)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }() // not needed any more
	p := &probe{family: f, socket: fresh, conn: conn, helper: a}
	p.run(ctx)
	f.found.UDP.Filtering = filteringOf(p.fromPort, p.fromAddr)
	f.found.UDP.Outside = []netip.AddrPort{}
	f.judge(&f.found.UDP, f.common.port(), sightsOf(udp), p.sights)
	if f.found.UDP.Mapping != None && p.seen.IsValid() {
		f.found.UDP.Hairpin = f.hairpin(ctx, p.seen, a.seen)
		if f.found.UDP.Hairpin == No && f.found.UDP.Mapping != EndpointIndependent {
			f.found.UDP.Hairpin = Unknown // the two sockets may have other outside addresses towards each other
		}
	}
}

// dialFresh dials a helper from the fresh socket.
func (f *family) dialFresh(ctx context.Context, a *call) (transport.CapableConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	return f.fresh.dial(ctx, multiaddr(a.to, overQUIC), a.helper.ID)
}

// hairpin reports whether a datagram from one socket to the outside address of the other arrives. Both sockets send, because the NAT may
// filter.
func (f *family) hairpin(ctx context.Context, fresh, common netip.AddrPort) Answer {
	nonce := newNonce()
	at, back := f.fresh.expect(nonce), f.common.expect(nonce)
	for range hairpins {
		f.common.send(ctx, nonce, fresh)
		f.fresh.send(ctx, nonce, common)
		if pause.For(ctx, hairpinEvery) != nil {
			return Unknown
		}
	}
	select {
	case <-at:
		return Yes
	case <-back:
		return Yes
	case <-ctx.Done():
		return Unknown
	case <-time.After(arriveTime):
		return No
	}
}
