package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/internal/alive"
)

// A replacer closes the dead connections to a peer that has connected again, as one does that has moved to another network. libp2p would
// notice after 30 s, and until then a relay opens circuits to the peer on the connection with the most streams, which is the dead one.
type replacer struct {
	host    host.Host
	ctx     context.Context // done when the replacer is closed
	cancel  context.CancelFunc
	conns   *network.NotifyBundle
	running sync.WaitGroup // check

	mu     sync.Mutex
	peers  map[peer.ID]bool // peers whose connections are being checked; true: another connection has come meanwhile
	closed bool
}

const (
	newAnswer = 10 * time.Second // for the answer to a ping on the new connection
	oldAnswer = careAnswer       // for the answer to a ping on an older one, in addition to oldRTTs
	oldRTTs   = 4                // round trips of the new connection
)

func newReplacer(h host.Host) *replacer {
	r := &replacer{host: h, peers: make(map[peer.ID]bool)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.conns = &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { r.connected(c) }}
	h.Network().Notify(r.conns)
	return r
}

func (r *replacer) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.host.Network().StopNotify(r.conns)
	r.running.Wait()
}

// connected begins a check of the older connections to a peer, if there are any.
func (r *replacer) connected(c network.Conn) {
	pid := c.RemotePeer()
	if !isDirect(c) || len(r.direct(pid)) < 2 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if _, running := r.peers[pid]; running {
		r.peers[pid] = true
		return
	}
	r.peers[pid] = false
	r.running.Go(func() {
		for again := true; again; again = r.again(pid) {
			r.check(pid)
		}
	})
}

// again reports whether another connection to a peer has come during the last check.
func (r *replacer) again(pid peer.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peers[pid] && !r.closed {
		r.peers[pid] = false
		return true
	}
	delete(r.peers, pid)
	return false
}

// check pings the newest connection to a peer, and when that has answered all others. Those that do not answer are closed.
func (r *replacer) check(pid peer.ID) {
	conns := r.direct(pid)
	if len(conns) < 2 {
		return
	}
	newest := slices.MaxFunc(conns, func(a, b network.Conn) int { return a.Stat().Opened.Compare(b.Stat().Opened) })
	ctx, cancel := context.WithTimeout(r.ctx, newAnswer)
	defer cancel()
	began := time.Now()
	if alive.Ping(ctx, newest) != nil {
		return // the peer is busy, or gone
	}
	ctx, cancel = context.WithTimeout(r.ctx, oldAnswer+oldRTTs*time.Since(began))
	defer cancel()
	var pings sync.WaitGroup
	for _, c := range conns {
		if c == newest {
			continue
		}
		pings.Go(func() { // ends with ctx
			if errors.Is(alive.Ping(ctx, c), context.DeadlineExceeded) {
				_ = c.Close() // the peer does not hear of it
			}
		})
	}
	pings.Wait()
}

// direct returns the open direct connections to a peer.
func (r *replacer) direct(pid peer.ID) []network.Conn {
	return slices.DeleteFunc(r.host.Network().ConnsToPeer(pid), func(c network.Conn) bool { return c.IsClosed() || !isDirect(c) })
}
