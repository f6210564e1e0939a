package session

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// When all places for sessions are taken and a peer with few sessions wants one, other sessions are ended to make room, in this order:
//
//	unused: opened a while ago, never used, and of a peer that has not been served before
//	detached
//	idle
//	still: with open streams on which nothing has moved for long
//
// Among these, sessions of the peer, or the subnet, with the most sessions go first, and of its sessions the one that has been in this state longest.
// That peer must have more sessions than the other will have then. For an unused session, as many are enough; for a still one, it must have
// more by a newcomer's part. A session with other work in flight is never ended.

const (
	reliefPart = 64              // one place in reliefPart is made free at a time, so that searches are rare
	reliefWait = 2 * time.Second // for sessions that are being ended

	// A session does not count as unused before it is reliefYoung old: the first call may be under way.
	reliefYoung = 2 * time.Second

	// A session with an open stream counts as still once nothing has moved on it for reliefStill.
	reliefStill = 30 * time.Second
	stillPart   = 128 // a peer, or a subnet, keeps one place in stillPart for still sessions: a newcomer's part, see package fair
)

// A tenant is a session with a place.
type tenant interface {
	// holder returns the peer's part.
	holder() *fair.Holder
	// use returns how the session is used, and since when.
	use() (use, time.Time)
	// makeRoom ends the session, or reports that it stays, because it is in use again.
	makeRoom() (stays bool)
	// isAbandoned reports whether the session has lost its carrier, and when, and no handler runs in it.
	isAbandoned() (since time.Time, is bool)
	// abandon ends the session if it is abandoned.
	abandon()
}

// A use is how a session is used: the least first.
type use int

const (
	unused   use = iota // never, by a peer that has not been served before
	detached            // it has lost its carrier
	idle                // nothing is in flight
	still               // nothing but streams on which nothing moves
	busy
)

// A spare is a session that may be ended.
type spare struct {
	tenant
	use   use
	lead  int64 // of its peer over the one who wants a place
	needs int64 // the lead must be greater for the session to be ended
	since time.Time
}

// register makes a session known to the quota, until unregister.
func (q *Quota) register(s tenant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open == nil {
		q.open = make(map[any]map[tenant]struct{})
	}
	subnet := s.holder().Subnet()
	if q.open[subnet] == nil {
		q.open[subnet] = make(map[tenant]struct{})
	}
	q.open[subnet][s] = struct{}{}
}

// linger makes the quota expect no place from a session that has ended, before unregister: functions of the application have yet to return.
func (q *Quota) linger(s tenant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forgetLocked(s)
}

// forgetLocked forgets a session that has ended.
func (q *Quota) forgetLocked(s tenant) {
	subnet := s.holder().Subnet()
	delete(q.open[subnet], s)
	if len(q.open[subnet]) == 0 {
		delete(q.open, subnet)
	}
	delete(q.leaving, s)
}

// unregister releases the place of a session that has ended.
func (q *Quota) unregister(s tenant) {
	s.holder().Give(fair.Sessions, 1)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forgetLocked(s)
	q.wakeLocked()
}

// givePlace releases the place of a session that has not come to be.
func (q *Quota) givePlace(h *fair.Holder) {
	h.Give(fair.Sessions, 1)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wakeLocked()
}

// wakeLocked wakes those who wait for a place.
func (q *Quota) wakeLocked() {
	if q.freed != nil {
		close(q.freed)
		q.freed = nil
	}
}

// takePlace takes a place for a session. If there is none and the peer has few, it ends sessions of others and waits for their places.
func (q *Quota) takePlace(part *QuotaPart) frame.Failure {
	limit := time.Now().Add(reliefWait)
	for {
		freed := q.nextFreed()
		switch part.holder.Take(fair.Sessions, 1) {
		case fair.Granted:
			return frame.Failure{}
		case fair.Full:
			if q.relieve(part.holder) && waitUntil(freed, limit) {
				continue
			}
		}
		return part.take(fair.Sessions, 1)
	}
}

// nextFreed returns a channel that is closed when the next session has ended.
func (q *Quota) nextFreed() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.freed == nil {
		q.freed = make(chan struct{})
	}
	return q.freed
}

