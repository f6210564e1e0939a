package peerlane

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// libp2p dials a peer through one relay after the other, and one that is dead delays the next by 5 s. A Dialer connects to relays at the same
// time, and dials through those that are connected.

// strangeRelays returns the relays of a peer, with their addresses, eight at most, if none of them is connected.
func (d *Dialer) strangeRelays(pid peer.ID) map[peer.ID][]ma.Multiaddr {
	relays := relaysIn(d.addrs(pid))
	for relay := range relays {
		if d.isConnected(relay) || d.backoff() == nil {
			return nil
		}
	}
	for relay := range relays {
		if len(relays) > swarm.DefaultPerPeerRateLimit {
			delete(relays, relay)
		}
	}
	return relays
}

// dialRelays dials the direct addresses of a peer and, as soon as one of the relays is connected, those through it. The others follow when
// those fail, or after headStartTime.
func (d *Dialer) dialRelays(ctx context.Context, pid peer.ID, relays map[peer.ID][]ma.Multiaddr) error {
	under, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	direct := make(chan error, 1)
	if all := d.addrs(pid); hasAddr(all, isDirect) {
		for _, a := range all {
			if isCircuit(a) {
				d.backoff().AddBackoff(pid, a)
			}
		}
		tasks.Go(func() { direct <- d.connectTo(under, pid) })
	}
	ready := make(chan bool, len(relays))
	for relay, addrs := range relays {
		tasks.Go(func() {
			began := time.Now()
			err := d.Host.Connect(under, peer.AddrInfo{ID: relay, Addrs: addrs})
			trailOf(ctx).failed(true, began, err)
			ready <- err == nil
		})
	}
	for waiting := len(relays); waiting > 0; {
		select {
		case err := <-direct:
			if err == nil {
				d.clearBackoff(pid)
				return nil
			}
		case connected := <-ready:
			if waiting--; connected {
				waiting = 0
			}
		case <-ctx.Done():
			waiting = 0 // the dial below returns at once
		}
	}
	d.clearBackoff(pid)
	first, others := d.throughConnected(pid)
	return d.dialFirst(ctx, ctx, pid, first, others)
}

// throughConnected returns the direct addresses of a peer and those through relays that are connected, and the others.
func (d *Dialer) throughConnected(pid peer.ID) (first, others []ma.Multiaddr) {
	for _, a := range d.addrs(pid) {
		if relay, ok := relayIn(a); !ok || d.isConnected(relay) {
			first = append(first, a)
		} else {
			others = append(others, a)
		}
	}
	return first, others
}

// otherRelays returns the addresses of the peer through relays that are not to avoid, and the others. The relays that are connected come
// alone: libp2p tries one relay after the other, and each that is dead delays the next one by 5 s.
func (d *Dialer) otherRelays(pid peer.ID) (first, others []ma.Multiaddr) {
	if d.backoff() == nil {
		return nil, nil
	}
	all := d.addrs(pid)
	ready := false
	for relay := range relaysIn(all) {
		ready = ready || relay != d.avoid && d.isConnected(relay)
	}
	for _, a := range all {
		if relay, ok := relayIn(a); ok && relay != d.avoid && (!ready || d.isConnected(relay)) {
			first = append(first, a)
		} else {
			others = append(others, a)
		}
	}
	return first, others
}

func (d *Dialer) isConnected(pid peer.ID) bool {
	return d.Host.Network().Connectedness(pid) == network.Connected
}

// relaysIn returns the relays that addrs lead through, with their own addresses.
func relaysIn(addrs []ma.Multiaddr) map[peer.ID][]ma.Multiaddr {
	relays := make(map[peer.ID][]ma.Multiaddr)
	for _, a := range addrs {
		relay, ok := relayIn(a)
		if !ok {
			continue
		}
		at, _ := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_P2P })
		if len(at) > 0 {
			relays[relay] = append(relays[relay], at)
		} else if relays[relay] == nil {
			relays[relay] = []ma.Multiaddr{} // its addresses are known otherwise
		}
	}
	return relays
}

// hasOtherRelay reports whether one of addrs leads through a relay, and another one than not.
func hasOtherRelay(addrs []ma.Multiaddr, not peer.ID) bool {
	return hasAddr(addrs, func(a ma.Multiaddr) bool {
		relay, ok := relayIn(a)
		return ok && relay != not
	})
}

// isOvertaken reports whether a dial failed because another one was opening a connection through the relay. If the context of the other one had
// ended, libp2p has dropped its connection. The error has a text and no value of its own.
func isOvertaken(err error) bool {
	dial, ok := errors.AsType[*swarm.DialError](err)
	return ok && slices.ContainsFunc(dial.DialErrors, func(e swarm.TransportError) bool {
		return isCircuit(e.Address) && e.Cause != nil && strings.Contains(e.Cause.Error(), "concurrent active dial")
	})
}
