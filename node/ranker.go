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

// A ranker is the host's network.DialRanker. It remembers the addresses at which this host has reached peers and has them
// dialed before others. libp2p ranks by transport and port, and dials eight addresses of a peer at a time: behind eight
// that do not answer, the one that works waits for their timeout.
type ranker struct {
	mu     sync.Mutex
	worked map[string]uint64 // bare addresses; the highest number is the newest
	count  uint64
}

const (
	maxWorked = 1024                 // addresses that are remembered; the oldest is forgotten
	headStart = swarm.PublicTCPDelay // of the address that worked last, before the next ones are dialed
	keptSlots = 2                    // of libp2p's dials to one peer, for addresses that worked only over a relay
)

func newRanker() *ranker { return &ranker{worked: make(map[string]uint64)} }

// option makes a host dial as r says, unless an option of the caller sets another ranker. It must be the last option.
func (r *ranker) option() libp2p.Option {
	return func(cfg *libp2p.Config) error {
		cfg.SwarmOpts = append([]swarm.Option{swarm.WithDialRanker(r.rank)}, cfg.SwarmOpts...) // the last of them counts
		return nil
	}
}

// follow makes r remember to where n's dials lead, for as long as n lives.
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

// rank returns when each address is dialed. Of those that worked the newest comes first, alone for headStart, then the
// others, then all else as libp2p ranks it. An address through a relay never comes before a direct one for that reason
// alone: it comes when libp2p would dial it, but before the last of many direct addresses.
func (r *ranker) rank(addrs []ma.Multiaddr) []network.AddrDelay {
	direct, relayed := split(addrs, func(a ma.Multiaddr) bool { return !isCircuit(a) })
	group := direct
	if len(direct) == 0 {
		group = relayed
	}
	known, rest := r.known(group)
	if len(known) == 0 {
		return r.rankRelays(swarm.DefaultDialRanker(slices.Clone(addrs)))
	}
	if len(direct) > 0 {
		rest = append(rest, relayed...)
	}
	out := []network.AddrDelay{{Addr: known[0]}}
	for _, a := range known[1:] {
		out = append(out, network.AddrDelay{Addr: a, Delay: headStart})
	}
	for _, d := range swarm.DefaultDialRanker(rest) {
		out = append(out, network.AddrDelay{Addr: d.Addr, Delay: headStart + d.Delay})
	}
	return r.rankRelays(out)
}

// rankRelays puts relays that worked before direct addresses of which there are more than libp2p dials at a time.
func (r *ranker) rankRelays(all []network.AddrDelay) []network.AddrDelay {
	relays, _ := split(addrsOf(all), isCircuit)
	known, _ := r.known(relays)
	if len(known) == 0 || len(known) == len(all) {
		return all
	}
	slices.SortStableFunc(all, func(x, y network.AddrDelay) int { return cmp.Compare(x.Delay, y.Delay) })
	var at time.Duration // when the last of the relays that worked is dialed
	ahead := 0           // direct addresses that are dialed by then
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

// known returns which of addrs have worked, the newest first, and the others.
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

// split returns the addresses that are, and those that are not.
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
