package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/direct"
)

// A Reservation is the state of one of the host's relays. While it is valid, others can reach the host through the relay.
type Reservation struct {
	Relay peer.ID
	Addrs []ma.Multiaddr // addresses of the host through the relay; nil without a reservation
	Since time.Time      // when the reservation was made or lost
	Until time.Time      // when the reservation expires; the node renews it before; zero without one
	// Err is why there is no reservation; nil at first.
	Err error

	Data     int64         // bytes that the relay passes in each direction of a connection; 0 if it sets no limit
	Duration time.Duration // how long the relay keeps a connection; 0 if it sets no limit
}

// How a host maintains its reservations.
const (
	reserveTime = 5 * time.Second  // to connect to a relay and reserve there
	firstAgain  = time.Second / 2  // until the next attempt, or up to a half less, at random; it doubles
	lastAgain   = 30 * time.Second // at most
	soonFor     = 5 * time.Minute  // after a loss, attempts are at most soonAgain apart: a restarted relay is back soon
	soonAgain   = time.Second      // from the start of an attempt to that of the next, as are the other pauses
	soonTime    = time.Second      // of reserveTime, for an attempt in soonFor, or soonTimes as long as the last one that succeeded
	soonTimes   = 8
	renewAfter  = 10 * time.Second // at least, regardless of the relay's expiry
	relayPinged = 5 * time.Second  // between two pings of a relay; a care pings those that carry connections more often
	foundAgain  = 10 * time.Second // after a loss, until another relay replaces a found one
	lookEvery   = time.Second      // between two looks at the machine's addresses
	servedFor   = 10 * time.Second // how long a reservation has to last, or another relay replaces a found one at once
)

// reservations maintains the reservations of a host.
type reservations struct {
	host    host.Host
	relays  []peer.AddrInfo
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup // keep, keepFound, follow
	found   bool           // the relays are found, not configured
	emitter event.Emitter
	moved   []chan struct{} // of capacity 1, for each relay: the machine's addresses have changed
	once    sync.Once       // close

	emitting sync.Mutex // held while the host is notified, which may wait for slow subscribers; locked before mu

	mu      sync.Mutex
	all     []Reservation
	changed chan struct{} // closed at the next change
}

// newReservations returns reservations for n relays.
func newReservations(h host.Host, n int) (*reservations, error) {
	emitter, err := h.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful)
	if err != nil {
		return nil, err
	}
	r := &reservations{host: h, emitter: emitter, changed: make(chan struct{}), all: make([]Reservation, n)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for range n {
		r.moved = append(r.moved, make(chan struct{}, 1))
	}
	r.running.Go(func() { r.follow(net.InterfaceAddrs) })
	return r, nil
}

// reserve starts to make reservations at relays, and to keep them until close.
func reserve(h host.Host, relays []peer.AddrInfo) (*reservations, error) {
	r, err := newReservations(h, len(relays))
	if err != nil {
		return nil, err
	}
	r.relays = relays
	for i, relay := range relays {
		r.all[i] = Reservation{Relay: relay.ID, Since: time.Now()}
		h.Peerstore().AddAddrs(relay.ID, relay.Addrs, peerstore.PermanentAddrTTL)
	}
	for i, relay := range relays {
		r.running.Go(func() { r.keep(i, relay) })
	}
	return r, nil
}

// follow looks at the machine's addresses, until r is closed. When they change, the connections to the relays may be dead. libp2p looks every
// 5 s, and tells nobody when the addresses that others are told stay the same.
func (r *reservations) follow(look func() ([]net.Addr, error)) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	was, _ := look() // none is as good as an error
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		now, err := look()
		same := func(a, b net.Addr) bool { return a.String() == b.String() }
		if err != nil || slices.EqualFunc(was, now, same) {
			continue
		}
		was = now
		for _, moved := range r.moved {
			select {
			case moved <- struct{}{}:
			default: // it is known
			}
		}
	}
}

func (r *reservations) close() (err error) {
	r.once.Do(func() {
		r.cancel()
		r.running.Wait()
		err = r.emitter.Close()
	})
	return err
}

