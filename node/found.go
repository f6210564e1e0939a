package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Limits for found relays.
const (
	maxFindRelays   = 16               // the largest Options.FindRelays
	maxRelayAddrs   = 4                // addresses to use of a relay
	maxTried        = 256              // relays to remember
	triedFor        = 10 * time.Minute // until the host tries a failed relay again
	findRelaysTime  = time.Minute      // for one search
	findRelaysAgain = 5 * time.Second  // between two
)

// relaySources returns the discoveries that find relays.
func relaySources(kinds []Discovery) (sources []RelaySource) {
	for _, d := range kinds {
		if s, ok := d.(RelaySource); ok {
			sources = append(sources, s)
		}
	}
	return sources
}

// candidates are relays that were found. Each is used for one reservation at a time.
type candidates struct {
	sources []RelaySource
	n       int // how many relays are wanted
	inUse   func(peer.ID) bool
	turn    chan struct{} // holds a token while the fields below are free; one keepFound uses them at a time

	found []peer.AddrInfo
	tried map[peer.ID]time.Time
}

// reserveFound starts to make n reservations at relays that sources find, and to keep them until close.
func reserveFound(h host.Host, n int, sources []RelaySource) (*reservations, error) {
	r, err := newReservations(h, n)
	if err != nil {
		return nil, err
	}
	r.found = true
	c := &candidates{sources: sources, n: n, inUse: r.uses, turn: make(chan struct{}, 1), tried: make(map[peer.ID]time.Time)}
	c.turn <- struct{}{}
	for i := range n {
		r.all[i].Since = time.Now()
		r.running.Go(func() { r.keepFound(i, c) })
	}
	return r, nil
}

// keepFound keeps a reservation, at one relay after another. It ends when r is closed.
func (r *reservations) keepFound(i int, c *candidates) {
	for r.ctx.Err() == nil {
		relay, err := c.next(r.ctx)
		if err != nil {
			r.set(i, Reservation{Since: time.Now(), Err: err})
			r.sleep(i, findRelaysAgain)
			continue
		}
		r.keep(i, relay)
	}
}

// uses reports whether the host has a reservation at a relay, or is making one.
func (r *reservations) uses(relay peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.all, func(one Reservation) bool { return one.Relay == relay })
}

var errNoneFound = errors.New("no further relay was found")

// next returns a relay that was not tried recently.
func (c *candidates) next(ctx context.Context) (peer.AddrInfo, error) {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return peer.AddrInfo{}, ctx.Err()
	}
	defer func() { c.turn <- struct{}{} }()
	if relay, ok := c.take(); ok {
		return relay, nil
	}
	ctx, cancel := context.WithTimeout(ctx, findRelaysTime)
	defer cancel()
	var errs []error
	for _, s := range c.sources {
		found, err := s.FindRelays(ctx, 2*c.n) // some may refuse
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.found = append(c.found, found[:min(len(found), 2*c.n)]...)
		if relay, ok := c.take(); ok {
			return relay, nil
		}
	}
	return peer.AddrInfo{}, errors.Join(append(errs, errNoneFound)...)
}

// take returns a found relay that was not tried recently.
func (c *candidates) take() (relay peer.AddrInfo, ok bool) {
	for id, at := range c.tried {
		if time.Since(at) > triedFor {
			delete(c.tried, id)
		}
	}
	for len(c.found) > 0 {
		relay, c.found = c.found[0], c.found[1:]
		relay.Addrs = relayAddrs(relay.Addrs)
		_, tried := c.tried[relay.ID]
		if tried || c.inUse(relay.ID) || len(relay.Addrs) == 0 || len(c.tried) == maxTried {
			continue
		}
		c.tried[relay.ID] = time.Now()
		return relay, true
	}
	return peer.AddrInfo{}, false
}

// relayAddrs returns the addresses of a relay to pass on to peers: public ones if it has any.
func relayAddrs(all []ma.Multiaddr) []ma.Multiaddr {
	direct := slices.DeleteFunc(slices.Clone(all), func(a ma.Multiaddr) bool { return isCircuit(a) || manet.IsIPUnspecified(a) })
	for _, better := range []func(ma.Multiaddr) bool{manet.IsPublicAddr, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) }} {
		if some := ma.FilterAddrs(direct, better); len(some) > 0 {
			direct = some
			break
		}
	}
	return direct[:min(len(direct), maxRelayAddrs)]
}
