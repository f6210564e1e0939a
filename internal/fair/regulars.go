package fair

import (
	"net/netip"
	"time"
)

// regulars are peers that are known when they come: those that are expected, and those that have been served before. It is guarded by
// Tree.mu.
type regulars struct {
	expected map[string]struct{}
	served   map[string]regular
	of       map[string]int // served, by subnet, and by region
}

// A regular is a peer that has been served.
type regular struct {
	subnet string
	region string // of the subnet; "" if it has none
	left   time.Time
}

const (
	maxRegulars = 1024
	maxOfSubnet = 8               // regulars of one subnet: an attacker has many peers in it
	maxOfRegion = maxRegulars / 4 // and of one region: it is easy to have many subnets of IPv6
	regionBits  = 48
)

// regionOf names the /48 of a subnet of IPv6, or returns "".
func regionOf(subnet string) string {
	p, err := netip.ParsePrefix(subnet)
	if err != nil || !p.Addr().Is6() || p.Bits() <= regionBits {
		return ""
	}
	return netip.PrefixFrom(p.Addr(), regionBits).Masked().String()
}

// Expect makes a peer known from now on.
func (t *Tree) Expect(peer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known.expected == nil {
		t.known.expected = make(map[string]struct{})
	}
	t.known.expected[peer] = struct{}{}
}

func (r *regulars) has(peer string) bool {
	_, served := r.served[peer]
	_, expected := r.expected[peer]
	return served || expected
}

// add remembers a peer that leaves, and forgets the one that left first when there are too many, of its subnet, of its region or in all.
func (r *regulars) add(peer, subnet string) {
	if r.served == nil {
		r.served, r.of = make(map[string]regular), make(map[string]int)
	}
	r.forget(peer)
	if r.of[subnet] >= maxOfSubnet {
		r.forget(r.oldest(func(g regular) bool { return g.subnet == subnet }))
	}
	region := regionOf(subnet)
	if region != "" && r.of[region] >= maxOfRegion {
		r.forget(r.oldest(func(g regular) bool { return g.region == region }))
	}
	if len(r.served) >= maxRegulars {
		r.forget(r.oldest(func(regular) bool { return true }))
	}
	r.served[peer] = regular{subnet, region, time.Now()}
	r.of[subnet]++
	if region != "" {
		r.of[region]++
	}
}

func (r *regulars) forget(peer string) {
	g, served := r.served[peer]
	if !served {
		return
	}
	delete(r.served, peer)
	for _, of := range [...]string{g.subnet, g.region} {
		if n := r.of[of]; n > 1 {
			r.of[of] = n - 1
		} else {
			delete(r.of, of)
		}
	}
}

// oldest returns the regular that left first, of those that count.
func (r *regulars) oldest(counts func(regular) bool) (peer string) {
	var at time.Time
	for p, g := range r.served {
		if counts(g) && (peer == "" || g.left.Before(at)) {
			peer, at = p, g.left
		}
	}
	return peer
}
