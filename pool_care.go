package peerlane

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/internal/alive"
	"github.com/peerlane/peerlane/internal/choice"
	"github.com/peerlane/peerlane/session"
)

// A host may have several connections to a peer: over IPv4 and IPv6, over TCP and QUIC, inside and outside the LAN, or because both sides
// have dialed. libp2p opens streams on the direct connection with the most streams, however slow it is. A client with a session to the peer
// measures the connections instead, and opens streams on the best:
//
//	a second connection comes, or a session is opened ──> care: measure, choose ── every 15 s ──┐
//	                                                        ^                                   │
//	                                                        └───────────────────────────────────┘
//	the choice changes ──> sessions move to it by hand-over, and new streams open there
//	a session has lost its carrier ──> the choice is dropped, and starts over with the connection that answers first
//
// Only the side that dialed a session moves it, so the two sides cannot disagree. A direct connection is always preferred to relayed ones,
// without measuring: see pool_watch.go.

const (
	careFirst  = time.Second      // between the first rounds
	careRounds = 4                // number of first rounds
	careEvery  = 15 * time.Second // between later ones
	careAnswer = 2 * time.Second  // for the answer to a ping
	careBusy   = 64 << 10         // bytes since the last round: the ping may have been queued
	careMost   = 8                // connections to a peer to measure
	careProbes = 5                // a session whose probes are answered moves after this number of unanswered pings
)

// cares are the choices that a pool has made between connections, by peer.
type cares struct {
	mu   sync.Mutex
	all  map[peer.ID]*care
	ping func(context.Context, network.Conn) bool // isAnswered, except in tests
}

// care is the choice between the connections to one peer. Fields without a comment belong to its goroutine.
type care struct {
	chooser  choice.Chooser[network.Conn]
	measured map[network.Conn]*measured
	chosen   network.Conn // nil: none; guarded by cares.mu
}

// measured is the state of one connection.
type measured struct {
	choice.Path
	traffic *traffic // keeps the traffic in memory
	used    int64    // by traffic, as of the last round
}

// chosen returns the connection on which to open streams to a peer, or nil if libp2p decides.
func (p *pool) chosen(pid peer.ID) network.Conn {
	p.cares.mu.Lock()
	defer p.cares.mu.Unlock()
	if c := p.cares.all[pid]; c != nil {
		return c.chosen
	}
	return nil
}

// choose sets the choice for a peer that has a care. A nil conn leaves the choice to libp2p.
func (p *pool) choose(pid peer.ID, conn network.Conn) {
	p.cares.mu.Lock()
	defer p.cares.mu.Unlock()
	if c := p.cares.all[pid]; c != nil {
		c.chosen = conn
	}
}

// chooseAfter is like choose, but returns false and changes nothing if the choice is not was.
func (p *pool) chooseAfter(pid peer.ID, was, conn network.Conn) bool {
	p.cares.mu.Lock()
	defer p.cares.mu.Unlock()
	c := p.cares.all[pid]
	if c == nil || c.chosen != was {
		return false
	}
	c.chosen = conn
	return true
}

// careFor starts a care for a peer if there is a choice between connections. p.mu is held.
func (p *pool) careFor(pid peer.ID) {
	if p.closed || len(p.rivals(pid)) < 2 {
		return
	}
	p.cares.mu.Lock()
	defer p.cares.mu.Unlock()
	if p.cares.all[pid] != nil {
		return
	}
	c := &care{measured: make(map[network.Conn]*measured)}
	p.cares.all[pid] = c
	p.tasks.Go(func() { p.care(pid, c) })
}

// rivals returns the connections to a peer between which a session may choose: the direct ones, or the relayed ones if there are none.
func (p *pool) rivals(pid peer.ID) []network.Conn {
	conns := slices.DeleteFunc(p.host.Network().ConnsToPeer(pid), func(c network.Conn) bool {
		return c.IsClosed() || !p.dialer.accepts(pathOf(c))
	})
	return firstUsed(conns)
}

// care measures the connections to a peer and moves its sessions to the best one. It ends when there are no sessions, fewer than two
// connections, or when the client is closed.
func (p *pool) care(pid peer.ID, c *care) {
	for round := 0; ; round++ {
		sessions, conns := p.sessionsTo(pid), p.rivals(pid)
		conns = atMost(conns, p.inUse(pid, sessions))
		if (len(conns) < 2 || len(sessions) == 0) && p.leaveCare(pid) {
			return
		}
		c.measure(p.ctx, conns, p.cares.ping)
		p.decide(pid, c, sessions, conns)
		wait := careEvery
		if round < careRounds {
			wait = careFirst
		}
		if p.sleep(p.ctx, wait, "", "") != nil {
			p.leaveCare(pid)
			return
		}
	}
}

