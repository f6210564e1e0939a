package punch

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// A peer names the addresses that this host dials, and can name those of a third party. Peer IDs cost nothing, so a bound for each Peer ID does
// not protect a third party. There are also bounds for the whole service, for each relay, and for each dialed address.
const (
	maxDialing  = 64   // exchanges begun by peers, at a time
	perPeer     = 2    // of them with one peer
	perRelay    = 32   // of them over one relay; the same for exchanges begun by this side
	perMinute   = 12   // exchanges that one peer may begin, and attempts of this side with it
	maxIPs      = 4    // dialed IP addresses of those in a peer's message
	maxKnown    = 32   // dialed direct addresses of those in the peerstore
	maxKnownIPs = 8    // IP addresses of them
	maxVain     = 64   // dials of one network in a minute without a connection to it
	maxTargets  = 4096 // networks dialed in a minute without a connection to them
	maxWide     = 2    // attempts with many holes at a time
	wideMinute  = 8    // of them in a minute without a connection
	wideHour    = 5    // the same in an hour with one network, and one in a minute
)

var (
	errBusy     = errors.New("punch: too many exchanges at a time")
	errTooMany  = errors.New("punch: too many exchanges with the peer in a minute")
	errMuchVain = errors.New("punch: an address of the peer has been dialed in vain too often")
)

// A window holds the times of the events of the last minute.
type window struct{ at []time.Time }

// wait returns the time until another event is allowed, with at most limit in a minute.
func (w *window) wait(now time.Time, limit int) time.Duration {
	w.at = slices.DeleteFunc(w.at, func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	if len(w.at) < limit {
		return 0
	}
	return w.at[0].Add(time.Minute).Sub(now)
}

func (w *window) add(now time.Time) { w.at = append(w.at, now) }

// limits bound what peers can make a service send.
type limits struct {
	mu      sync.Mutex
	vain    map[netip.Prefix]int // dials without a connection to the network, from since on
	since   time.Time
	wides   []*wideTry // of the last hour
	running int        // of wides
	answers map[peer.ID]int
	begun   map[peer.ID]int // both by relay
}

// A wideTry is an attempt with many holes that is under way, or that failed.
type wideTry struct {
	to netip.Prefix
	at time.Time
}

func newLimits() *limits {
	return &limits{vain: make(map[netip.Prefix]int), answers: make(map[peer.ID]int), begun: make(map[peer.ID]int)}
}

// slot takes one of perRelay places in use, which is one of the maps of l. The caller must call done.
func (l *limits) slot(use map[peer.ID]int, relay peer.ID) (done func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if use[relay] >= perRelay {
		return nil, errBusy
	}
	use[relay]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if use[relay]--; use[relay] == 0 {
			delete(use, relay)
		}
	}, nil
}

// dial reports whether addresses may be dialed, and counts the dial. The caller must call done after the dial, with the network of the new
// direct connection, or the zero Prefix if there is none.
func (l *limits) dial(addrs []ma.Multiaddr) (done func(reached netip.Prefix), ok bool) {
	networks := networksOf(addrs)
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.since) >= time.Minute {
		clear(l.vain)
		l.since = now
	}
	for _, n := range networks {
		if l.vain[n] >= maxVain {
			return nil, false
		}
	}
	if len(l.vain)+len(networks) > maxTargets {
		return nil, false
	}
	for _, n := range networks {
		l.vain[n]++
	}
	return func(reached netip.Prefix) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.vain[reached] > 0 && slices.Contains(networks, reached) {
			l.vain[reached]--
		}
	}, true
}

// mayWide reports whether any attempt with many holes may begin now.
func (l *limits) mayWide() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running < maxWide && l.widesLocked(netip.Prefix{}, time.Minute) < wideMinute
}

// wide begins an attempt with many holes, unless a bound is reached. The caller must call done, and say whether there is now a connection.
func (l *limits) wide(target netip.Addr) (done func(through bool), ok bool) {
	to := networkOf(target)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.wides = slices.DeleteFunc(l.wides, func(w *wideTry) bool { return now.Sub(w.at) >= time.Hour })
	if l.running >= maxWide || l.widesLocked(netip.Prefix{}, time.Minute) >= wideMinute ||
		l.widesLocked(to, time.Minute) > 0 || l.widesLocked(to, time.Hour) >= wideHour {
		return nil, false
	}
	try := &wideTry{to, now}
	l.wides = append(l.wides, try)
	l.running++
	return func(through bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.running--
		if through { // the address is the peer's own
			l.wides = slices.DeleteFunc(l.wides, func(w *wideTry) bool { return w == try })
		}
	}, true
}

// widesLocked counts the attempts with many holes in the last d to a network; the zero one is any.
func (l *limits) widesLocked(to netip.Prefix, d time.Duration) (n int) {
	for _, w := range l.wides {
		if time.Since(w.at) < d && (!to.IsValid() || w.to == to) {
			n++
		}
	}
	return n
}

// ipOf returns the IP address that a multiaddr begins with, or the zero Addr.
func ipOf(a ma.Multiaddr) netip.Addr {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}
	}
	at, _ := netip.AddrFromSlice(ip)
	return at.Unmap()
}

// networkOf returns the network that an address belongs to: the IPv4 address alone, or an IPv6 prefix of 64 bits.
func networkOf(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // the zero one if there is no address
	return p
}

func networksOf(addrs []ma.Multiaddr) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addrs {
		if n := networkOf(ipOf(a)); n.IsValid() && !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all
}

// isPlausible reports whether an address may be that of a host behind a relay. If the relay has a public address, so must the host. Otherwise
// the address may be any but a loopback, multicast or link-local one.
func isPlausible(a, relay ma.Multiaddr) bool {
	ip := ipOf(a)
	if _, ok := kindOf(a); !ok || !ip.IsGlobalUnicast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	if p := portOf(a); p == "" || p == "0" {
		return false
	}
	return manet.IsPublicAddr(a) && !ip.IsPrivate() || !manet.IsPublicAddr(relay)
}

// dialable returns the addresses of a peer's message that are dialed.
func dialable(addrs []ma.Multiaddr, relay ma.Multiaddr) []ma.Multiaddr {
	var all []ma.Multiaddr
	for _, a := range addrs {
		if len(all) < maxAddresses && isPlausible(a, relay) {
			all = append(all, a)
		}
	}
	return atMostIPs(all, maxIPs)
}

// atMostIPs returns the addresses with the first n IP addresses.
func atMostIPs(addrs []ma.Multiaddr, n int) []ma.Multiaddr {
	var ips []netip.Addr
	var all []ma.Multiaddr
	for _, a := range addrs {
		ip := ipOf(a)
		if !slices.Contains(ips, ip) {
			if len(ips) == n {
				continue
			}
			ips = append(ips, ip)
		}
		all = append(all, a)
	}
	return all
}
