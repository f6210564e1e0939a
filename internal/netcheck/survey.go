package netcheck

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/nat64"
	"github.com/peerlane/peerlane/internal/visit"
)

// A Config is which helpers a survey asks, and about which host.
type Config struct {
	Helpers []peer.AddrInfo // the helpers, with IP addresses
	Self    peer.ID
	Listens []ma.Multiaddr // the addresses that the host listens on
	Mapped  []ma.Multiaddr // the addresses at which others reach the host, as far as it knows
	// Known reports whether the host has sent packets to a helper from the port that it listens on.
	Known func(peer.ID) bool
	// AskAt asks a peer at an address where it sees the host's listening socket of the same transport. If nil, surveys do not ask.
	AskAt func(context.Context, ma.Multiaddr, peer.ID) (ma.Multiaddr, error)
}

// A Result is the outcome of a survey.
type Result struct {
	IPv4, IPv6 IP
	NAT64      netip.Prefix // through which a machine without IPv4 reaches it; zero: it has IPv4, or no way there
	Helpers    []Helper     // in the order of Config.Helpers
}

// How many addresses of a helper a survey dials.
const (
	maxOfKind = 2 // for each transport and version of IP
	maxGiven  = 8
)

// A survey is one run of Survey.
type survey struct {
	cfg      Config
	locals   []netip.Addr // addresses of this machine, including loopback
	nat64    netip.Prefix // as in Result
	families [2]*family   // IPv4, IPv6

	mu      sync.Mutex
	helpers []*helper
}

// A helper is a peer that the survey asks.
type helper struct {
	Helper
	tried []ma.Multiaddr
	more  []ma.Multiaddr // addresses that the helper announces, not tried yet
	calls []*call
}

// A call is a connection to a helper.
type call struct {
	helper   *helper
	conn     transport.CapableConn
	over     byte
	to, seen netip.AddrPort // seen may be zero
	trip     time.Duration
	full     bool
}

// Survey asks the helpers. It takes some seconds, longer if a firewall drops packets, and ends with ctx at the latest. Anything that it
// could not ask is unknown in the result.
func Survey(ctx context.Context, cfg Config) Result {
	s := &survey{cfg: cfg, locals: localAddrs()}
	s.nat64, _ = nat64.System.Prefix(ctx) // the zero one if there is none
	for i, ip := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		s.families[i] = newFamily(s, ip)
		defer s.families[i].close()
	}
	for _, info := range cfg.Helpers {
		s.helpers = append(s.helpers, &helper{Helper: Helper{ID: info.ID}, more: info.Addrs[:min(len(info.Addrs), maxGiven)]})
	}
	for range 2 { // first the configured addresses, then those that the helpers announce
		s.callAll(ctx)
	}
	defer s.hangUp()
	var all sync.WaitGroup
	for _, f := range s.families {
		all.Go(func() { f.examine(ctx) })
	}
	all.Wait()
	r := Result{IPv4: s.families[0].found, IPv6: s.families[1].found, NAT64: s.nat64, Helpers: []Helper{}}
	for _, h := range s.helpers {
		r.Helpers = append(r.Helpers, h.Helper)
	}
	return r
}

// localAddrs returns the unicast addresses of this machine.
func localAddrs() (all []netip.Addr) {
	addrs, _ := net.InterfaceAddrs() // nil on error: then no address counts as local
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			ip, _ := netip.AddrFromSlice(n.IP)
			all = append(all, ip.Unmap())
		}
	}
	return all
}

// callAll dials all untried addresses.
func (s *survey) callAll(ctx context.Context) {
	var dials []func()
	for _, h := range s.helpers {
		for _, a := range h.more {
			f := s.familyOf(endpoint(a))
			over, ok := transportOf(a)
			if !ok || f == nil || !f.has(endpoint(a)) || h.counts(a) >= maxOfKind || ma.Contains(h.tried, a) {
				continue
			}
			h.tried = append(h.tried, a)
			dials = append(dials, func() { s.call(ctx, f, h, a, over) })
		}
		h.more = nil
	}
	var all sync.WaitGroup
	for _, dial := range dials {
		all.Go(dial)
	}
	all.Wait()
}

