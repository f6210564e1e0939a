package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// How connections to relays are checked.
const (
	carePing    = time.Second      // between two pings of a relay that is the only path to a peer
	careSpare   = 15 * time.Second // between two pings of a relay whose peers all have direct connections as well
	careAnswer  = 2 * time.Second  // for the answer to a ping
	careMissing = 2                // unanswered pings after which the connection to a relay is closed
)

// A care pings the relays that carry connections of the host, and closes the connections to relays that do not answer. libp2p notices a
// dead relay after 30 s, and a restarted one over QUIC only when it next sends something. Without relayed connections, a care sends
// nothing.
type care struct {
	host    host.Host
	ctx     context.Context // done when the care is closed
	cancel  context.CancelFunc
	conns   *network.NotifyBundle
	running sync.WaitGroup // watch

	mu     sync.Mutex
	relays map[peer.ID]chan struct{} // watched relays; a value makes the watch compute its interval again
	closed bool
}

func newCare(h host.Host) *care {
	c := &care{host: h, relays: make(map[peer.ID]chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.conns = &network.NotifyBundle{
		ConnectedF: func(_ network.Network, conn network.Conn) {
			if relay, ok := relayOf(conn.RemoteMultiaddr()); ok {
				c.begin(relay)
			}
		},
		DisconnectedF: func(n network.Network, conn network.Conn) {
			for _, other := range n.ConnsToPeer(conn.RemotePeer()) {
				if relay, ok := relayOf(other.RemoteMultiaddr()); ok {
					c.lookAgain(relay)
				}
			}
		},
	}
	h.Network().Notify(c.conns)
	return c
}

func (c *care) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.host.Network().StopNotify(c.conns)
	c.running.Wait()
}

// begin starts a watch for a relay unless it is watched already.
func (c *care) begin(relay peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.relays[relay] != nil {
		return
	}
	again := make(chan struct{}, 1)
	c.relays[relay] = again
	c.running.Go(func() { c.watch(relay, again) })
}

// lookAgain makes the watch of a relay compute its interval again: a peer behind the relay has lost a connection, and the relay may have
// become the only path to it.
func (c *care) lookAgain(relay peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case c.relays[relay] <- struct{}{}: // blocks if the relay is not watched
	default:
	}
}

// watch pings a relay as long as it carries connections, and until c is closed.
func (c *care) watch(relay peer.ID, again <-chan struct{}) {
	pings := pinger{host: c.host, peer: relay}
	defer pings.close()
	last, missing := time.Now(), 0
	for {
		interval := c.interval(relay)
		if interval == 0 {
			return
		}
		next := time.NewTimer(time.Until(last.Add(interval)))
		select {
		case <-next.C:
		case <-again:
			next.Stop()
			continue
		case <-c.ctx.Done():
			next.Stop()
			return
		}
		last = time.Now()
		if pings.isAnswered(c.ctx) {
			missing = 0
		} else if missing++; missing == careMissing && c.ctx.Err() == nil {
			missing = 0
			_ = c.host.Network().ClosePeer(relay) // the relay is dead
		}
	}
}

// interval returns how often to ping a relay. If the relay carries no connections, interval returns zero, and the watch must end.
func (c *care) interval(relay peer.ID) (d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.host.Network().Conns() {
		r, ok := relayOf(conn.RemoteMultiaddr())
		if !ok || r != relay {
			continue
		}
		if d = careSpare; !slices.ContainsFunc(c.host.Network().ConnsToPeer(conn.RemotePeer()), isDirect) {
			return carePing
		}
	}
	if d == 0 {
		delete(c.relays, relay)
	}
	return d
}

func isDirect(c network.Conn) bool {
	_, relayed := relayOf(c.RemoteMultiaddr())
	return !relayed
}

// relayOf returns the relay in an address, and whether it has one.
func relayOf(a ma.Multiaddr) (relay peer.ID, ok bool) {
	for _, part := range a {
		switch part.Protocol().Code {
		case ma.P_P2P:
			relay, _ = peer.IDFromBytes(part.RawValue()) // valid, because the address is a connection's
		case ma.P_CIRCUIT:
			return relay, relay != ""
		}
	}
	return "", false
}
