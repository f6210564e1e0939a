package peerlane

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// A trail records the dials and the last connection of one attempt to reach a peer, for an Explanation. The ctx of the attempt has it.
type trail struct {
	began time.Time

	mu    sync.Mutex
	dials []dialed     // at most maxExplainedDials
	conn  network.Conn // the last one on which a stream was opened; nil: none
}

// A dialed is a failed dial of one address.
type dialed struct {
	addr  ma.Multiaddr // nil: libp2p names none
	relay bool         // it is a relay's
	at    time.Time
	took  time.Duration
	times int
	cause error
}

// maxExplainedDials bounds the dials that are remembered of one attempt.
const maxExplainedDials = 24

type trailKey struct{}

// withTrail returns ctx and its trail. If ctx has none, it adds one.
func withTrail(ctx context.Context) (context.Context, *trail) {
	if t := trailOf(ctx); t != nil {
		return ctx, t
	}
	t := &trail{began: time.Now()}
	return context.WithValue(ctx, trailKey{}, t), t
}

// trailOf returns the trail in ctx, or nil.
func trailOf(ctx context.Context) *trail {
	t, _ := ctx.Value(trailKey{}).(*trail)
	return t
}

// failed records that a dial of the peer, or of one of its relays, has failed.
func (t *trail) failed(relay bool, began time.Time, err error) {
	if t == nil || err == nil {
		return
	}
	took := time.Since(began)
	t.mu.Lock()
	defer t.mu.Unlock()
	dial, ok := errors.AsType[*swarm.DialError](err)
	if !ok || len(dial.DialErrors) == 0 {
		if !errors.Is(err, context.Canceled) { // it was given up, for another one
			t.addLocked(dialed{nil, relay, began, took, 1, err})
		}
		return
	}
	for _, e := range dial.DialErrors {
		if e.Cause != swarm.ErrDialBackoff { // a wrapped one is that of a relay; this one means that the address was skipped on purpose
			t.addLocked(dialed{e.Address, relay, began, took, 1, e.Cause})
		}
	}
}

// watch records connections to a peer, until done is called with the error of the dial. A connection that a relay cuts immediately is no longer in
// the host's list by then.
func (t *trail) watch(n network.Network, pid peer.ID) (done func(*error)) {
	if t == nil {
		return func(*error) {}
	}
	began := time.Now()
	conns := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if c.RemotePeer() == pid {
			t.on(c)
		}
	}}
	n.Notify(conns)
	return func(err *error) {
		n.StopNotify(conns)
		t.failed(false, began, *err)
	}
}

// addLocked adds a dial, in the place of the last one of the same address.
func (t *trail) addLocked(d dialed) {
	for i := range t.dials {
		old := &t.dials[i]
		if old.relay == d.relay && (old.addr == nil && d.addr == nil || old.addr != nil && d.addr != nil && old.addr.Equal(d.addr)) {
			d.times += old.times
			*old = d
			return
		}
	}
	if len(t.dials) < maxExplainedDials {
		t.dials = append(t.dials, d)
	}
}

// on records the connection on which a stream was opened.
func (t *trail) on(c network.Conn) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conn = c
}

// all returns the dials, and the last connection.
func (t *trail) all() ([]dialed, network.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]dialed(nil), t.dials...), t.conn
}
