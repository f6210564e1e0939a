package punch

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/internal/nat64"
)

// An observer knows at which addresses others see this host, for each transport that it listens on.
type observer struct {
	host    host.Host
	changed func() // is called when the host is seen elsewhere than before
	nat64   func(context.Context) (netip.Prefix, bool)

	mu      sync.Mutex
	seen    map[kind]map[peer.ID]sighting
	asking  map[kind]chan struct{} // closed when the question has been answered, or will not be
	network string                 // what Network returned last
	doubted time.Time              // earlier sightings are not fresh
}

// A kind is a transport over a version of IP, as in "ip4/udp/quic-v1".
type kind string

// A sighting is where a peer has seen this host.
type sighting struct {
	addr ma.Multiaddr
	at   time.Time
}

const (
	maxSightings = 8               // of a kind; the oldest is forgotten
	freshFor     = 5 * time.Second // then the NAT, or the way to it, may be another: a connection of QUIC survives that unnoticed
	askTime      = 2 * time.Second // for asking one peer
	maxAsked     = 2               // addresses of a kind
)

func newObserver(h host.Host, changed func()) *observer {
	return &observer{host: h, changed: changed, nat64: nat64.System.Prefix,
		seen: make(map[kind]map[peer.ID]sighting), asking: make(map[kind]chan struct{})}
}

// kindOf returns the kind of an address of a host; ok is false for those that holes are not punched for: relays, names, WebSocket.
func kindOf(a ma.Multiaddr) (k kind, ok bool) {
	var names []string
	for _, c := range a {
		if c.Protocol().Code != ma.P_P2P {
			names = append(names, c.Protocol().Name)
		}
	}
	switch k = kind(strings.Join(names, "/")); k {
	case "ip4/tcp", "ip6/tcp", "ip4/udp/quic-v1", "ip6/udp/quic-v1":
		return k, true
	}
	return "", false
}

// identified learns from the identification of a connection that this host has opened. An attacker could open others, and a peer behind a
// relay does not see the host's address.
func (o *observer) identified(e event.EvtPeerIdentificationCompleted) {
	if e.Conn == nil || e.ObservedAddr == nil || isRelayed(e.Conn) || e.Conn.Stat().Direction != network.DirOutbound {
		return
	}
	o.saw(e.Peer, e.Conn.RemoteMultiaddr(), e.Conn.LocalMultiaddr(), e.ObservedAddr)
}

// saw keeps where a peer has seen the local address. at is where the peer is itself.
func (o *observer) saw(by peer.ID, at, local, observed ma.Multiaddr) {
	k, ok := kindOf(observed)
	if !ok || !isPlausible(observed, at) || !o.listens(local) {
		return
	}
	o.mu.Lock()
	if o.seen[k] == nil {
		o.seen[k] = make(map[peer.ID]sighting)
	}
	o.seen[k][by] = sighting{observed, time.Now()}
	for len(o.seen[k]) > maxSightings {
		delete(o.seen[k], oldest(o.seen[k]))
	}
	was := o.network
	o.network = o.networkLocked()
	now := o.network
	o.mu.Unlock()
	if was != now && was != "" {
		o.changed()
	}
}

func oldest(of map[peer.ID]sighting) (id peer.ID) {
	at := time.Now()
	for p, s := range of {
		if !s.at.After(at) {
			id, at = p, s.at
		}
	}
	return id
}

// listens reports whether the host listens on the port of a local address: others cannot dial another one. Behind a NAT64 it is one of IPv6,
// and seen as one of IPv4.
func (o *observer) listens(local ma.Multiaddr) bool {
	k, is := kindOf(local)
	port := portOf(local)
	return is && slices.ContainsFunc(o.host.Network().ListenAddresses(), func(a ma.Multiaddr) bool {
		lk, ok := kindOf(a)
		return ok && lk == k && portOf(a) == port
	})
}

func portOf(a ma.Multiaddr) string {
	for _, code := range []int{ma.P_TCP, ma.P_UDP} {
		if port, err := a.ValueForProtocol(code); err == nil {
			return port
		}
	}
	return ""
}

// Network returns a text that is another one when the host is in another network.
func (o *observer) Network() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.networkLocked()
}

// networkLocked returns the IP addresses at which the host is seen.
func (o *observer) networkLocked() string {
	var ips []string
	for _, by := range o.seen {
		last := sighting{}
		for _, s := range by {
			if s.at.After(last.at) {
				last = s
			}
		}
		if ip, err := manet.ToIP(last.addr); err == nil {
			ips = append(ips, ip.String())
		}
	}
	slices.Sort(ips)
	return strings.Join(slices.Compact(ips), " ")
}

