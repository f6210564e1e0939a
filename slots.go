package peerlane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// A peer's resource manager lets one host have only so many streams on a tag at once, and counts a conn until the peer's
// side has closed it too. Dial counts in the same way: a conn holds a slot from its dial until the peer has ended its side
// as well, and a dial that finds no slot waits for one. Nobody says how many there are, and a refusal may come after the
// negotiation, when the caller already uses the conn. So slots.sure conns are opened without asking, and beyond that a
// dial is tentative: it looks for a refusal for a moment before it returns. If it holds there are more slots, and if it is
// refused there are fewer.
const (
	// startSlots is how many streams of one protocol libp2p's default resource manager lets one peer have at least: 64,
	// and 4 more for each 8 GiB of memory.
	startSlots = 64
	// slotMargin is what is left between the sure slots and those that were seen: this side may learn that a conn has ended
	// just before the peer counts it so.
	slotMargin = 4
	// slotWait is how long a dial beyond the sure slots waits for one of them first.
	slotWait = 10 * time.Millisecond
	// settleTime is how long after the negotiation a refusal may come. The peer sends it right behind its answer, so the
	// distance to the peer does not add to it.
	settleTime = 250 * time.Millisecond
	// quietTime is how long no slot has come back where conns are opened one by one, to be kept. There is no crowd in which a
	// refusal could be late, and a dial that is alone looks for one for quietLook only and does not wait before.
	quietTime = time.Second
	quietLook = 10 * time.Millisecond
	// maxPause is how long no slot is given while conns that are not settled keep dials from being tentative.
	maxPause = 50 * time.Millisecond
	// Between tentative dials after a refusal or a pause in vain, doubled by each.
	minSlotBackoff = 250 * time.Millisecond
	maxSlotBackoff = 8 * time.Second
	// maxSlotWaiters bounds the dials that wait for one peer and tag; the oldest gives way. An http.Transport starts a dial
	// for each request that finds no idle conn and forgets it once another conn is free, so the old ones are nobody's.
	maxSlotWaiters = 1024
	// learnedTime is how long the number of slots is remembered after the last conn.
	learnedTime = time.Minute
	// aloneTime is how long a dial that is refused tries again where this host holds no slot that could come back: the
	// peer may not have noticed yet what was closed here.
	aloneTime = time.Second
)

// slotKey says whose slots: those of one host at one peer on one tag. It has the Network, and not the Host, for the reason
// given at served.
type slotKey struct {
	from network.Network
	to   peer.ID
	tag  protocol.ID
}

// slotTable holds the slots of every peer and tag that is dialed. Its mutex guards all slots, and is never held across I/O.
type slotTable struct {
	mu   sync.Mutex
	rows map[slotKey]*slots
}

var dialSlots = slotTable{rows: make(map[slotKey]*slots)}

// slots are those of one key. All fields are guarded by slotTable.mu.
type slots struct {
	table *slotTable
	key   slotKey

	held    map[*slot]struct{}
	sure    int           // so many conns may be open at once without a second look; at least 1
	trying  int           // held slots that are tentative
	waiting []*slotWaiter // in turn: those that were refused, and then the oldest first
	timer   *time.Timer   // calls tick while dials wait, and forget when nothing is held
	left    time.Time     // when a slot has last come back

	refused bool          // since sure has last grown
	backoff time.Duration // between tentative dials
	tryAt   time.Time     // no tentative dial before
	paused  time.Time     // since when no slot is given, so that a tentative dial may follow; zero if it is not so
}

// A slot is held by one dial, and then by its conn. A nil *slot is one of a conn that needs none.
type slot struct {
	of     *slots
	proved atomic.Bool // a byte has come: the peer has taken the conn

	// The rest is guarded by slotTable.mu.
	tentative bool
	look      time.Duration // how long a tentative dial looks for a refusal
	under     network.Conn  // nil while the dial is under way
	opened    time.Time     // when the negotiation was done
	closing   bool          // closed on this side, and perhaps not yet on the other
	gone      bool
}

// A slotWaiter is a dial that waits. got receives its slot, or nil if it gave way to others.
type slotWaiter struct {
	got   chan *slot
	since time.Time
}

// errHostDone is why take ends when its host does.
var errHostDone = errors.New("the host was closed")