// leaveCare ends the care for a peer and returns true, unless there is a choice between connections again.
func (p *pool) leaveCare(pid peer.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed && len(p.rivals(pid)) > 1 {
		if len(p.to[pid]) > 0 {
			return false
		}
	}
	p.cares.mu.Lock()
	defer p.cares.mu.Unlock()
	delete(p.cares.all, pid)
	return true
}

// sessionsTo returns the open sessions to a peer.
func (p *pool) sessionsTo(pid peer.ID) []*session.Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*session.Session
	for s := range p.to[pid] {
		if s.Err() == nil {
			all = append(all, s)
		}
	}
	return all
}

// measure pings each connection once.
func (c *care) measure(ctx context.Context, conns []network.Conn, ping func(context.Context, network.Conn) bool) {
	ctx, cancel := context.WithTimeout(ctx, careAnswer)
	defer cancel()
	var pings sync.WaitGroup
	last := c.measured
	c.measured = make(map[network.Conn]*measured, len(conns))
	for _, conn := range conns {
		m := last[conn]
		if m == nil {
			m = &measured{Path: *pathOf(conn).forChoice(), traffic: trafficOn(conn)}
			m.used = m.traffic.used()
		}
		c.measured[conn] = m
		pings.Go(func() { m.ping(ctx, conn, ping) }) // ends with ctx
	}
	pings.Wait()
}

func (m *measured) ping(ctx context.Context, conn network.Conn, ping func(context.Context, network.Conn) bool) {
	began := time.Now()
	answered := ping(ctx, conn)
	rtt, used := time.Since(began), m.traffic.used()
	if answered {
		m.Answered(rtt, used-m.used > careBusy)
		m.traffic.rtt.Store(int64(m.RTT))
	} else if !conn.IsClosed() {
		m.Unanswered()
	}
	m.used = used
}

// decide chooses a connection, and moves the sessions on other connections to it.
func (p *pool) decide(pid peer.ID, c *care, sessions []*session.Session, conns []network.Conn) {
	was, current := p.chosen(pid), p.inUse(pid, sessions)
	if c.measured[current] == nil && current != nil && !current.IsClosed() { // it came into use after the measurement: wait for the next round
		return
	}
	options := make([]choice.Option[network.Conn], len(conns))
	for i, conn := range conns {
		options[i] = choice.Option[network.Conn]{Key: conn, Path: &c.measured[conn].Path}
	}
	next := c.chooser.Next(time.Now(), current, options)
	if next == nil || !p.chooseAfter(pid, was, next) {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.ConnectTimeout)
	defer cancel()
	var moves sync.WaitGroup
	defer moves.Wait()
	for _, s := range sessions {
		on, ok := s.Conn().(*carrier)
		if !ok || on.under == next || s.State() == session.StateDetached {
			continue
		}
		if m := c.measured[on.under]; m != nil && m.Dead() && m.Silent < careProbes {
			s.Probe() // a hand-over would wait for data in flight on the connection
			continue
		}
		moves.Go(func() { _ = s.Reconnect(ctx) }) // on failure the session stays, and the next round tries again
	}
}

// atMost returns careMost of the connections: the one in use and the oldest. A peer may have opened many.
func atMost(conns []network.Conn, inUse network.Conn) []network.Conn {
	if len(conns) <= careMost {
		return conns
	}
	slices.SortStableFunc(conns, func(a, b network.Conn) int {
		switch inUse {
		case a:
			return -1
		case b:
			return 1
		}
		return a.Stat().Opened.Compare(b.Stat().Opened)
	})
	return conns[:careMost]
}

// inUse returns the connection chosen for a peer, or else the connection of its first attached session, or nil.
func (p *pool) inUse(pid peer.ID, sessions []*session.Session) network.Conn {
	if c := p.chosen(pid); c != nil {
		return c
	}
	for _, s := range sessions {
		if c, ok := s.Conn().(*carrier); ok && s.State() != session.StateDetached {
			return c.under
		}
	}
	return nil
}

// firstToAnswer returns the first of conns that answers a ping within wait, or nil.
func firstToAnswer(ctx context.Context, conns []network.Conn, wait time.Duration, ping func(context.Context, network.Conn) bool) network.Conn {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var first network.Conn
	var once sync.Once
	var pings sync.WaitGroup
	for _, c := range conns {
		pings.Go(func() { // ends with ctx
			if ping(ctx, c) {
				once.Do(func() { first = c; cancel() })
			}
		})
	}
	pings.Wait()
	return first
}

// isAnswered reports whether a ping on c is answered before ctx ends.
func isAnswered(ctx context.Context, c network.Conn) bool { return alive.Ping(ctx, c) == nil }
