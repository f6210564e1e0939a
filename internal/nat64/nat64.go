// Package nat64 lets hosts with IPv6 alone reach peers of which IPv4 addresses are known: through the NAT64 of their network (RFC 6146), as
// mobile networks have one. It synthesizes the IPv6 addresses under which a NAT64 knows IPv4 addresses (RFC 6052), and has libp2p's
// transports dial those.
//
// What is above the transports sees the IPv4 addresses alone: those are the peers' own, which others know them by, and which are valid in
// every network. So addresses that are remembered, ranked, limited, printed, and told to the peers themselves need no translation.
package nat64

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// A Translator knows the NAT64 of the network that this machine is in. It is safe for concurrent use.
type Translator struct {
	route  func(to netip.Addr) (from netip.Addr, ok bool)
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

	asking chan struct{} // of capacity 1: held by who asks the resolver
	mu     sync.Mutex
	found  finding
}

// A finding is what is known of a network.
type finding struct {
	from   netip.Addr // this machine's address in it; invalid: nothing is known
	prefix netip.Prefix
	until  time.Time
}

// System is the Translator of this machine.
var System = newTranslator()

func newTranslator() *Translator {
	return &Translator{route: systemRoute, lookup: net.DefaultResolver.LookupNetIP, asking: make(chan struct{}, 1)}
}

// systemRoute returns the address from which this machine would send to another; ok is false if there is no route. Nothing is sent.
func systemRoute(to netip.Addr) (from netip.Addr, ok bool) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err != nil {
		return netip.Addr{}, false
	}
	defer func() { _ = c.Close() }() // nothing was sent
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), true
}

// wellKnown is the prefix that a NAT64 has unless its operator has chosen another one (RFC 6052, section 2.1).
var wellKnown = netip.MustParsePrefix("64:ff9b::/96")

const (
	// ipv4Only is the name that has IPv4 addresses alone: IPv6 addresses are a NAT64's (RFC 7050).
	ipv4Only   = "ipv4only.arpa."
	lookupTime = time.Second
	keptFor    = 10 * time.Minute
	keptFailed = time.Minute // what no resolver has answered
)

// ipv4Only's addresses.
var ipv4OnlyAddrs = []netip.Addr{netip.MustParseAddr("192.0.0.170"), netip.MustParseAddr("192.0.0.171")}

// anywhere is an address on the internet, to which nothing is sent (RFC 5737).
var anywhere = netip.MustParseAddr("203.0.113.1")

// Prefix returns the prefix of the NAT64; ok is false on a machine that has IPv4, and where there is no NAT64. It may ask the resolver, for
// up to a second, in each network that the machine comes into.
func (t *Translator) Prefix(ctx context.Context) (p netip.Prefix, ok bool) {
	return t.prefixFor(ctx, anywhere)
}

func (t *Translator) prefixFor(ctx context.Context, to netip.Addr) (netip.Prefix, bool) {
	if _, has := t.route(to); has {
		return netip.Prefix{}, false
	}
	from, has := t.route(synthesize(wellKnown, to))
	if !has {
		return netip.Prefix{}, false
	}
	p := t.discover(ctx, from)
	return p, p.IsValid()
}

// discover returns the prefix in the network where this machine has an address; the zero one is none. A resolver that answers that there is
// none is believed. Without an answer it is the well-known one.
func (t *Translator) discover(ctx context.Context, from netip.Addr) netip.Prefix {
	select {
	case t.asking <- struct{}{}:
		defer func() { <-t.asking }()
	case <-ctx.Done():
		return netip.Prefix{}
	}
	t.mu.Lock()
	known := t.found
	t.mu.Unlock()
	if known.from == from && time.Now().Before(known.until) {
		return known.prefix
	}
	limited, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	addrs, err := t.lookup(limited, "ip6", ipv4Only)
	if ctx.Err() != nil {
		return netip.Prefix{}
	}
	now := finding{from: from, prefix: prefixIn(addrs), until: time.Now().Add(keptFor)}
	var answer *net.DNSError
	if err != nil && !(errors.As(err, &answer) && answer.IsNotFound) {
		now.prefix, now.until = wellKnown, time.Now().Add(keptFailed)
	}
	t.mu.Lock()
	t.found = now
	t.mu.Unlock()
	return now.prefix
}

