package peerlane

import (
	"container/list"
	"context"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// A host whose network is down loses all its peers at the same moment. To bound its effort, dials of lost peers take turns. A dial that succeeds shows
// that the network is back: it makes room for one more, which doubles the number in the time of a dial.
const (
	leastTurns = 128  // dials of lost peers that a host may have under way
	mostTurns  = 1024 // the same while dials succeed
)

// lostDials schedules one host's dials of lost peers.
type lostDials struct {
	conns *network.NotifyBundle
	users int // callers of openLostDials; guarded by lostDialsOf

	mu      sync.Mutex
	room    int       // the most turns at a time
	running int       // current turns
	waiting list.List // of chan struct{}, for a turn, the oldest first; closed with it
	relays  map[peer.ID]map[*relayWatch]struct{}
}

// A relayWatch waits for a connection to one of a lost peer's relays.
type relayWatch struct {
	back context.CancelFunc
}

// lostDialsOf holds the lostDials of each host that has some. The key is the Network because several host.Host values may share one.
var lostDialsOf = struct {
	sync.Mutex
	byHost map[network.Network]*lostDials
}{byHost: make(map[network.Network]*lostDials)}

// openLostDials returns the lostDials of a host. The caller must call done.
func openLostDials(h host.Host) (l *lostDials, done func()) {
	n := h.Network()
	lostDialsOf.Lock()
	defer lostDialsOf.Unlock()
	l = lostDialsOf.byHost[n]
	if l == nil {
		l = &lostDials{room: leastTurns, relays: make(map[peer.ID]map[*relayWatch]struct{})}
		l.conns = &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { l.onConnected(c.RemotePeer()) }}
		n.Notify(l.conns)
		lostDialsOf.byHost[n] = l
	}
	l.users++
	return l, func() {
		lostDialsOf.Lock()
		defer lostDialsOf.Unlock()
		if l.users--; l.users == 0 {
			delete(lostDialsOf.byHost, n)
			n.StopNotify(l.conns)
		}
	}
}

// inTurn returns a function that dials a lost peer once, in its turn.
func (d *Dialer) inTurn(dial func(context.Context, peer.ID) error) func(context.Context, peer.ID) error {
	return func(ctx context.Context, pid peer.ID) error {
		l, done := openLostDials(d.Host)
		defer done()
		if err := l.take(ctx); err != nil {
			return err
		}
		err := dial(ctx, pid)
		l.leave(err == nil)
		return err
	}
}

// leave ends a turn, after a dial that has succeeded or failed.
func (l *lostDials) leave(succeeded bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if succeeded {
		l.room = min(l.room+1, mostTurns)
	} else {
		l.room = max(l.room-1, leastTurns)
	}
	l.leaveLocked()
}

// take waits for a turn, which leave ends.
func (l *lostDials) take(ctx context.Context) error {
	l.mu.Lock()
	if l.running < l.room {
		l.running++
		l.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	place := l.waiting.PushBack(turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-turn: // it came meanwhile
		l.leaveLocked()
	default:
		l.waiting.Remove(place)
	}
	return ctx.Err()
}

// leaveLocked ends a turn, and begins the next ones.
func (l *lostDials) leaveLocked() {
	l.running--
	for l.running < l.room && l.waiting.Len() > 0 {
		close(l.waiting.Remove(l.waiting.Front()).(chan struct{}))
		l.running++
	}
}

// watch returns a context that ends when the host connects to one of relays.
func (l *lostDials) watch(relays map[peer.ID][]ma.Multiaddr) (back context.Context, stop func()) {
	back, cancel := context.WithCancel(context.Background())
	w := &relayWatch{back: cancel}
	l.mu.Lock()
	defer l.mu.Unlock()
	for relay := range relays {
		if l.relays[relay] == nil {
			l.relays[relay] = make(map[*relayWatch]struct{})
		}
		l.relays[relay][w] = struct{}{}
	}
	return back, func() {
		cancel()
		l.mu.Lock()
		defer l.mu.Unlock()
		for relay := range relays {
			if delete(l.relays[relay], w); len(l.relays[relay]) == 0 {
				delete(l.relays, relay)
			}
		}
	}
}

// onConnected ends the watches for a relay. It must not block.
func (l *lostDials) onConnected(relay peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.relays[relay] {
		w.back()
	}
}
