//go:build linux

package natlab

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/peerlane/peerlane/internal/nat"
)

// A Lab is a network of hosts in namespaces. It is removed in t.Cleanup.
type Lab struct {
	Internet *Place

	t       testing.TB
	routers int
}

// New returns a lab with nothing but the internet in it. A test where the machine allows no lab is skipped with the reason, or fails
// when the flag -natlab is given.
func New(t testing.TB) *Lab {
	t.Helper()
	need(t)
	return &Lab{t: t, Internet: &Place{prefixes: []netip.Prefix{
		netip.MustParsePrefix("11.0.0.0/16"), netip.MustParsePrefix("2600:11::/64"), // public as go-multiaddr sees it
	}}}
}

// RouterOptions are for Router. The zero value, and nil, is a router that translates nothing and lets everything in, for IPv4 and IPv6.
type RouterOptions struct {
	NAT      *nat.Kind // of IPv4; nil: none
	NAT64    *nat.Kind // for IPv4 outside, with IPv6 alone behind it, and 64:ff9b::/96 as prefix; nil: none
	Firewall bool      // of IPv6: in comes what answers
	Version  int       // 4 or 6: only that version of IP behind it; zero: both
}

// Home returns the options of a home router with the NAT, and a firewall for IPv6.
func Home(kind nat.Kind) *RouterOptions { return &RouterOptions{NAT: &kind, Firewall: true} }

// Router plugs a router into a place. Behind a NAT each LAN is 192.168.N.0/24; without one, addresses are public.
func (l *Lab) Router(at *Place, opts *RouterOptions) *Router {
	l.t.Helper()
	var o RouterOptions
	if opts != nil {
		o = *opts
	}
	l.routers++
	lan := fmt.Sprintf("11.%d.0.0/24", l.routers)
	if o.NAT != nil {
		lan = fmt.Sprintf("192.168.%d.0/24", l.routers)
	}
	r := &Router{LAN: &Place{}}
	if o.NAT64 != nil {
		o.Version = 6
	}
	if o.Version != 6 {
		r.LAN.prefixes = append(r.LAN.prefixes, netip.MustParsePrefix(lan))
	}
	if o.Version != 4 {
		r.LAN.prefixes = append(r.LAN.prefixes, netip.MustParsePrefix(fmt.Sprintf("2600:11:0:%d::/64", l.routers)))
	}
	r.LAN.router = r
	r.wan = at.plug(r.inward, at.take(at.prefixes))
	for _, prefix := range r.LAN.prefixes {
		if prefix.Addr().Is6() || o.NAT == nil {
			at.route(r.wan, prefix)
		}
	}
	if o.NAT != nil {
		r.nat = nat.New(*o.NAT, r.wan.addrs[0])
	}
	if o.NAT64 != nil {
		r.nat64 = nat.New(*o.NAT64, r.wan.addrs[0])
	}
	if o.Firewall {
		r.firewall = nat.New(nat.Easy, netip.Addr{})
	}
	l.t.Cleanup(func() { at.unplug(r.wan) })
	return r
}

// route makes a prefix be reached through a port, here and from everywhere above.
func (pl *Place) route(p *port, prefix netip.Prefix) {
	pl.mu.Lock()
	p.behind = append(p.behind, prefix)
	pl.mu.Unlock()
	if pl.router != nil {
		pl.router.wan.place.route(pl.router.wan, prefix)
	}
}
