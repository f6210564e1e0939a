package peerlane

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/pause"
)

// A session that has lost its connection is back as soon as a relay of its peer is, and the peer has its reservation again. One dial does not find
// that out: it repeats its packets ever more rarely, waits for addresses that are silent after others have refused, and does not ask a relay again
// that had no reservation.
const (
	againTime    = time.Second           // for one dial, or againRTTs round trips of the lost connection, which was relayed; the next one begins then
	againRTTs    = 16                    // a circuit takes nine
	againDirect  = 3 * time.Second       // the same when it was direct: the relay may be farther
	againSoon    = time.Second / 4       // from the start of a dial to that of the next, while a relay is new
	againRelay   = time.Second           // the same, of dials through relays alone
	againFirst   = 50 * time.Millisecond // the same at first, if a dial has failed sooner; it doubles
	againStrange = 4                     // one dial in againStrange includes relays that the host has never been connected to: the peer may have made them up
	relayIsNew   = 5 * time.Second       // after it has connected: the peer may be a moment later
	againSearch  = time.Second           // from the end of a search for the peer to the next
)

// dialAgain dials a peer that has relays again and again, until it has a connection or ctx ends.
func (d *Dialer) dialAgain(ctx context.Context, pid peer.ID) error {
	under, cancel := context.WithCancel(ctx)
	var searching sync.WaitGroup
	defer searching.Wait()
	defer cancel()
	lost, done := openLostDials(d.Host)
	defer done()
	for tries := 0; ; tries++ {
		if err := lost.take(ctx); err != nil {
			return err
		}
		back, stop := lost.watch(relaysIn(d.addrs(pid)))
		began, next := time.Now(), d.nextAttempt(pid, tries).vary()
		err := d.dialOnce(ctx, back, pid, next)
		over := err == nil || ctx.Err() != nil || errors.Is(err, swarm.ErrSwarmClosed)
		if !over && tries == 0 {
			searching.Go(func() { d.search(under, pid) })
		}
		if !over { // in the same turn, or dials that fail at once would follow each other without a pause
			timer := time.NewTimer(min(next.every, vary(againFirst<<min(tries, 6), 2)) - time.Since(began))
			select {
			case <-timer.C:
			case <-back.Done():
			case <-ctx.Done():
			}
			timer.Stop()
		}
		stop()
		lost.leave(err == nil)
		if over {
			return err
		}
	}
}

// An attempt is one dial of dialAgain.
type attempt struct {
	dial  func(context.Context, peer.ID) error
	limit time.Duration // of the dial
	every time.Duration // from its start to that of the next
}

// vary shortens an attempt at random. Those who have lost the same relay at the same moment do not come back together.
func (a attempt) vary() attempt {
	a.limit, a.every = vary(a.limit, 4), vary(a.every, 2)
	return a
}

// vary returns d, or up to a given part of it less.
func vary(d time.Duration, part int64) time.Duration { return d - rand.N(d/time.Duration(part)+1) }

// nextAttempt returns what to dial. If a relay of the peer is new, that is the peer through new relays alone: the connection to another relay may be
// dead, and delay the dial. If no relay is connected, it is the peer and its relays. Otherwise it is the peer through the connected relays, and each
// third time at all its addresses.
func (d *Dialer) nextAttempt(pid peer.ID, tries int) attempt {
	relays := relaysIn(d.addrs(pid))
	longer := d.again << min(tries/4, 2) // the path may be slower than the lost one
	switch {
	case hasRelay(relays, d.isNew):
		return attempt{d.dialRelayed(d.isNew), d.again, againSoon}
	case !hasRelay(relays, d.isConnected):
		return attempt{d.dialAway(tries%againStrange == 0), d.again, d.again}
	case tries%3 > 0:
		return attempt{d.dialRelayed(d.isConnected), longer, againRelay}
	}
	return attempt{d.dial, longer, d.again}
}

// search searches for a peer until ctx ends: it may be reachable at other addresses now, and one of the dials is too short for a search. The host adds
// what it finds to the addresses that are dialed.
func (d *Dialer) search(ctx context.Context, pid peer.ID) {
	host, ok := d.Host.(routing.PeerRouting)
	for ok && ctx.Err() == nil {
		_, _ = host.FindPeer(ctx, pid) // the dials tell
		_ = pause.For(ctx, againSearch)
	}
}

func hasRelay(relays map[peer.ID][]ma.Multiaddr, is func(peer.ID) bool) bool {
	for relay := range relays {
		if is(relay) {
			return true
		}
	}
	return false
}

// dialOnce makes an attempt, and ends it at its limit, or when back ends.
func (d *Dialer) dialOnce(ctx, back context.Context, pid peer.ID, a attempt) error {
	bounded, cancel := context.WithTimeout(ctx, a.limit)
	defer cancel()
	defer context.AfterFunc(back, cancel)()
	return a.dial(bounded, pid)
}

// dialRelayed returns a function that dials a peer through some relays alone.
func (d *Dialer) dialRelayed(through func(peer.ID) bool) func(context.Context, peer.ID) error {
	return func(ctx context.Context, pid peer.ID) error {
		ctx = network.WithSimultaneousConnect(ctx, true, "peerlane") // without the delay that libp2p gives relays beside direct addresses
		return d.dialOnly(ctx, pid, func(a ma.Multiaddr) bool {
			relay, ok := relayIn(a)
			return ok && through(relay)
		})
	}
}

// dialAway returns a function that dials the direct addresses of a peer, and its relays. It skips relays that the host has never been connected to
// unless strange is true. Relays that the host itself connects to are left to it: libp2p joins dials, and one more would prolong that of the host.
func (d *Dialer) dialAway(strange bool) func(context.Context, peer.ID) error {
	return func(ctx context.Context, pid peer.ID) error {
		under, cancel := context.WithCancel(ctx)
		var tasks sync.WaitGroup
		defer tasks.Wait()
		defer cancel()
		n := 0
		for relay, addrs := range relaysIn(d.addrs(pid)) {
			if !strange && !d.isKnown(relay) {
				continue
			}
			if n++; n > swarm.DefaultPerPeerRateLimit || d.Host.ConnManager().IsProtected(relay, "peerlane/relay") {
				continue
			}
			d.clearBackoff(relay)
			tasks.Go(func() { d.connectToRelay(under, peer.AddrInfo{ID: relay, Addrs: addrs}) })
		}
		err := d.dialOnly(ctx, pid, isDirect)
		if err != nil {
			tasks.Wait()
		}
		return err
	}
}

// isKnown reports whether the host has been connected to a relay before.
func (d *Dialer) isKnown(relay peer.ID) bool {
	protocols, _ := d.Host.Peerstore().GetProtocols(relay) // of identify; without any, the relay has not answered
	return len(protocols) > 0
}

// connectToRelay connects to a relay, for lostDials.watch to see. The relay is searched for only if it has no address: there is a dial each second.
func (d *Dialer) connectToRelay(ctx context.Context, relay peer.AddrInfo) {
	d.Host.Peerstore().AddAddrs(relay.ID, relay.Addrs, peerstore.TempAddrTTL)
	if len(d.Host.Peerstore().Addrs(relay.ID)) > 0 {
		_, _ = d.Host.Network().DialPeer(ctx, relay.ID)
		return
	}
	_ = d.Host.Connect(ctx, relay)
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

// isNew reports whether the host has connected to a relay a moment ago.
func (d *Dialer) isNew(relay peer.ID) bool {
	return slices.ContainsFunc(d.Host.Network().ConnsToPeer(relay), func(c network.Conn) bool {
		return time.Since(c.Stat().Opened) < relayIsNew
	})
}