// keep makes a reservation at a relay, renews it, and makes it again after a loss. It ends when r is closed. For a found relay, it also
// ends if the relay makes no reservation, or none that lasts for servedFor, or has been lost for foundAgain.
func (r *reservations) keep(i int, relay peer.AddrInfo) {
	r.host.ConnManager().Protect(relay.ID, "peerlane/relay")
	defer r.host.ConnManager().Unprotect(relay.ID, "peerlane/relay")
	wait, lost, served := firstAgain, time.Now(), false
	var since time.Time // when the reservation was made first; zero: there is none
	limit, tries := reserveTime, 0
	for r.ctx.Err() == nil {
		began := time.Now()
		err := r.make(i, relay, min(limit<<min(tries/4, 2), reserveTime)) // the path may be slower than it was
		made := err == nil
		tries++
		if made {
			tries = 0
			limit = min(max(soonTime, soonTimes*time.Since(began)), reserveTime)
			if since.IsZero() {
				since = time.Now()
			}
			if err = r.watch(i, relay.ID); err == nil {
				continue // time to renew
			}
			lost, began = time.Now(), time.Now()
			if lost.Sub(since) >= soonAgain { // otherwise the relay drops the hosts that it accepts
				wait = 0
			}
			served = lost.Sub(since) >= servedFor
		}
		if made || !r.isHeld(i) {
			since = time.Time{}
			r.set(i, Reservation{Relay: relay.ID, Since: time.Now(), Err: err})
			if r.found && (!served || time.Since(lost) > foundAgain) {
				return
			}
		}
		r.sleep(i, wait-rand.N(wait/2+1)-time.Since(began)) // varied: all hosts of a relay lose it at the same moment
		most := lastAgain
		if time.Since(lost) < soonFor {
			most = soonAgain
		} else {
			limit = reserveTime
		}
		wait = min(max(2*wait, firstAgain), most)
	}
}

// isHeld reports whether there is a reservation. One that could not be renewed is held until it expires.
func (r *reservations) isHeld(i int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.all[i].Until) && r.host.Network().Connectedness(r.all[i].Relay) == network.Connected
}

// make makes or renews a reservation, for which it has the given time.
func (r *reservations) make(i int, relay peer.AddrInfo, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(r.ctx, limit)
	defer cancel()
	if s, ok := r.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(relay.ID)
	}
	if err := direct.Connect(ctx, r.host, relay); err != nil {
		return err
	}
	made, err := client.Reserve(ctx, r.host, peer.AddrInfo{ID: relay.ID})
	if err != nil {
		return err
	}
	now := Reservation{Relay: relay.ID, Since: time.Now(), Until: made.Expiration,
		Data: int64(min(made.LimitData, 1<<63-1)), Duration: made.LimitDuration}
	circuit := ma.StringCast("/p2p/" + relay.ID.String() + "/p2p-circuit")
	for _, a := range r.addrsOf(relay) {
		now.Addrs = append(now.Addrs, a.Encapsulate(circuit))
	}
	r.set(i, now)
	return nil
}

// addrsOf returns the addresses of a connected relay. It replaces a /dnsaddr by the address of the connection, because libp2p does not
// resolve a /dnsaddr before /p2p-circuit.
func (r *reservations) addrsOf(relay peer.AddrInfo) []ma.Multiaddr {
	addrs, names := split(relay.Addrs, func(a ma.Multiaddr) bool { return a[0].Protocol().Code != ma.P_DNSADDR })
	if len(names) == 0 {
		return addrs
	}
	for _, c := range r.host.Network().ConnsToPeer(relay.ID) {
		if at := c.RemoteMultiaddr(); c.Stat().Direction == network.DirOutbound && !isCircuit(at) && !ma.Contains(addrs, at) {
			addrs = append(addrs, at)
		}
	}
	return addrs
}

