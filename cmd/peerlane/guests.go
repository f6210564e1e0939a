package main

import (
	"slices"
	"sync"
	"time"

	"github.com/peerlane/peerlane/session"
)

// Bounds of the sessions of peers that have not shown the ticket. The other places of the server are for those that have.
const (
	mostGuests = 256
	guestTime  = 20 * time.Second // to show it: a get does so at once
	mostKnown  = 1024             // peers that are remembered to have shown it
)

// guests bounds the sessions of peers that have not shown the ticket: Peer IDs are free, and anybody may know the address of a sender. Each
// has a time to show it. Beyond the bound, the peer that has the most loses its oldest one.
type guests struct {
	most int
	time time.Duration

	mu     sync.Mutex
	closed bool
	known  map[string]bool
	order  []string           // of known, the oldest first
	of     map[string][]guest // by peer, the oldest first
	total  int
	ends   sync.WaitGroup // sessions that are being ended
}

// guest is one session.
type guest struct {
	session interface{ Abort() }
	timer   *time.Timer
}

func newGuests() *guests {
	return &guests{most: mostGuests, time: guestTime, known: make(map[string]bool), of: make(map[string][]guest)}
}

// onState is for peerlane.ServerConfig.OnState.
func (g *guests) onState(s *session.Session, change session.StateChange) {
	switch change.State {
	case session.StateConnected:
		g.come(s.Peer(), s)
	case session.StateEnded:
		g.leave(s.Peer(), s)
	case session.StateDetached, session.StateResumed, session.StateMigrated:
	}
}

// come counts a session, unless its peer has shown the ticket.
func (g *guests) come(peer string, s interface{ Abort() }) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.known[peer] {
		return
	}
	late := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.endLocked(peer, s)
	}
	g.of[peer] = append(g.of[peer], guest{s, time.AfterFunc(g.time, late)})
	if g.total++; g.total > g.most {
		largest := peer
		for other, all := range g.of {
			if len(all) > len(g.of[largest]) {
				largest = other
			}
		}
		g.endLocked(largest, g.of[largest][0].session)
	}
}

// leave forgets a session that has ended.
func (g *guests) leave(peer string, s interface{ Abort() }) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removeLocked(peer, s)
}

// removeLocked stops counting a session, and reports whether it was counted.
func (g *guests) removeLocked(peer string, s interface{ Abort() }) bool {
	i := slices.IndexFunc(g.of[peer], func(one guest) bool { return one.session == s })
	if i < 0 {
		return false
	}
	g.of[peer][i].timer.Stop()
	if g.of[peer] = slices.Delete(g.of[peer], i, i+1); len(g.of[peer]) == 0 {
		delete(g.of, peer)
	}
	g.total--
	return true
}

// endLocked ends a session, if it is still counted.
func (g *guests) endLocked(peer string, s interface{ Abort() }) {
	if !g.closed && g.removeLocked(peer, s) {
		g.ends.Go(s.Abort)
	}
}

// shown records that a peer has shown the ticket. Its sessions stay.
func (g *guests) shown(peer string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range slices.Clone(g.of[peer]) {
		g.removeLocked(peer, one.session)
	}
	if g.known[peer] {
		return
	}
	g.known[peer] = true
	if g.order = append(g.order, peer); len(g.order) > mostKnown {
		delete(g.known, g.order[0])
		g.order = g.order[1:]
	}
}

// close ends no more sessions, and waits for those that are being ended.
func (g *guests) close() {
	g.mu.Lock()
	g.closed = true
	for _, all := range g.of {
		for _, one := range all {
			one.timer.Stop()
		}
	}
	g.mu.Unlock()
	g.ends.Wait()
}
