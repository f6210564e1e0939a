package record

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"

	"github.com/peerlane/peerlane/internal/hook"
)

// lease is a stream's hold on its Store. It begins before the stream:
//
//	look ─┬─ free: Begin ─────────────────────────────────────> held ── serve ── end
//	      └─ another has it: its place ── hello ── take: Begin ───^
//
// A Store that serves another stream is taken over last, once the peer has accepted. Until then the other stream continues, and this side
// reports its position. Both sides repair later changes: the other stream's Store keeps the records that the hello refers to (pins), and
// this one skips records that the other has applied (inbound.skip).
type lease struct {
	store  Store              // nil: none
	cancel context.CancelFunc // ends the opening, when another lease takes the Store over
	before *lease             // has the Store, and will be taken over; nil: none
	pinned uint64             // records behind this one are kept in its Store for this lease

	begun chan struct{} // closed when Begin has returned
	gone  chan struct{} // closed when the Store has been released, or was never taken

	mu     sync.Mutex
	held   bool
	place  Place // the result of Begin
	lost   bool
	ended  bool // the Store is being released
	stream *Stream
	pins   map[*lease]uint64 // openings that may take over, and the acknowledged record that each has stated
}

// holders are the leases that have a Store, or are about to. Two streams on one Store share nothing else.
var holders struct {
	mu sync.Mutex
	of map[Store]*lease
}

func newLease(st Store, cancel context.CancelFunc) *lease {
	return &lease{store: st, cancel: cancel, begun: make(chan struct{}), gone: make(chan struct{}), pins: make(map[*lease]uint64)}
}

// look returns the position of the Store. It takes a free Store. If another stream has it, look gets the position from that stream.
func (l *lease) look(ctx context.Context) (Place, error) {
	if l.store == nil {
		l.place = noStore()
		return l.place, nil
	}
	for {
		h := l.claim(nil)
		if h == nil {
			return l.begin()
		}
		select {
		case <-h.begun:
		case <-ctx.Done():
			return Place{}, ctx.Err()
		}
		if place, ok := h.pin(l); ok {
			l.before, l.pinned = h, place.Acked
			return place, nil
		}
		select {
		case <-h.gone:
		case <-ctx.Done():
			return Place{}, ctx.Err()
		}
	}
}

// take takes the Store over from the lease that had it at the time of look. If another lease came first, that one keeps the Store once its
// peer has sent something. p checks the position of the stream that still has the Store; the same step ends that stream.
func (l *lease) take(ctx context.Context, p *handshake) (Place, error) {
	if l.before == nil {
		return l.place, nil
	}
	for other := l.claim(l.before); other != nil; other = l.claim(l.before) {
		if other.works() {
			return Place{}, fmt.Errorf("%w: it was faster", ErrSuperseded)
		}
		select {
		case <-other.begun:
		case <-ctx.Done():
			return Place{}, ctx.Err()
		}
		l.letGo()
		l.before, l.pinned = other, math.MaxUint64
	}
	if err := l.before.yield(p); err != nil {
		l.unclaim()
		return Place{}, err
	}
	return l.begin()
}

// works reports whether the stream that has the Store is known to have been accepted by its peer.
func (l *lease) works() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream != nil && !l.ended && l.stream.heard.Load()
}

// yield ends the holder of the Store, unless p cannot continue from its position.
func (l *lease) yield(p *handshake) error {
	l.mu.Lock()
	s, place, ended := l.stream, l.place, l.ended
	l.mu.Unlock()
	switch {
	case ended:
		return nil
	case s != nil:
		return s.yield(p)
	}
	return p.fits(place) // Begin notifies it
}

// claim makes l the holder of its Store, unless a lease other than before has it; claim then returns that lease.
func (l *lease) claim(before *lease) *lease {
	if !isKey(l.store) {
		return nil
	}
	holders.mu.Lock()
	defer holders.mu.Unlock()
	if h := holders.of[l.store]; h != nil && h != before {
		return h
	}
	if holders.of == nil {
		holders.of = make(map[Store]*lease)
	}
	holders.of[l.store] = l
	return nil
}

// unclaim undoes claim: the lease before still has the Store, or has released it.
func (l *lease) unclaim() {
	h := l.before
	holders.mu.Lock()
	defer holders.mu.Unlock()
	h.mu.Lock()
	if h.ended {
		delete(holders.of, l.store)
	} else {
		holders.of[l.store] = h
	}
	h.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	close(l.begun)
	close(l.gone)
}

// isKey reports whether st can be the key of a map. A Store that cannot is taken over when a stream is opened.
func isKey(st Store) bool { return reflect.ValueOf(st).Comparable() }

// begin calls the Store's Begin, which ends the lease that has the Store.
func (l *lease) begin() (place Place, err error) {
	defer func() {
		l.mu.Lock()
		l.ended = !l.held
		l.mu.Unlock()
		close(l.begun)
		if l.ended {
			l.leave()
		}
	}()
	place, err = l.store.Begin(l.onLost)
	if err != nil {
		return place, storeError(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.place, l.held = place, true
	return place, nil
}

// pin returns the position of the Store, and makes the Store keep the records that are unacknowledged there until by is done with it. It
// reports false if the Store is being released.
func (l *lease) pin(by *lease) (Place, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.lost {
		return Place{}, false
	}
	place := l.place
	if l.stream != nil {
		place = l.stream.place()
	}
	l.pins[by] = place.Acked
	return place, true
}

// settled returns up to where the Store may forget records when all up to acked are acknowledged.
func (l *lease) settled(acked uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settledLocked(acked)
}

func (l *lease) settledLocked(acked uint64) uint64 {
	for _, pinned := range l.pins {
		acked = min(acked, pinned)
	}
	return acked
}

// onLost ends the stream that has the Store, now or as soon as there is one.
func (l *lease) onLost() {
	l.mu.Lock()
	s := l.stream
	l.lost = true
	l.mu.Unlock()
	if s != nil {
		s.refuse(s.opError("carry", ErrSuperseded), CodeSuperseded, "")
		return
	}
	l.cancel()
}

// serve passes the hold to a stream, which releases it when it ends.
func (l *lease) serve(s *Stream) {
	l.letGo()
	l.mu.Lock()
	l.stream = s
	lost := l.lost
	l.mu.Unlock()
	if lost {
		l.onLost()
	}
}

// letGo ends the pin on the lease before.
func (l *lease) letGo() {
	if h := l.before; h != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.pins, l)
	}
}

// end releases the Store, if it was taken. Records up to acked may be forgotten; last, if not nil, is called before.
func (l *lease) end(acked uint64, last func() error) error {
	l.letGo()
	l.mu.Lock()
	held := l.held && !l.ended
	l.ended = true
	acked = l.settledLocked(acked)
	l.mu.Unlock()
	if !held {
		return nil
	}
	defer l.leave()
	var err error
	hook.Run(func() {
		if last != nil {
			err = last()
		}
	}, func(why *hook.Failure) { // releases the Store in any case
		err = errors.Join(err, l.store.End(acked))
		why.Rethrow()
	})
	if err != nil {
		return storeError(err)
	}
	return nil
}

// leave marks the Store as free, unless another lease has taken it.
func (l *lease) leave() {
	holders.mu.Lock()
	if isKey(l.store) && holders.of[l.store] == l {
		delete(holders.of, l.store)
	}
	holders.mu.Unlock()
	close(l.gone)
}
