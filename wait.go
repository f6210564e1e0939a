package peerlane

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// How long libp2p waits for one address, unless the host's options say otherwise.
const (
	privateDialTime = 5 * time.Second
	publicDialTime  = 15 * time.Second
)

// A wait bounds how long a caller waits for a connection, over all its tries; a new try does not restart it. It does not end while libp2p
// has yet to dial the last of the peer's addresses, nor while there is a connection, where each step has its own bound. A nil wait has no
// end. It is used by one goroutine.
type wait struct {
	most  time.Duration
	spent time.Duration
}

// newWait returns the wait of a caller with the given number of tries.
func (c *ClientConfig) newWait(tries int) *wait {
	if c.ConnectTimeout > math.MaxInt64/time.Duration(max(tries, 1)) {
		return &wait{most: math.MaxInt64}
	}
	return &wait{most: c.ConnectTimeout * time.Duration(tries)}
}

// isOver reports whether no more tries make sense.
func (w *wait) isOver() bool { return w.left() <= 0 }

func (w *wait) left() time.Duration { return w.most - w.spent }

// begin returns a ctx that ends when w does while there is no connection to pid, and a function that the caller must call when this wait is
// over.
func (w *wait) begin(ctx context.Context, p *pool, pid peer.ID) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	if w == nil {
		return ctx, cancel
	}
	began, left := time.Now(), w.left()
	var mu sync.Mutex
	var timer *time.Timer
	mu.Lock()
	timer = time.AfterFunc(left, func() {
		mu.Lock()
		defer mu.Unlock()
		if more := p.progress(pid, began, left); more > 0 && ctx.Err() == nil {
			timer.Reset(more)
			return
		}
		cancel()
	})
	mu.Unlock()
	return ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
		cancel()
		w.spent += time.Since(began)
	}
}

// progress returns how much longer a caller waits that began at the given time with left to go. libp2p dials eight addresses of a peer at a
// time, so it dials the ninth when one of these has failed: each further round adds to left.
func (p *pool) progress(pid peer.ID, began time.Time, left time.Duration) time.Duration {
	if len(p.dialer.paths(pid)) > 0 {
		return p.cfg.ConnectTimeout
	}
	turn, addrs := privateDialTime, 0
	for _, a := range p.dialer.addrs(pid) {
		if !p.host.Network().CanDial(pid, a) {
			continue
		}
		addrs++
		if !manet.IsPrivateAddr(a) {
			turn = publicDialTime
		}
	}
	rounds := max(addrs-1, 0) / swarm.DefaultPerPeerRateLimit
	return left + time.Duration(rounds)*turn - time.Since(began)
}

// noConnection returns the error of a caller whose wait has ended, with what its attempt has learned by then.
func (p *pool) noConnection(key poolKey, t *trail) error {
	return p.carry(key, t, p.dialer.dialError(key.peer, &Error{Op: "connect", Code: codes.Timeout, Outcome: session.NotSent,
		Err: fmt.Errorf("%w: %w", ErrUnreachable, context.DeadlineExceeded)}))
}
