package node

import (
	"context"
	"errors"
	"fmt"
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
)

// A Reservation is the state of one of the host's relays. While it stands, others reach the host through the relay.
type Reservation struct {
	Relay peer.ID
	Addrs []ma.Multiaddr // of the host, through the relay; nil while there is no reservation
	Since time.Time      // when it was made, or lost
	Until time.Time      // when it has to be renewed, which the node does; zero while there is none
	// Err is why there is none; nil at first.
	Err error

	Data     int64         // bytes that the relay passes on a connection each way; 0 if it sets no limit
	Duration time.Duration // how long a connection lasts there; 0 if it sets no limit
}

// How a host looks after its reservations.
const (
	reserveTime = 5 * time.Second  // to connect to a relay, and to reserve there
	firstAgain  = time.Second / 2  // until the next attempt; it doubles
	lastAgain   = 30 * time.Second // at most
	soonFor     = 5 * time.Minute  // after a loss, attempts are at most soonAgain apart: a relay that is restarted is back soon
	soonAgain   = time.Second
	renewAfter  = 10 * time.Second // at least, whatever the relay says
	relayPinged = 5 * time.Second  // between two pings of a relay; one that carries connections is pinged more often: care
)

// reservations keep the reservations of a host.
type reservations struct {
	host    host.Host
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup // keep
	emitter event.Emitter
	once    sync.Once // close

	emitting sync.Mutex // held while the host is notified, which may have to wait for its subscribers; before mu

	mu      sync.Mutex
	all     []Reservation
	changed chan struct{} // closed at the next change
}

// reserve begins to make reservations at relays, and to keep them, until close.
func reserve(h host.Host, relays []peer.AddrInfo) (*reservations, error) {
	emitter, err := h.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful)
	if err != nil {
		return nil, err
	}
	r := &reservations{host: h, emitter: emitter, changed: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for i, relay := range relays {
		r.all = append(r.all, Reservation{Relay: relay.ID, Since: time.Now()})
		h.ConnManager().Protect(relay.ID, "peerlane/relay")
		h.Peerstore().AddAddrs(relay.ID, relay.Addrs, peerstore.PermanentAddrTTL)
		r.running.Go(func() { r.keep(i, relay) })
	}
	return r, nil
}

func (r *reservations) close() (err error) {
	r.once.Do(func() {
		r.cancel()
		r.running.Wait()
		err = r.emitter.Close()
	})
	return err
}

// keep makes the reservation at one relay, renews it, and makes it again when it is lost. It ends when r is closed.
func (r *reservations) keep(i int, relay peer.AddrInfo) {
	wait, lost := firstAgain, time.Now()
	for r.ctx.Err() == nil {
		err := r.make(i, relay)
		made := err == nil
		if made {
			since := time.Now()
			if err = r.watch(i, relay.ID); err == nil {
				continue // it is renewed
			}
			if lost = time.Now(); lost.Sub(since) >= soonAgain { // otherwise the relay drops those that it lets in
				wait = 0
			}
		}
		if made || !r.isHeld(i) {
			r.set(i, Reservation{Relay: relay.ID, Since: time.Now(), Err: err})
		}
		r.sleep(wait)
		most := lastAgain
		if time.Since(lost) < soonFor {
			most = soonAgain
		}
		wait = min(max(2*wait, firstAgain), most)
	}
}

// isHeld reports whether there is a reservation. A reservation that could not be renewed holds until it expires.
func (r *reservations) isHeld(i int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.all[i].Until) && r.host.Network().Connectedness(r.all[i].Relay) == network.Connected
}

// make makes or renews a reservation.
func (r *reservations) make(i int, relay peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(r.ctx, reserveTime)
	defer cancel()
	if s, ok := r.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(relay.ID)
	}
	if err := r.host.Connect(network.WithForceDirectDial(ctx, "peerlane"), relay); err != nil {
		return err
	}
	made, err := client.Reserve(ctx, r.host, peer.AddrInfo{ID: relay.ID})
	if err != nil {
		return err
	}
	circuit := ma.StringCast("/p2p/" + relay.ID.String() + "/p2p-circuit")
	now := Reservation{Relay: relay.ID, Since: time.Now(), Until: made.Expiration,
		Data: int64(min(made.LimitData, 1<<63-1)), Duration: made.LimitDuration}
	for _, a := range relay.Addrs {
		now.Addrs = append(now.Addrs, a.Encapsulate(circuit))
	}
	r.set(i, now)
	return nil
}

// watch returns when the relay is lost, with the reason, or when it is time to renew the reservation, with nil.
func (r *reservations) watch(i int, relay peer.ID) error {
	r.mu.Lock()
	renew := time.Until(r.all[i].Until) / 2
	r.mu.Unlock()
	until := time.NewTimer(max(renew, renewAfter))
	defer until.Stop()
	tick := time.NewTicker(relayPinged)
	defer tick.Stop()
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
	for missing := 0; missing < careMissing; {
		select {
		case <-gone:
			return errRelayGone
		case <-until.C:
			return nil
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-tick.C:
		}
		if missing++; answersPing(r.ctx, r.host, relay) {
			missing = 0
		}
	}
	_ = r.host.Network().ClosePeer(relay) // it is of no more use
	return errRelayGone
}

var errRelayGone = errors.New("node: the connection to the relay is lost")

// sleep waits for d, or until r is closed.
func (r *reservations) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
	}
}

// set replaces a reservation, and tells the host at which addresses it can be reached.
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
	_ = r.emitter.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: addrs}) // the host is closed otherwise
}

// Reservations returns the state of each relay, in the order of Options.Relays.
func (n *Node) Reservations() []Reservation {
	if n.reservations == nil {
		return nil
	}
	n.reservations.mu.Lock()
	defer n.reservations.mu.Unlock()
	return slices.Clone(n.reservations.all)
}

// AwaitReservation waits until the host can be reached through one of its relays, and returns the reservations. It fails when each of them has
// refused, with their reasons, or with ctx's error and those of the last attempts. Without relays it returns nil at once.
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
			if isRefusal(one.Err) {
				refused++
			}
			if one.Err != nil {
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

// isRefusal reports whether a relay has answered, and does not want to.
func isRefusal(err error) bool {
	_, ok := errors.AsType[client.ReservationError](err)
	return ok
}