// counts returns how many tried addresses have the transport and the version of IP of a.
func (h *helper) counts(a ma.Multiaddr) (n int) {
	for _, t := range h.tried {
		if isQUIC(t) == isQUIC(a) && endpoint(t).Addr().Is4() == endpoint(a).Addr().Is4() {
			n++
		}
	}
	return n
}

// transportOf returns the transport of a plain TCP or QUIC address, with or without a Peer ID.
func transportOf(a ma.Multiaddr) (over byte, ok bool) {
	var names []string
	for _, c := range a {
		if c.Protocol().Code != ma.P_P2P {
			names = append(names, c.Protocol().Name)
		}
	}
	switch {
	case len(names) == 2 && names[1] == "tcp":
		return overTCP, true
	case len(names) == 3 && names[1] == "udp" && names[2] == "quic-v1":
		return overQUIC, true
	}
	return 0, false
}

func (s *survey) familyOf(at netip.AddrPort) *family {
	switch {
	case !at.IsValid():
		return nil
	case at.Addr().Is4():
		return s.families[0]
	}
	return s.families[1]
}

// call opens a connection to a helper, asks for its identity and where it sees this side, and keeps the connection.
func (s *survey) call(ctx context.Context, f *family, h *helper, a ma.Multiaddr, over byte) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, id, err := f.call(ctx, h, a, over)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if len(h.calls) == 0 {
			h.Err = err.Error()
		}
		return
	}
	h.calls, h.Err = append(h.calls, c.call), ""
	h.Private = h.Private || isPrivate(c.to.Addr())
	if h.RTT == 0 || c.trip < h.RTT {
		h.RTT = c.trip
	}
	if c.full {
		h.Full, h.Ahead = true, c.ahead
	}
	for _, listed := range id.Addrs {
		if s.isUsable(h, listed, c.to) {
			h.more = append(h.more, listed)
		}
	}
}

// isUsable reports whether to dial an address that a helper announces: one with the dialed IP address, or of the other version of IP.
func (s *survey) isUsable(h *helper, a ma.Multiaddr, dialed netip.AddrPort) bool {
	at := endpoint(a)
	if !at.IsValid() || ma.Contains(h.tried, a) || ma.Contains(h.more, a) {
		return false
	}
	if at.Addr().Is4() == dialed.Addr().Is4() {
		return at.Addr() == dialed.Addr()
	}
	given := slices.ContainsFunc(h.tried, func(t ma.Multiaddr) bool { return endpoint(t).Addr().Is4() == at.Addr().Is4() })
	return !given && at.Addr().IsGlobalUnicast() && isPrivate(at.Addr()) == isPrivate(dialed.Addr())
}

func (s *survey) hangUp() {
	for _, h := range s.helpers {
		for _, c := range h.calls {
			_ = c.conn.Close() // not needed any more
		}
	}
}

// A greeting is a call and the clock difference that it measured.
type greeting struct {
	*call
	ahead time.Duration
}

// greet asks for the identity of the peer at the other end, and where it sees this side.
func greet(ctx context.Context, conn transport.CapableConn, h *helper, a ma.Multiaddr, over byte) (greeting, visit.Identity, error) {
	began := time.Now()
	id, err := visit.Identify(ctx, conn)
	if err != nil {
		return greeting{}, id, err
	}
	c := greeting{call: &call{helper: h, conn: conn, over: over, to: endpoint(a), trip: time.Since(began)}}
	if id.Observed != nil {
		c.seen = endpoint(id.Observed)
	}
	if !slices.Contains(id.Protocols, Protocol) {
		return c, id, nil
	}
	seen, ahead, trip, err := see(ctx, conn)
	if errors.Is(err, visit.ErrNotSupported) {
		return c, id, nil // the peer's Server was closed meanwhile
	}
	if err != nil {
		return c, id, err
	}
	c.full, c.ahead, c.trip = true, ahead, min(trip, c.trip)
	if seen != nil {
		c.seen = endpoint(seen)
	}
	return c, id, nil
}