// watch returns the reason when the relay is lost, or nil when it is time to renew the reservation.
func (r *reservations) watch(i int, relay peer.ID) error {
	r.mu.Lock()
	renew := time.Until(r.all[i].Until) / 2
	r.mu.Unlock()
	until := time.NewTimer(max(renew, renewAfter))
	defer until.Stop()
	next := time.NewTimer(relayPinged)
	defer next.Stop()
	gone := make(chan struct{}, 1)
	watch := &network.NotifyBundle{DisconnectedF: func(n network.Network, c network.Conn) {
		if c.RemotePeer() == relay && n.Connectedness(relay) != network.Connected {
			select {
			case gone <- struct{}{}:
			default:
			}
		}
	}}
	r.host.Network().Notify(watch)
	defer r.host.Network().StopNotify(watch)
	if r.host.Network().Connectedness(relay) != network.Connected {
		return errRelayGone
	}
	pings := pinger{host: r.host, peer: relay}
	defer pings.close()
	for missing := 0; missing < careMissing; {
		enough := 1
		select {
		case <-gone:
			return errRelayGone
		case <-until.C:
			return nil
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-r.moved[i]:
			enough = careMissing // it is likely to be dead
		case <-next.C:
		}
		began := time.Now()
		if missing += enough; pings.isAnswered(r.ctx) {
			missing = 0
			next.Reset(relayPinged - time.Since(began))
		} else {
			next.Reset(0) // it may be dead
		}
	}
	_ = r.host.Network().ClosePeer(relay) // the relay is dead
	return errRelayGone
}

var errRelayGone = errors.New("node: the connection to the relay is lost")

// sleep waits for d, until the machine's addresses change, or until r is closed.
func (r *reservations) sleep(i int, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.moved[i]:
	case <-r.ctx.Done():
	}
}

// set replaces a reservation, and notifies the host of its addresses through relays.
func (r *reservations) set(i int, now Reservation) {
	r.emitting.Lock()
	defer r.emitting.Unlock()
	r.mu.Lock()
	was := r.all[i]
	r.all[i] = now
	close(r.changed)
	r.changed = make(chan struct{})
	var addrs []ma.Multiaddr
	for _, one := range r.all {
		addrs = append(addrs, one.Addrs...)
	}
	r.mu.Unlock()
	if slices.EqualFunc(was.Addrs, now.Addrs, ma.Multiaddr.Equal) {
		return
	}
	_ = r.emitter.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: addrs}) // fails only if the host is closed
}

// Reservations returns the state of each relay, in the order of Options.Relays. With Options.FindRelays it returns one for each wanted
// relay, with an empty Relay until one is found.
func (n *Node) Reservations() []Reservation {
	if n.reservations == nil {
		return nil
	}
	n.reservations.mu.Lock()
	defer n.reservations.mu.Unlock()
	return slices.Clone(n.reservations.all)
}

// AwaitReservation waits until the host can be reached through one of its relays, and returns the reservations. It returns an error when
// all relays have refused, with their reasons, or when ctx ends, with ctx's error and those of the last attempts. Without relays it returns
// nil immediately.
func (n *Node) AwaitReservation(ctx context.Context) ([]Reservation, error) {
	for {
		all := n.Reservations()
		if len(all) == 0 {
			return nil, nil
		}
		n.reservations.mu.Lock()
		changed := n.reservations.changed
		n.reservations.mu.Unlock()
		var reasons []error
		refused := 0
		for _, one := range n.Reservations() {
			if one.Addrs != nil {
				return n.Reservations(), nil
			}
			if isRefusal(one.Err) && !n.reservations.found {
				refused++
			}
			switch {
			case one.Err != nil && one.Relay == "":
				reasons = append(reasons, one.Err)
			case one.Err != nil:
				reasons = append(reasons, fmt.Errorf("relay %s: %w", one.Relay, one.Err))
			}
		}
		if refused == len(all) {
			return nil, fmt.Errorf("node: %w", errors.Join(reasons...))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("node: %w: %w", context.Cause(ctx), errors.Join(reasons...))
		}
	}
}

// isRefusal reports whether the relay answered with a refusal.
func isRefusal(err error) bool {
	_, ok := errors.AsType[client.ReservationError](err)
	return ok
}