// waitUntil waits for c to be closed, and reports false once the limit has come.
func waitUntil(c <-chan struct{}, limit time.Time) bool {
	timer := time.NewTimer(time.Until(limit))
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}

// relieve begins to end sessions for a peer that wants a place. It reports whether places are about to become free.
func (q *Quota) relieve(wants *fair.Holder) bool {
	q.relieving.Lock()
	defer q.relieving.Unlock()
	q.mu.Lock()
	some := len(q.leaving) > 0
	q.mu.Unlock()
	if some {
		return true // if they are too few, their ends wake who wants more
	}
	others, own := q.vain.leaves(wants)
	if !others && !own {
		return false
	}
	left := max(1, q.MaxSessions/reliefPart)
	ending := make(map[any]int64) // sessions that are being ended, by whose they are
	for _, c := range q.spares(wants, others) {
		whose := c.holder().Side(wants)
		if !c.mayEnd(ending[whose]) || !q.letGo(c.tenant) {
			continue
		}
		some = true
		ending[whose]++
		go func() { // ends when the session has ended, after reliefWait/2 at most
			if c.makeRoom() {
				q.keep(c.tenant)
			}
		}()
		if left--; left == 0 {
			break
		}
	}
	return some
}

// mayEnd reports whether the session may be ended in addition to a number of others of the same side.
func (c *spare) mayEnd(others int64) bool {
	return c.use != busy && c.lead-others > c.needs
}

// letGo notes that a session is being ended to make room. It reports false if the session has already ended.
func (q *Quota) letGo(s tenant) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, open := q.open[s.holder().Subnet()][s]; !open {
		return false
	}
	if q.leaving == nil {
		q.leaving = make(map[tenant]struct{})
	}
	q.leaving[s] = struct{}{}
	return true
}

// keep notes that a session is no longer being ended because it is in use again. For a session that ends, unregister does this once its place is
// free; if keep did it, those who wait for the place would have others ended.
func (q *Quota) keep(s tenant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, open := q.leaving[s]; open {
		delete(q.leaving, s)
		q.wakeLocked()
	}
}

// tenants returns the sessions with a place.
func (q *Quota) tenants() (all []tenant) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, of := range q.open {
		all = slices.AppendSeq(all, maps.Keys(of))
	}
	return all
}

// tenantsOf returns those of a subnet.
func (q *Quota) tenantsOf(subnet any) []tenant {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Keys(q.open[subnet]))
}

// spares returns the sessions that may be ended for a peer that wants a place, in the order in which they should end. It looks at all
// sessions, or only at those of the peer's subnet. If it finds none, it remembers for whom there would be some.
func (q *Quota) spares(wants *fair.Holder, ofAll bool) (some []spare) {
	var most, mostOwn int64 // a subnet, or a peer, with fewer sessions would find one
	among := q.tenantsOf(wants.Subnet())
	if ofAll {
		among = q.tenants()
	}
	for _, s := range among {
		c := spare{tenant: s}
		if c.use, c.since = s.use(); c.use == busy {
			continue
		}
		c.needs = q.needs(c.use)
		most = max(most, s.holder().UsedOfSubnet(fair.Sessions)-1-c.needs)
		if s.holder().Subnet() == wants.Subnet() {
			mostOwn = max(mostOwn, s.holder().Used(fair.Sessions)-1-c.needs)
		}
		c.lead = s.holder().Lead(wants, fair.Sessions)
		if s.holder() != wants && c.mayEnd(0) {
			some = append(some, c)
		}
	}
	if len(some) == 0 {
		q.vain.add(wants, ofAll, most, mostOwn)
	}
	slices.SortFunc(some, func(a, b spare) int {
		return cmp.Or(cmp.Compare(a.use, b.use), cmp.Compare(b.lead, a.lead), a.since.Compare(b.since))
	})
	return some
}

// needs returns the lead that must be exceeded for a session to be ended.
func (q *Quota) needs(u use) int64 {
	switch u {
	case unused:
		return -1
	case still:
		return int64(max(1, q.MaxSessions/stillPart))
	}
	return 0
}
