package peerlane

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/budget"
	"github.com/peerlane/peerlane/internal/punch"
	"github.com/peerlane/peerlane/session"
)

// What the host sees of the network helps a client's sessions to a carrier, and to a better one:
//
//	a connection to a peer comes ──> sessions to it that are detached resume at once; relayed ones move to a direct one
//	a session gets a relayed carrier ──> it moves to a direct connection that has come meanwhile
//	the host's addresses change ──> every session is probed, or resumes at once
//	a session is relayed ─────────> a direct dial is tried from time to time
//	the host is closed ───────────> sessions that are detached end at once; the others' carriers end them
const (
	directEvery  = 30 * time.Second // between two attempts to dial a peer directly that is reached over a relay
	moveAttempts = 3                // to move to a direct connection that has come
	moveWait     = time.Second      // before the second of them
	answerTime   = 3 * time.Second  // that a connection may be silent while a carrier is opened, when the one before was lost, at most
	minAnswer    = time.Second / 2  // and at least: a relay may be far
)

// hostWatch tells a pool what its host sees.
type hostWatch struct {
	pool      *pool
	conns     *network.NotifyBundle
	addresses <-chan any   // nil: the host tells nothing
	close     func() error // of addresses
}

// watch begins to follow the host, until the pool is closed. p.mu must not be held: the host calls back under its own lock.
func (p *pool) watch() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.tasks.Add(1)
	p.mu.Unlock()
	p.book = openBook(p.host)
	w := &hostWatch{pool: p, conns: &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { p.onConnected(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { p.forgetBudget(c) },
	}}
	p.host.Network().Notify(w.conns)
	sub, err := p.host.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated), eventbus.Name("peerlane/pool"))
	if err == nil { // otherwise the host is closing
		w.addresses = sub.Out()
		w.close = sub.Close
	}
	go w.run()
}

// run follows the host's addresses. It ends when the pool is closed, or the host is.
func (w *hostWatch) run() {
	defer w.pool.tasks.Done()
	defer w.pool.book.close()
	defer w.pool.host.Network().StopNotify(w.conns)
	if w.close != nil {
		defer func() { _ = w.close() }() // nobody reads it any more
	}
	for {
		select {
		case _, open := <-w.addresses:
			if !open {
				return
			}
			w.pool.probeAll()
		case <-hostDone(w.pool.host):
			w.pool.probeAll() // their dials fail at once, for good
			return
		case <-w.pool.ctx.Done():
			return
		}
	}
}

// probeAll probes every session: the network under it may be another, or gone.
func (p *pool) probeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.open {
		s.Probe()
	}
}

// onConnected helps the sessions to the peer of a new connection. It must not block.
func (p *pool) onConnected(c network.Conn) {
	direct := !pathOf(c).Relayed
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for s, key := range p.to[c.RemotePeer()] {
		switch {
		case s.State() == session.StateDetached:
			s.Probe()
		case direct && PathOf(s).Relayed && !p.moving[s]: // a hole may give two connections
			p.moving[s] = true
			p.tasks.Go(func() { p.moveToDirect(s) })
		}
		p.careFor(key.peer)
	}
}

// moveToDirect moves a session from a relay to a direct connection that has come. The connection may need a moment before
// it can be used, and other sessions of the peer move at the same time. The session goes on over the relay if it fails.
func (p *pool) moveToDirect(s *session.Session) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.moving, s)
	}()
	wait := moveWait
	for range moveAttempts {
		ctx, cancel := context.WithTimeout(p.ctx, p.cfg.ConnectTimeout)
		err := s.ReconnectDirect(ctx)
		cancel()
		if err == nil || s.Err() != nil || !PathOf(s).Relayed {
			return
		}
		if p.sleep(s.Context(), wait, "", "") != nil {
			return
		}
		wait *= 2
	}
}

// takeDirect moves a relayed session to a direct connection that came while its carrier was being opened: onConnected found no session to move.
// It does so only if the connection answers, for the session may have left it because it is dead. p.mu is held.
func (p *pool) takeDirect(s *session.Session, key poolKey) {
	if p.closed || !PathOf(s).Relayed {
		return
	}
	conns := slices.DeleteFunc(p.host.Network().ConnsToPeer(key.peer), func(c network.Conn) bool {
		return c.IsClosed() || pathOf(c).Relayed
	})
	if len(conns) == 0 {
		return
	}
	p.tasks.Go(func() {
		if firstToAnswer(p.ctx, conns, careAnswer, p.cares.ping) == nil {
			return
		}
		p.mu.Lock()
		move := !p.closed && !p.moving[s] && PathOf(s).Relayed
		if move {
			p.moving[s] = true
		}
		p.mu.Unlock()
		if move {
			p.moveToDirect(s)
		}
	})
}