// take returns a slot, waiting for one until ctx ends or done is closed. A dial that was refused takes its turn before
// others, with again set.
func (t *slotTable) take(ctx context.Context, key slotKey, again bool, done <-chan struct{}) (*slot, error) {
	t.mu.Lock()
	s := t.row(key)
	if len(s.waiting) == 0 && len(s.held) < s.sure {
		got := s.grant(0)
		t.mu.Unlock()
		return got, nil
	}
	if s.quiet() {
		got := s.grant(quietLook)
		t.mu.Unlock()
		return got, nil
	}
	w := s.enqueue(again)
	t.mu.Unlock()

	select {
	case got := <-w.got:
		if got == nil {
			return nil, fmt.Errorf("%d dials wait already", maxSlotWaiters)
		}
		return got, nil
	case <-ctx.Done():
	case <-done:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.leave(w)
	if ctx.Err() == nil {
		return nil, errHostDone
	}
	return nil, noneEnded(ctx, len(s.held))
}

// noneEnded returns the error of a wait for a slot that ended with ctx, while this host held so many.
func noneEnded(ctx context.Context, held int) error {
	return fmt.Errorf("%d conns to it are open or closing, and none has ended: %w", held, ctx.Err())
}

// row returns the slots of key. t.mu is held.
func (t *slotTable) row(key slotKey) *slots {
	s := t.rows[key]
	if s == nil {
		s = &slots{table: t, key: key, held: make(map[*slot]struct{}), sure: startSlots}
		t.rows[key] = s
	}
	return s
}

// quiet reports whether conns are opened one by one and kept, and the peer has refused none. t.mu is held.
func (s *slots) quiet() bool {
	if s.refused || s.trying > 0 || len(s.waiting) > 0 || time.Since(s.left) < quietTime {
		return false
	}
	for held := range s.held {
		if held.under == nil {
			return false
		}
	}
	return true
}

// grant returns a new slot, a tentative one if look is not zero. t.mu is held.
func (s *slots) grant(look time.Duration) *slot {
	got := &slot{of: s, tentative: look > 0, look: look}
	s.held[got] = struct{}{}
	if got.tentative {
		s.trying++
	}
	return got
}

// enqueue adds a waiter, at the front if it was there before. t.mu is held.
func (s *slots) enqueue(again bool) *slotWaiter {
	w := &slotWaiter{got: make(chan *slot, 1), since: time.Now()}
	if len(s.waiting) >= maxSlotWaiters {
		s.evict()
	}
	if again {
		s.waiting = append([]*slotWaiter{w}, s.waiting...)
	} else {
		s.waiting = append(s.waiting, w)
	}
	if len(s.waiting) == 1 {
		s.paused = time.Time{}
		s.arm(slotWait, s.tick)
	}
	return w
}

// evict has the waiter give way that has waited for longest: not one that has its turn before it. t.mu is held.
func (s *slots) evict() {
	oldest := 0
	for i, w := range s.waiting {
		if w.since.Before(s.waiting[oldest].since) {
			oldest = i
		}
	}
	s.waiting[oldest].got <- nil
	s.waiting = slices.Delete(s.waiting, oldest, oldest+1)
}

// next takes the first waiter off the queue. t.mu is held.
func (s *slots) next() *slotWaiter {
	w := s.waiting[0]
	s.waiting[0] = nil
	s.waiting = s.waiting[1:]
	return w
}

// leave takes a waiter off the queue, or gives back what it has been granted meanwhile. t.mu is held.
func (s *slots) leave(w *slotWaiter) {
	select {
	case got := <-w.got:
		if got != nil {
			got.drop()
		}
		return
	default:
	}
	for i, other := range s.waiting {
		if other == w {
			s.waiting = append(s.waiting[:i:i], s.waiting[i+1:]...)
			break
		}
	}
	s.serve()
}

// serve gives the free slots to those who wait. t.mu is held, as wherever a slot or a waiter has gone.
func (s *slots) serve() {
	for len(s.waiting) > 0 && len(s.held) < s.sure && s.paused.IsZero() {
		s.next().got <- s.grant(0)
	}
	if len(s.waiting) > 0 || len(s.held) > 0 {
		return
	}
	if s.sure == startSlots {
		s.remove()
		return
	}
	s.arm(learnedTime, s.forget)
}

// arm makes f the next call of the timer. t.mu is held.
func (s *slots) arm(after time.Duration, f func()) {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(after, f)
}

// remove takes the row out of the table. t.mu is held.
func (s *slots) remove() {
	if s.timer != nil {
		s.timer.Stop()
	}
	delete(s.table.rows, s.key)
}

// forget removes a row that has not been used since it was armed.
func (s *slots) forget() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	if len(s.waiting) == 0 && len(s.held) == 0 && s.table.rows[s.key] == s {
		s.remove()
	}
}

