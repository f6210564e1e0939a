package ticket

import (
	"cmp"
	"slices"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// addrBytes is how many bytes of addresses Choose takes, about: so that a ticket with one source has at most some 300 characters.
const addrBytes = 95

// reach says from where an address can be reached.
type reach int

const (
	everywhere reach = iota
	relayed
	nearby // a private network
	here   // this machine, or the same cable
	reaches
)

// Choose returns those of a host's addresses that are worth their place in a ticket, the most useful first: at least one that
// can be reached from everywhere, one over a relay and one from the same network, where there are any, and of each rather another
// network than another transport. It takes at most 8, fewer when they are long. Those of this machine alone, and those for browsers, it
// leaves out unless there are no others.
func Choose(addrs []ma.Multiaddr) []ma.Multiaddr {
	var all []candidate
	for _, a := range addrs {
		if c, ok := newCandidate(a); ok && !slices.ContainsFunc(all, func(o candidate) bool { return o.addr.Equal(a) }) {
			all = append(all, c)
		}
	}
	all = keepUnlessAll(all, func(c candidate) bool { return !c.browser })
	all = keepUnlessAll(all, func(c candidate) bool { return c.reach != here })
	rank(all)
	all = fit(all)
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.reach, b.reach) })
	out := make([]ma.Multiaddr, len(all))
	for i, c := range all {
		out[i] = c.addr
	}
	return out
}

// candidate is an address, and what Choose wants to know of it.
type candidate struct {
	addr    ma.Multiaddr
	reach   reach
	site    string // the IP, DNS name or relay
	ip6     bool
	quic    bool
	browser bool // WebTransport or WebRTC
	turn    int  // when it is its turn among those of its reach
}

// newCandidate returns what there is to know of an address. One that is too long for a ticket is none.
func newCandidate(a ma.Multiaddr) (c candidate, ok bool) {
	if len(a) == 0 || len(a.Bytes()) > maxAddr {
		return c, false
	}
	c = candidate{addr: a, reach: reachOf(a), site: a[0].Value()}
	for _, part := range a {
		switch part.Code() {
		case ma.P_IP6:
			c.ip6 = true
		case ma.P_QUIC_V1:
			c.quic = true
		case ma.P_WEBTRANSPORT, ma.P_WEBRTC_DIRECT, ma.P_WEBRTC:
			c.browser = true
		case ma.P_P2P:
			c.site = part.Value()
		}
	}
	return c, true
}

func reachOf(a ma.Multiaddr) reach {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	switch {
	case err == nil:
		return relayed
	case manet.IsIPLoopback(a) || manet.IsIPUnspecified(a) || manet.IsIP6LinkLocal(a):
		return here
	case manet.IsPrivateAddr(a):
		return nearby
	}
	return everywhere
}

// keepUnlessAll returns those of all that keep says yes to, or all if that are none.
func keepUnlessAll(all []candidate, keep func(candidate) bool) []candidate {
	if !slices.ContainsFunc(all, keep) {
		return all
	}
	return slices.DeleteFunc(all, func(c candidate) bool { return !keep(c) })
}

// rank puts all in the order in which they are taken: in turns, one of each reach, and of each site before a second one of any.
func rank(all []candidate) {
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(compareBool(a.ip6, b.ip6), compareBool(b.quic, a.quic))
	})
	ofSite := make(map[string]int)
	for i := range all {
		all[i].turn = ofSite[all[i].site]
		ofSite[all[i].site]++
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.turn, b.turn) })
	var ofReach [reaches]int
	for i := range all {
		all[i].turn = ofReach[all[i].reach]
		ofReach[all[i].reach]++
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.turn, b.turn), cmp.Compare(a.reach, b.reach))
	})
}

// fit returns the first ones of all that a ticket has room for. The first of each reach always has.
func fit(all []candidate) (taken []candidate) {
	size := 0
	for _, c := range all {
		n := 1 + len(c.addr.Bytes())
		if len(taken) == maxAddrs || c.turn > 0 && size+n > addrBytes {
			continue
		}
		taken = append(taken, c)
		size += n
	}
	return taken
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