// bytesOf are the bytes of an IPv6 address in which the IPv4 address is, by the length of the prefix, the most common one first (RFC 6052,
// section 2.2).
var bytesOf = []struct {
	bits int
	at   [4]int
}{
	{96, [4]int{12, 13, 14, 15}},
	{64, [4]int{9, 10, 11, 12}},
	{56, [4]int{7, 9, 10, 11}},
	{48, [4]int{6, 7, 9, 10}},
	{40, [4]int{5, 6, 7, 9}},
	{32, [4]int{4, 5, 6, 7}},
}

// prefixIn returns the prefix of addresses that stand for those of ipv4Only, or the zero one.
func prefixIn(addrs []netip.Addr) netip.Prefix {
	for _, a := range addrs {
		if !a.Is6() || a.Is4In6() {
			continue
		}
		for _, layout := range bytesOf {
			p, err := a.WithZone("").Prefix(layout.bits)
			if err != nil {
				continue
			}
			for _, four := range ipv4OnlyAddrs {
				if synthesize(p, four) == a.WithZone("") {
					return p
				}
			}
		}
	}
	return netip.Prefix{}
}

// synthesize returns the IPv6 address with a prefix of a NAT64 that stands for an IPv4 address.
func synthesize(p netip.Prefix, ip netip.Addr) netip.Addr {
	b, four := p.Addr().As16(), ip.As4()
	for _, layout := range bytesOf {
		if layout.bits == p.Bits() {
			for i, at := range layout.at {
				b[at] = four[i]
			}
		}
	}
	return netip.AddrFrom16(b)
}

// embedded is the inverse of synthesize; ok is false if the address has another prefix.
func embedded(p netip.Prefix, ip netip.Addr) (four netip.Addr, ok bool) {
	if !p.Contains(ip) {
		return netip.Addr{}, false
	}
	var b [4]byte
	six := ip.As16()
	for _, layout := range bytesOf {
		if layout.bits == p.Bits() {
			for i, at := range layout.at {
				b[i] = six[at]
			}
		}
	}
	four = netip.AddrFrom4(b)
	return four, synthesize(p, four) == ip
}

// Addr returns the address to send to in order to reach ip: ip itself, or the NAT64's for it. Only public addresses are behind a NAT64.
func (t *Translator) Addr(ctx context.Context, ip netip.Addr) netip.Addr {
	if !ip.Is4() || !isPublic(ip) {
		return ip
	}
	p, ok := t.prefixFor(ctx, ip)
	if !ok {
		return ip
	}
	return synthesize(p, ip)
}

func isPublic(ip netip.Addr) bool {
	a, err := manet.FromIP(ip.AsSlice())
	return err == nil && manet.IsPublicAddr(a)
}

// Out returns the multiaddr to dial in order to reach a: a itself, or the NAT64's for it.
func (t *Translator) Out(ctx context.Context, a ma.Multiaddr) ma.Multiaddr {
	ip := ipOf(a)
	return withIP(a, ip, t.Addr(ctx, ip))
}

// In returns the multiaddr that a stands for: a itself, or the IPv4 address if it is a NAT64's for one.
func (t *Translator) In(a ma.Multiaddr) ma.Multiaddr {
	ip := ipOf(a)
	return withIP(a, ip, t.InAddr(ip))
}

// InAddr returns the address that ip stands for: ip itself, or the IPv4 address if it is a NAT64's for one.
func (t *Translator) InAddr(ip netip.Addr) netip.Addr {
	if !ip.Is6() {
		return ip
	}
	t.mu.Lock()
	found := t.found.prefix
	t.mu.Unlock()
	for _, p := range []netip.Prefix{wellKnown, found} {
		if four, ok := embedded(p, ip); ok && isPublic(four) {
			return four
		}
	}
	return ip
}

// ipOf returns the IP address that a multiaddr begins with, or the zero Addr. Addresses with a zone are none that are translated.
func ipOf(a ma.Multiaddr) netip.Addr {
	if len(a) == 0 || a[0].Protocol().Code != ma.P_IP4 && a[0].Protocol().Code != ma.P_IP6 {
		return netip.Addr{}
	}
	ip, _ := netip.AddrFromSlice(a[0].RawValue())
	return ip
}

// withIP returns a multiaddr with another IP address than it has.
func withIP(a ma.Multiaddr, has, wants netip.Addr) ma.Multiaddr {
	if has == wants {
		return a
	}
	head, err := manet.FromIP(wants.AsSlice())
	if err != nil {
		return a
	}
	return append(head, a[1:]...)
}