// tick looks after the dials that wait.
func (s *slots) tick() {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	now := time.Now()
	settled := true
	for held := range s.held {
		if held.under != nil && held.under.IsClosed() {
			held.drop()
		}
		settled = settled && held.settled(now)
	}
	s.try(now, settled)
	if len(s.waiting) > 0 {
		s.arm(max(slotWait, s.tryAt.Sub(now)), s.tick)
	}
}

// try lets dials be tentative that have waited for slotWait; after a refusal, one at a time. While other conns are not
// settled a tentative one might take what one of them was sure of: then no slot is given until they are. t.mu is held.
func (s *slots) try(now time.Time, settled bool) {
	limit := max(8, s.sure/4)
	if s.refused {
		limit = 1
	}
	ready := func() bool {
		return len(s.waiting) > 0 && now.Sub(s.waiting[0].since) >= slotWait && s.trying < limit && !now.Before(s.tryAt)
	}
	switch {
	case !ready():
	case settled:
		for ready() {
			s.next().got <- s.grant(settleTime)
		}
	case s.paused.IsZero():
		s.paused = now
		return
	case now.Sub(s.paused) < maxPause:
		return
	default:
		s.backOff(now)
	}
	s.paused = time.Time{}
	s.serve()
}

// backOff puts off tentative dials, unless that was done just now. t.mu is held.
func (s *slots) backOff(now time.Time) {
	if now.Before(s.tryAt) {
		return
	}
	s.backoff = min(max(minSlotBackoff, 2*s.backoff), maxSlotBackoff)
	s.tryAt = now.Add(s.backoff)
}

// settled reports whether a conn that was sure of its slot has it for certain. t.mu is held.
func (p *slot) settled(now time.Time) bool {
	return p.gone || p.tentative || p.closing || p.proved.Load() || p.under != nil && now.Sub(p.opened) >= settleTime
}

// drop gives the slot back. t.mu is held.
func (p *slot) drop() {
	if p.gone {
		return
	}
	p.gone, p.of.left = true, time.Now()
	delete(p.of.held, p)
	p.decide()
	p.of.serve()
}

// decide ends the slot's being tentative. t.mu is held.
func (p *slot) decide() {
	if p.tentative {
		p.tentative = false
		p.of.trying--
	}
}

// release gives the slot back. It may be called again.
func (p *slot) release() {
	if p == nil {
		return
	}
	p.of.table.mu.Lock()
	defer p.of.table.mu.Unlock()
	p.drop()
}

// carry says which connection the slot's conn is on. The negotiation is done.
func (p *slot) carry(under network.Conn) {
	p.of.table.mu.Lock()
	defer p.of.table.mu.Unlock()
	p.under, p.opened = under, time.Now()
}

// prove says that a byte has come.
func (p *slot) prove() {
	if p != nil && !p.proved.Load() {
		p.proved.Store(true)
	}
}

// close says that this side has closed the conn, and waits for the peer to.
func (p *slot) close() {
	if p == nil {
		return
	}
	p.of.table.mu.Lock()
	defer p.of.table.mu.Unlock()
	p.closing = true
}

// hold says that the peer has taken a tentative conn: there are at least as many slots as conns are open.
func (p *slot) hold() {
	s := p.of
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	p.decide()
	open := 0
	for held := range s.held {
		if held.under != nil && !held.tentative && !held.closing {
			open++
		}
	}
	if open-slotMargin > s.sure {
		s.sure, s.refused, s.backoff = open-slotMargin, false, 0
	}
	s.serve()
}

// isDoubtful reports whether the slot is tentative after the peer has refused a conn, and how many others this host holds.
func (p *slot) isDoubtful() (others int, doubtful bool) {
	if p == nil {
		return 0, false
	}
	p.of.table.mu.Lock()
	defer p.of.table.mu.Unlock()
	return len(p.of.held) - 1, p.tentative && p.of.refused && !p.gone
}

// refuse gives the slot back of a conn that the peer has refused, and reports whether this host holds no other.
func (p *slot) refuse() (alone bool) {
	if p == nil {
		return false
	}
	s := p.of
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	if p.gone {
		return false
	}
	if left := len(s.held) - 1; left > 0 {
		s.sure = min(s.sure, left)
	} else {
		alone = true
	}
	s.refused = true
	s.backOff(time.Now())
	p.drop()
	return alone
}
