package node

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
)

// How the connections to relays are checked.
const (
	carePing    = time.Second     // between two pings of a relay that carries connections of the host
	careAnswer  = 2 * time.Second // for the answer to a ping
	careMissing = 2               // unanswered pings after which the connection to a relay is closed
)

// A care pings the relays that carry connections of a host, and closes the connections to those that do not answer. libp2p notices a relay that
// is gone after 30 s, and over QUIC one that has restarted only when it next sends something. It costs nothing while no connection is relayed.
type care struct {
	host    host.Host
	ctx     context.Context // is over when the care is closed
	cancel  context.CancelFunc
	conns   *network.NotifyBundle
	running sync.WaitGroup // watch

	mu     sync.Mutex
	relays map[peer.ID]bool // those that are watched
	closed bool
}

func newCare(h host.Host) *care {
	c := &care{host: h, relays: make(map[peer.ID]bool)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.conns = &network.NotifyBundle{ConnectedF: func(_ network.Network, conn network.Conn) {
		if relay, ok := relayOf(conn.RemoteMultiaddr()); ok {
			c.begin(relay)
		}
	}}
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

// begin watches a relay unless somebody does.
func (c *care) begin(relay peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.relays[relay] {
		return
	}
	c.relays[relay] = true
	c.running.Go(func() { c.watch(relay) })
}

// watch pings a relay as long as it carries connections. It ends before that when c is closed.
func (c *care) watch(relay peer.ID) {
	tick := time.NewTicker(carePing)
	defer tick.Stop()
	missing := 0
	for {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
		if !c.goesOn(relay) {
			return
		}
		if answersPing(c.ctx, c.host, relay) {
			missing = 0
		} else if missing++; missing == careMissing && c.ctx.Err() == nil {
			missing = 0
			_ = c.host.Network().ClosePeer(relay) // it is of no more use
		}
	}
}

// goesOn reports whether a relay carries connections, and ends its watch otherwise.
func (c *care) goesOn(relay peer.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.host.Network().Conns() {
		if r, ok := relayOf(conn.RemoteMultiaddr()); ok && r == relay {
			return true
		}
	}
	delete(c.relays, relay)
	return false
}

// answersPing reports whether a peer that is connected answers a ping, be it with a refusal.
func answersPing(ctx context.Context, h host.Host, pid peer.ID) bool {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "peerlane"), careAnswer)
	defer cancel()
	<-ping.Ping(ctx, h, pid) // is closed when ctx is over
	return ctx.Err() == nil
}

// relayOf returns the relay that an address leads through, and whether it leads through one.
func relayOf(a ma.Multiaddr) (relay peer.ID, ok bool) {
	for _, part := range a {
		switch part.Protocol().Code {
		case ma.P_P2P:
			relay, _ = peer.IDFromBytes(part.RawValue()) // of a connection: it is valid
		case ma.P_CIRCUIT:
			return relay, relay != ""
		}
	}
	return "", false
}
