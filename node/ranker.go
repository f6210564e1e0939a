package node

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/dialaddr"
)

// A ranker is the host's network.DialRanker. It remembers the addresses at which this host has reached peers, and dials them first.
// libp2p ranks by transport and port, and dials eight addresses of a peer at a time: behind eight silent addresses, the working one waits
// for their timeout.
type ranker struct {
	mu     sync.Mutex
	worked map[string]uint64 // bare addresses; the highest number is the newest
	count  uint64
}

const (
	maxWorked = 1024                 // addresses to remember; the oldest is dropped
	headStart = swarm.PublicTCPDelay // of the last working address over the next ones
	keptSlots = 2                    // dial slots of a peer, kept for relayed addresses that worked
)

func newRanker() *ranker { return &ranker{worked: make(map[string]uint64)} }

// option makes a host dial in the order of r, unless an option of the caller sets another ranker. It must be the last option.
func (r *ranker) option() libp2p.Option {
	return func(cfg *libp2p.Config) error {
		cfg.SwarmOpts = append([]swarm.Option{swarm.WithDialRanker(r.rank)}, cfg.SwarmOpts...) // the last ranker counts
		return nil
	}
}

// follow makes r record the addresses of n's outbound connections until n is closed.
func (r *ranker) follow(n network.Network) {
	n.Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if c.Stat().Direction == network.DirOutbound {
			r.remember(c.RemoteMultiaddr())
		}
	}})
}

func (r *ranker) remember(a ma.Multiaddr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.worked[string(dialaddr.Bare(a).Bytes())] = r.count
	if len(r.worked) <= maxWorked {
		return
	}
	oldest, least := "", uint64(math.MaxUint64)
	for key, n := range r.worked {
		if n < least {
			oldest, least = key, n
		}
	}
	delete(r.worked, oldest)
}

// rank returns when to dial each address. Of the addresses that worked, the newest comes first, with a head start of headStart, then the
// others, then all other addresses in libp2p's order. An address through a relay does not come before a direct one because it worked: it is
// dialed when libp2p would dial it, but before the last of many direct addresses.
func (r *ranker) rank(addrs []ma.Multiaddr) []network.AddrDelay {
	direct, relayed := split(addrs, func(a ma.Multiaddr) bool { return !isCircuit(a) })
	group := direct
	if len(direct) == 0 {
		group = relayed
	}
	known, rest := r.known(group)
	if len(known) == 0 {
		return r.rankRelays(rankDefault(slices.Clone(addrs)))
	}
	if len(direct) > 0 {
		rest = append(rest, relayed...)
	}
	out := []network.AddrDelay{{Addr: known[0]}}
	for _, a := range known[1:] {
		out = append(out, network.AddrDelay{Addr: a, Delay: headStart})
	}
	for _, d := range rankDefault(rest) {
		out = append(out, network.AddrDelay{Addr: d.Addr, Delay: headStart + d.Delay})
	}
	return r.rankRelays(out)
}

// rankDefault returns when libp2p would dial each address, except that it dials relays over TCP before relays over QUIC: a relayed
// connection over TCP is three times as fast.
func rankDefault(addrs []ma.Multiaddr) []network.AddrDelay {
	all := swarm.DefaultDialRanker(addrs)
	var at []int // indexes of the circuits
	for i, d := range all {
		if isCircuit(d.Addr) {
			at = append(at, i)
		}
	}
	circuits := make([]network.AddrDelay, 0, len(at))
	delays := make([]time.Duration, 0, len(at))
	for _, i := range at {
		circuits, delays = append(circuits, all[i]), append(delays, all[i].Delay)
	}
	slices.Sort(delays)
	slices.SortStableFunc(circuits, func(x, y network.AddrDelay) int {
		return cmp.Or(cmp.Compare(kindOfHop(x.Addr), kindOfHop(y.Addr)), cmp.Compare(x.Delay, y.Delay))
	})
	for n, i := range at {
		all[i] = network.AddrDelay{Addr: circuits[n].Addr, Delay: delays[n]}
	}
	return all
}

// kindOfHop returns 0 if the address of a circuit reaches the relay over TCP, and 1 otherwise.
func kindOfHop(circuit ma.Multiaddr) int {
	if _, err := circuit.ValueForProtocol(ma.P_TCP); err == nil {
		return 0
	}
	return 1
}

// rankRelays moves relays that worked before the direct addresses that exceed the number of parallel dials of libp2p.
func (r *ranker) rankRelays(all []network.AddrDelay) []network.AddrDelay {
	relays, _ := split(addrsOf(all), isCircuit)
	known, _ := r.known(relays)
	if len(known) == 0 || len(known) == len(all) {
		return all
	}
	slices.SortStableFunc(all, func(x, y network.AddrDelay) int { return cmp.Compare(x.Delay, y.Delay) })
	var at time.Duration // when the last working relay is dialed
	ahead := 0           // direct addresses dialed by then
	for i := range all {
		if ma.Contains(known, all[i].Addr) {
			all[i].Delay = min(all[i].Delay, headStart+swarm.RelayDelay)
			at = max(at, all[i].Delay)
		}
	}
	for i := range all {
		if isCircuit(all[i].Addr) || all[i].Delay > at {
			continue
		}
		if ahead++; ahead > swarm.DefaultPerPeerRateLimit-keptSlots {
			all[i].Delay = at + headStart
		}
	}
	return all
}

// known returns the addresses in addrs that have worked, the newest first, and the others.
func (r *ranker) known(addrs []ma.Multiaddr) (known, rest []ma.Multiaddr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	when := func(a ma.Multiaddr) uint64 { return r.worked[string(dialaddr.Bare(a).Bytes())] }
	known, rest = split(addrs, func(a ma.Multiaddr) bool { return when(a) > 0 })
	slices.SortStableFunc(known, func(x, y ma.Multiaddr) int { return cmp.Compare(when(y), when(x)) })
	return known, rest
}

func addrsOf(all []network.AddrDelay) []ma.Multiaddr {
	out := make([]ma.Multiaddr, 0, len(all))
	for _, d := range all {
		out = append(out, d.Addr)
	}
	return out
}

// split returns the addresses for which is returns true, and the others.
func split(addrs []ma.Multiaddr, is func(ma.Multiaddr) bool) (yes, no []ma.Multiaddr) {
	for _, a := range addrs {
		if is(a) {
			yes = append(yes, a)
		} else {
			no = append(no, a)
		}
	}
	return yes, no
}

func isCircuit(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}
