package peerlane

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// A session that has lost a relayed connection is back as soon as its relay is, and the peer has its reservation again. One dial does not find
// that out: it repeats its packets ever more rarely, and a relay that has refused is not asked again until the direct addresses have failed.
const (
	againAfter = time.Second     // from the start of a dial to that of the next
	againSoon  = time.Second / 4 // the same while a relay is new
	againTime  = 2 * time.Second // for a dial, or againRTTs round trips of the lost connection
	againRTTs  = 16              // a circuit takes nine
	relayIsNew = 5 * time.Second // after it has connected: the peer may be a moment later
)

// dialAgain dials a peer whose last connection ran over a relay, again and again, until it has a connection or ctx ends.
func (d *Dialer) dialAgain(ctx context.Context, pid peer.ID) error {
	for {
		back, stop := d.watchRelays(pid)
		began, after, dial := time.Now(), againAfter, d.dial
		if d.hasNewRelay(pid) {
			after, dial = againSoon, d.dialRelayed
		} else if d.keepsRelays(pid) {
			dial = d.dialUnrelayed
		}
		err := d.dialOnce(ctx, back, pid, dial)
		over := err == nil || ctx.Err() != nil || errors.Is(err, swarm.ErrSwarmClosed)
		if !over {
			timer := time.NewTimer(after - time.Since(began))
			select {
			case <-timer.C:
			case <-back.Done():
			case <-ctx.Done():
			}
			timer.Stop()
		}
		stop()
		if over {
			return err
		}
	}
}

// dialOnce calls dial, and ends it after d.again, or when back ends.
func (d *Dialer) dialOnce(ctx, back context.Context, pid peer.ID, dial func(context.Context, peer.ID) error) error {
	bounded, cancel := context.WithTimeout(ctx, d.again)
	defer cancel()
	defer context.AfterFunc(back, cancel)()
	return dial(bounded, pid)
}

// dialRelayed dials a peer through new relays alone. The connection to another one may be dead, and delay them.
func (d *Dialer) dialRelayed(ctx context.Context, pid peer.ID) error {
	ctx = network.WithSimultaneousConnect(ctx, true, "peerlane") // without the delay that libp2p gives relays beside direct addresses
	return d.dialOnly(ctx, pid, func(a ma.Multiaddr) bool {
		relay, ok := relayIn(a)
		return ok && d.isNew(relay)
	})
}

// dialUnrelayed dials the direct addresses of a peer alone.
func (d *Dialer) dialUnrelayed(ctx context.Context, pid peer.ID) error {
	return d.dialOnly(ctx, pid, isDirect)
}

// dialOnly dials some of the peer's addresses. The others are on libp2p's backoff list meanwhile, which affects other dials as well.
func (d *Dialer) dialOnly(ctx context.Context, pid peer.ID, which func(ma.Multiaddr) bool) error {
	d.clearBackoff(pid)
	defer d.clearBackoff(pid)
	for _, a := range d.addrs(pid) {
		if !which(a) {
			d.backoff().AddBackoff(pid, a)
		}
	}
	return d.connectTo(ctx, pid)
}

// keepsRelays reports whether the host itself connects to the relays of the peer, and to none of them yet. Dials of a peer are joined: one
// more would prolong that of the host, which repeats its packets ever more rarely.
func (d *Dialer) keepsRelays(pid peer.ID) bool {
	relays := relaysIn(d.addrs(pid))
	for relay := range relays {
		if d.isConnected(relay) || !d.Host.ConnManager().IsProtected(relay, "peerlane/relay") {
			return false
		}
	}
	return len(relays) > 0
}

// hasNewRelay reports whether one of the peer's relays is new.
func (d *Dialer) hasNewRelay(pid peer.ID) bool {
	for relay := range relaysIn(d.addrs(pid)) {
		if d.isNew(relay) {
			return true
		}
	}
	return false
}

// isNew reports whether the host has connected to a relay a moment ago.
func (d *Dialer) isNew(relay peer.ID) bool {
	return slices.ContainsFunc(d.Host.Network().ConnsToPeer(relay), func(c network.Conn) bool {
		return time.Since(c.Stat().Opened) < relayIsNew
	})
}

// watchRelays returns a context that ends when the host connects to a relay of the peer.
func (d *Dialer) watchRelays(pid peer.ID) (back context.Context, stop func()) {
	relays := relaysIn(d.addrs(pid))
	back, cancel := context.WithCancel(context.Background())
	watch := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if _, ok := relays[c.RemotePeer()]; ok {
			cancel()
		}
	}}
	d.Host.Network().Notify(watch)
	return back, func() {
		d.Host.Network().StopNotify(watch)
		cancel()
	}
}
