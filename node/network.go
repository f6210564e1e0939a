package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"

	"github.com/peerlane/peerlane/internal/direct"
	"github.com/peerlane/peerlane/internal/netcheck"
)

// NetworkOptions are options for Network.
type NetworkOptions struct {
	// Helpers are peers, as for ParsePeer, that report where they see this host and send packets back: relays, and nodes of peerlane with
	// Options.NetworkHelper. Other libp2p hosts reveal less. At most 8.
	Helpers []string
	// Relays are relays to check, as for ParsePeer. They are helpers as well. If nil, those of Options.Relays. At most 8.
	Relays []string
}

// Limits of Network.
const (
	networkTime = 20 * time.Second // the whole check
	maxHelpers  = 8                // and the same number of relays
	resolveTime = 3 * time.Second
	relayTime   = 5 * time.Second // to connect to a relay and reserve there
	relayPings  = 3
)

// Network checks the network of this machine, which takes about 5 seconds, and 20 at most. It uses its own sockets in addition to the
// host's. It returns an error that matches ErrInvalid if an option is invalid, and an error if ctx ends. Findings that it could not make
// are unknown in the report; without helpers, those are most of them.
func (n *Node) Network(ctx context.Context, opts *NetworkOptions) (NetworkReport, error) {
	var o NetworkOptions
	if opts != nil {
		o = *opts
	}
	helpers, relays, err := n.asked(o)
	if err != nil {
		return NetworkReport{}, fmt.Errorf("node: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, networkTime)
	defer cancel()
	r := NetworkReport{HolePunch: n.punch != nil, UDPBuffers: UDPBufferAdvice()}
	var router sync.WaitGroup
	router.Go(func() { r.Router = netcheck.AskRouter(limited) })
	found := netcheck.Survey(limited, n.surveyed(limited, helpers))
	r.IPv4, r.IPv6, r.NAT64, r.Helpers = found.IPv4, found.IPv6, found.NAT64, found.Helpers
	r.Relays = n.lookAt(limited, relays) // last, because it sends from the port on which the host listens
	router.Wait()
	if err := ctx.Err(); err != nil {
		return NetworkReport{}, fmt.Errorf("node: %w", context.Cause(ctx))
	}
	return r, nil
}

// asked returns the helpers, including the relays, and the relays.
func (n *Node) asked(o NetworkOptions) (helpers, relays []peer.AddrInfo, err error) {
	if helpers, err = parsePeers("NetworkOptions.Helpers", o.Helpers); err != nil {
		return nil, nil, err
	}
	if relays, err = parsePeers("NetworkOptions.Relays", o.Relays); err != nil {
		return nil, nil, err
	}
	if o.Relays == nil && n.reservations != nil {
		relays = n.reservations.relays
	}
	return merge(slices.Concat(helpers, relays)), merge(relays), nil
}

// parsePeers parses the peers in a field of NetworkOptions.
func parsePeers(field string, texts []string) (all []peer.AddrInfo, err error) {
	if len(texts) > maxHelpers {
		return nil, invalidf("%s: %d, want at most %d", field, len(texts), maxHelpers)
	}
	for _, text := range texts {
		info, err := ParsePeer(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		if len(info.Addrs) == 0 {
			return nil, invalidf("%s: %q has no address", field, text)
		}
		all = append(all, info)
	}
	return all, nil
}

// merge returns each peer once, with all its addresses.
func merge(all []peer.AddrInfo) (merged []peer.AddrInfo) {
	for _, info := range all {
		i := slices.IndexFunc(merged, func(m peer.AddrInfo) bool { return m.ID == info.ID })
		if i < 0 {
			merged = append(merged, peer.AddrInfo{ID: info.ID})
			i = len(merged) - 1
		}
		for _, a := range info.Addrs {
			if !ma.Contains(merged[i].Addrs, a) {
				merged[i].Addrs = append(merged[i].Addrs, a)
			}
		}
	}
	return merged
}

// surveyed returns the Config of a survey about the host.
func (n *Node) surveyed(ctx context.Context, helpers []peer.AddrInfo) netcheck.Config {
	var all sync.WaitGroup
	for i := range helpers {
		all.Go(func() { helpers[i].Addrs = resolve(ctx, helpers[i]) })
	}
	all.Wait()
	c := netcheck.Config{Helpers: helpers, Self: n.ID(), Mapped: n.host.Addrs(), Listens: n.host.Network().ListenAddresses(),
		Known: func(pid peer.ID) bool { return len(n.host.Network().ConnsToPeer(pid)) > 0 }}
	if n.punch != nil {
		c.AskAt = n.punch.AskAt
	}
	return c
}

// resolve returns the addresses of a peer, with names replaced by IP addresses.
func resolve(ctx context.Context, info peer.AddrInfo) (all []ma.Multiaddr) {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	for _, a := range info.Addrs {
		if !madns.Matches(a) {
			all = append(all, a)
			continue
		}
		found, _ := madns.DefaultResolver.Resolve(ctx, a) // none on error: the helper counts as one that does not answer
		for _, one := range found {
			if at, pid := peer.SplitAddr(one); at != nil && (pid == "" || pid == info.ID) {
				all = append(all, at)
			}
		}
	}
	return all
}

// lookAt measures the round trip to relays, and checks whether the host can be reached through them. If a relay is not one of the host's
// own, lookAt makes a reservation there and gives it up afterwards.
func (n *Node) lookAt(ctx context.Context, relays []peer.AddrInfo) []NetworkRelay {
	all := make([]NetworkRelay, len(relays))
	var looking sync.WaitGroup
	for i, relay := range relays {
		looking.Go(func() { all[i] = n.lookAtOne(ctx, relay) })
	}
	looking.Wait()
	return all
}

func (n *Node) lookAtOne(ctx context.Context, relay peer.AddrInfo) NetworkRelay {
	r := NetworkRelay{ID: relay.ID}
	ctx, cancel := context.WithTimeout(ctx, relayTime)
	defer cancel()
	known := n.host.Network().Connectedness(relay.ID) == network.Connected
	if err := direct.Connect(ctx, n.host, relay); err != nil {
		r.Err = err.Error()
		return r
	}
	r.Circuits = n.circuits(relay.ID)
	if !known {
		defer func() { _ = n.host.Network().ClosePeer(relay.ID) }() // which ends the reservation
	}
	pings := ping.Ping(ctx, n.host, relay.ID)
	for range relayPings {
		if p, ok := <-pings; ok && p.Error == nil && (r.RTT == 0 || p.RTT < r.RTT) {
			r.RTT = p.RTT
		}
	}
	if err := n.reserved(ctx, relay, &r); err != nil {
		r.Err = err.Error()
	}
	return r
}

var errNoRelay = errors.New("the peer is not a relay")

// reserved fills in the relay's terms: those of the host's reservation if there is one, or else of a new one.
func (n *Node) reserved(ctx context.Context, relay peer.AddrInfo, r *NetworkRelay) error {
	own := n.Reservations()
	if i := slices.IndexFunc(own, func(one Reservation) bool { return one.Relay == relay.ID }); i >= 0 {
		r.Reserved, r.Data, r.Duration = own[i].Addrs != nil, own[i].Data, own[i].Duration
		return own[i].Err
	}
	if hops, err := n.host.Peerstore().SupportsProtocols(relay.ID, proto.ProtoIDv2Hop); err == nil && len(hops) == 0 {
		return errNoRelay
	}
	made, err := client.Reserve(ctx, n.host, peer.AddrInfo{ID: relay.ID})
	if err != nil {
		return err
	}
	r.Reserved, r.Data, r.Duration = true, int64(min(made.LimitData, 1<<63-1)), made.LimitDuration
	return nil
}

// circuits returns the number of the host's connections through a relay.
func (n *Node) circuits(relay peer.ID) (count int) {
	for _, c := range n.host.Network().Conns() {
		if r, ok := relayOf(c.RemoteMultiaddr()); ok && r == relay {
			count++
		}
	}
	return count
}