// forget drops all sightings, because the host's addresses have changed.
func (o *observer) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.seen)
}

// suspect makes peers be asked again however lately they were: the host may be in another network.
func (o *observer) suspect() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.doubted = time.Now()
}

// locals returns where the host listens, by the kinds at which it may be seen from there.
func (o *observer) locals(ctx context.Context) map[kind]ma.Multiaddr {
	all, six := make(map[kind]ma.Multiaddr), make(map[kind]ma.Multiaddr)
	for _, a := range o.host.Network().ListenAddresses() {
		k, ok := kindOf(a)
		if !ok {
			continue
		}
		all[k] = a
		if over, is := strings.CutPrefix(string(k), "ip6/"); is {
			six[kind("ip4/"+over)] = a
		}
	}
	if _, ok := o.nat64(ctx); ok {
		maps.Copy(all, six)
	}
	return all
}

// missing returns the kinds that a peer has not seen lately of those in locals, and where the host listens.
func (o *observer) missing(ctx context.Context, by peer.ID) map[kind]ma.Multiaddr {
	all := o.locals(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(all, func(k kind, _ ma.Multiaddr) bool {
		s, ok := o.seen[k][by]
		return ok && time.Since(s.at) < freshFor && s.at.After(o.doubted)
	})
	return all
}

// ask asks a peer, which is connected, where it sees this host over the transports that the peer has not seen it over lately. It returns
// when all have been answered, or will not be. A transport over which the peer cannot be reached is left out.
func (o *observer) ask(ctx context.Context, pid peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var all sync.WaitGroup
	for k, local := range o.missing(ctx, pid) {
		addrs := o.addrsOf(pid, k)
		if len(addrs) == 0 {
			continue
		}
		done := o.begin(k)
		if done == nil {
			continue // somebody asks
		}
		all.Go(func() {
			defer done()
			for _, a := range addrs {
				observed, err := o.askAt(ctx, local, a, pid)
				if err == nil {
					o.saw(pid, a, local, observed)
				}
				if err == nil || ctx.Err() != nil {
					return
				}
			}
		})
	}
	all.Wait()
}

// addrsOf returns the addresses of a kind at which to ask a peer. The host must have dialed the peer: then they are those with the dialed IP
// address, or for the other version of IP those that the peer lists.
func (o *observer) addrsOf(pid peer.ID, k kind) []ma.Multiaddr {
	var ips []netip.Addr
	for _, c := range o.host.Network().ConnsToPeer(pid) {
		if !isRelayed(c) && c.Stat().Direction == network.DirOutbound {
			ips = append(ips, ipOf(c.RemoteMultiaddr()))
		}
	}
	if len(ips) == 0 {
		return nil
	}
	addrs := slices.DeleteFunc(o.host.Peerstore().Addrs(pid), func(a ma.Multiaddr) bool {
		ak, _ := kindOf(a)
		ip := ipOf(a)
		connected := slices.ContainsFunc(ips, func(c netip.Addr) bool { return c.Is4() == ip.Is4() })
		return ak != k || connected && !slices.Contains(ips, ip)
	})
	return addrs[:min(len(addrs), maxAsked)]
}

// begin says that somebody asks about k; it returns nil if somebody does already.
func (o *observer) begin(k kind) (done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.asking[k] != nil {
		return nil
	}
	answered := make(chan struct{})
	o.asking[k] = answered
	return func() {
		o.mu.Lock()
		delete(o.asking, k)
		o.mu.Unlock()
		close(answered)
	}
}

// settled waits until no question is pending, or ctx ends.
func (o *observer) settled(ctx context.Context) {
	for {
		o.mu.Lock()
		var one chan struct{}
		for _, answered := range o.asking {
			one = answered
		}
		o.mu.Unlock()
		if one == nil {
			return
		}
		select {
		case <-one:
		case <-ctx.Done():
			return
		}
	}
}

// candidates returns the addresses at which this host may be reached through its NAT: those at which the relay has seen it, those that it
// listens on that are public or mapped, and those that others have seen. The first are the most likely ones.
func (o *observer) candidates(relay peer.ID) []ma.Multiaddr {
	public := slices.DeleteFunc(slices.Clone(o.host.Addrs()), func(a ma.Multiaddr) bool {
		_, ok := kindOf(a)
		return !ok || !manet.IsPublicAddr(a)
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	var first, others []ma.Multiaddr
	for _, seen := range o.seen {
		for by, s := range seen {
			if by == relay {
				first = append(first, s.addr)
			} else {
				others = append(others, s.addr)
			}
		}
	}
	var all []ma.Multiaddr
	for _, a := range slices.Concat(first, public, others) {
		if !ma.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}