// onState follows the steps of a session, and tells the application of them.
func (p *pool) onState(key poolKey) func(*session.Session, session.StateChange) {
	hook := &pathHook{call: p.cfg.OnPath}
	return func(s *session.Session, change session.StateChange) {
		p.ends.step(s, change)
		switch change.State {
		case session.StateConnected, session.StateResumed, session.StateMigrated:
			p.mu.Lock()
			p.takeDirect(s, key)
			p.mu.Unlock()
			p.seekDirect(s, key)
		}
		if p.cfg.OnState != nil {
			p.cfg.OnState(s, change)
		}
		hook.onState(s, change)
	}
}

// seekDirect dials the peer of a relayed session directly from time to time, as long as it is on the same carrier. What
// comes of it is onConnected's.
func (p *pool) seekDirect(s *session.Session, key poolKey) {
	on := s.Conn()
	if !PathOf(s).Relayed || p.cfg.Path == AllowRelay || punch.Of(p.host) != nil { // the service does it, and better
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.tasks.Go(func() {
		for p.sleep(s.Context(), directEvery, "", "") == nil && s.Conn() == on {
			if !hasAddr(p.dialer.addrs(key.peer), isDirect) {
				continue
			}
			ctx, cancel := context.WithTimeout(p.ctx, p.openingTime())
			_ = p.dialer.dialDirect(ctx, key.peer) // the relay carries on
			cancel()
		}
	})
}

// hasOtherPath reports whether the peer of a session can be reached otherwise than over its carrier: over another connection, or another
// relay. With DirectOnly, relays do not count.
func (p *pool) hasOtherPath(s *session.Session, key poolKey) bool {
	c, ok := s.Conn().(*carrier)
	if !ok {
		return false
	}
	relays := p.cfg.Path != DirectOnly
	other := func(o network.Conn) bool { return o != c.under && !o.IsClosed() && (relays || !pathOf(o).Relayed) }
	if slices.ContainsFunc(p.host.Network().ConnsToPeer(key.peer), other) {
		return true
	}
	return relays && hasOtherRelay(p.dialer.addrs(key.peer), c.Path().Relay)
}

// suspect says that the peer of a session owes an answer on its carrier. It returns hasOtherPath.
func (p *pool) suspect(s *session.Session, key poolKey) bool {
	other := p.hasOtherPath(s, key)
	if c, ok := s.Conn().(*carrier); ok && other {
		now := time.Now().UnixNano()
		c.suspected.Store(now)
		wait := max(minAnswer, 3*s.RTT())
		strange := now-c.prepared.Load() >= int64(strangeEvery)
		if strange {
			c.prepared.Store(now)
		}
		if relay := c.Path().Relay; relay != "" {
			p.prepareRelays(key.peer, relay, wait, strange)
		} else {
			p.checkOthers(key.peer, c, wait)
			p.prepareRelays(key.peer, "", careAnswer, strange)
		}
	}
	return other
}

// checkOthers closes, in the background, the other direct connections to the peer of a suspected carrier that are as silent as the carrier is
// while the wait lasts: they may lead the same way, and a session that tried each of them would come to a relay late.
func (p *pool) checkOthers(pid peer.ID, suspected *carrier, wait time.Duration) {
	for _, o := range p.host.Network().ConnsToPeer(pid) {
		if o == suspected.under || pathOf(o).Relayed {
			continue
		}
		p.spawn(func() {
			if !areAlive(p.ctx, []network.Conn{o}, wait) && p.ctx.Err() == nil && suspected.isSilent() {
				_ = o.Close()
			}
		})
	}
}

// lostCarrier returns the carrier that a session has lost, or nil if it is not known.
func (p *pool) lostCarrier(key poolKey) *carrier {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s, k := range p.to[key.peer] {
		if c, ok := s.Conn().(*carrier); ok && k == key && s.State() == session.StateDetached {
			return c
		}
	}
	return nil
}

// reopen opens a further carrier for a session, or a dedicated stream of it. For a session that has lost its carrier, a
// relay that the policy takes only after a wait is taken at once, for it moves to a direct path when there is one; and a
// connection on which nothing of ours moves and that does not answer a ping is closed, and another one made.
func (p *pool) reopen(ctx context.Context, want session.Want, key poolKey) (net.Conn, error) {
	d := p.dialer
	var lost *carrier
	switch {
	case want.Direct:
		d.Path = DirectOnly
	case want.Lost && d.Path == PreferDirect:
		d.Path = AllowRelay
	}
	if want.Lost {
		d.lost = true
		p.choose(key.peer, nil)
		p.dropDeadRelays(key.peer)
		lost = p.lostCarrier(key)
	}
	if lost != nil {
		d.avoid = lost.Path().Relay
	}
	if lost != nil && d.backoff() != nil && hasAddr(d.addrs(key.peer), isCircuit) {
		d.again = againDirect
		if d.avoid != "" {
			d.again = max(againTime, againRTTs*lost.Path().RTT)
		}
	}
	have := slices.DeleteFunc(p.host.Network().ConnsToPeer(key.peer), func(c network.Conn) bool {
		return d.Path == DirectOnly && pathOf(c).Relayed
	})
	if len(have) == 0 || !want.Lost {
		return p.openCarrier(ctx, &d, key)
	}
	if lost.isSilent() {
		p.spawn(func() { _ = lost.under.Close() }) // it may wait for the network; the connection is of no more use
		have = slices.DeleteFunc(have, func(c network.Conn) bool { return c == lost.under })
	}
	if first := firstUsed(have); len(first) > 0 {
		wait := max(minAnswer, min(answerTime, 2*p.cfg.Heartbeat)) // after so long a silence a carrier is lost
		if len(first) < len(have) || d.avoid != "" && hasOtherRelay(d.addrs(key.peer), d.avoid) {
			wait = minAnswer // there is another way
		}
		if c, decided, err := p.openOver(ctx, &d, key, first, wait); decided {
			return c, err
		}
	}
	return p.openCarrier(ctx, &d, key)
}

// openOver opens a carrier over one of the connections to a peer, which may be dead. If they are all silent for the wait, openOver closes
// them, and decides nothing.
func (p *pool) openOver(
	ctx context.Context, d *Dialer, key poolKey, conns []network.Conn, wait time.Duration,
) (c net.Conn, decided bool, err error) {
	if len(conns) > 1 {
		if first := firstToAnswer(ctx, conns, wait, p.cares.ping); first != nil {
			p.choose(key.peer, first)
			d.chosen = func(peer.ID) network.Conn { return first }
		}
	}
	alive, stop := whileAlive(ctx, conns, wait)
	c, err = p.openCarrier(alive, d, key)
	if silent := stop(); err == nil || !silent || ctx.Err() != nil {
		return c, true, err
	}
	for _, c := range conns {
		p.spawn(func() { _ = c.Close() }) // it may wait for the network; the connection is of no more use
	}
	return nil, false, err
}

// dropDeadRelays closes, in the background, the connections to a peer's relays that do not answer a ping. No circuit can be opened over one,
// and libp2p would notice only after 30 s.
func (p *pool) dropDeadRelays(pid peer.ID) {
	for relay := range relaysIn(p.dialer.addrs(pid)) {
		p.spawn(func() { p.dropDead(relay, answerTime) })
	}
}

// dropDead closes the connections to a relay unless one gives a sign of life while the wait lasts.
func (p *pool) dropDead(relay peer.ID, wait time.Duration) {
	conns := p.host.Network().ConnsToPeer(relay)
	if len(conns) == 0 || areAlive(p.ctx, conns, wait) || p.ctx.Err() != nil {
		return
	}
	for _, c := range conns {
		_ = c.Close() // it is of no more use
	}
}

func (p *pool) openCarrier(ctx context.Context, d *Dialer, key poolKey) (net.Conn, error) {
	c, b, _, err := p.openConn(ctx, d, key.peer, sessionTag(key.tag))
	if err != nil {
		return nil, err
	}
	return newCarrier(c, b, p.host), nil
}

// openConn opens a conn on the first of tags that the peer serves, and returns its budget too. One on a circuit that is
// about to be left is of no use: it is opened anew when that is done.
func (p *pool) openConn(ctx context.Context, d *Dialer, pid peer.ID, tags ...protocol.ID) (*Conn, *budget.Budget, protocol.ID, error) {
	for {
		c, tag, err := d.open(ctx, pid, tags...)
		if err != nil {
			return nil, nil, "", err
		}
		b := p.budgetOf(c)
		left := b.Leaving()
		if left == nil {
			return c, b, tag, nil
		}
		c.resetWith(codes.Cancelled)
		select {
		case <-left:
		case <-ctx.Done():
			return nil, nil, "", d.dialError(pid, dialFailed(ctx, "connect", ctx.Err()))
		}
	}
}

// firstUsed returns the connections that libp2p takes first: the direct ones, or when there is none the relayed.
func firstUsed(conns []network.Conn) []network.Conn {
	var direct, relayed []network.Conn
	for _, c := range conns {
		if pathOf(c).Relayed {
			relayed = append(relayed, c)
		} else {
			direct = append(direct, c)
		}
	}
	if len(direct) == 0 {
		return relayed
	}
	return direct
}

// spawn runs f in a goroutine that close waits for, unless the pool is closed. p.mu is not held.
func (p *pool) spawn(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.tasks.Go(f)
	}
}
