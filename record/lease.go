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

// lease is a stream's hold on its Store, from before there is a stream:
//
//	look ─┬─ free: Begin ─────────────────────────────────────> held ── serve ── end
//	      └─ another has it: its place ── hello ── take: Begin ───^
//
// A Store that serves another stream is taken over last, once the peer has accepted: until then that stream works on, and this side says
// where it stands. What may have moved meanwhile is mended by both sides: the other stream's Store keeps the records that the hello
// speaks of (pins), and this one skips records that the other has applied (inbound.skip).
type lease struct {
	store  Store              // nil: none
	cancel context.CancelFunc // ends the opening, when another lease takes the Store over
	before *lease             // has the Store, and is to be taken over; nil: none
	pinned uint64             // what its Store keeps for this one: the records behind it

	begun chan struct{} // closed when Begin has returned
	gone  chan struct{} // closed when the Store has been given back, or never was had

	mu     sync.Mutex
	held   bool
	place  Place // as Begin returned it
	lost   bool
	ended  bool // the Store is being given back
	stream *Stream
	pins   map[*lease]uint64 // openings that may take over, and what each has said is acknowledged
}

// holders are the leases that have a Store, or are about to. Two streams on one Store have nothing else in common.
var holders struct {
	mu sync.Mutex
	of map[Store]*lease
}

func newLease(st Store, cancel context.CancelFunc) *lease {
	return &lease{store: st, cancel: cancel, begun: make(chan struct{}), gone: make(chan struct{}), pins: make(map[*lease]uint64)}
}

// look returns where the Store stands. It takes one that is free; of another, it learns the place from the stream that has it.
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

// take takes the Store over from the lease that had it when look was called. Another one that has come first keeps it, once its peer has
// said a word. p is asked about the place of a stream that still has the Store, which is ended in the same step.
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

// works reports whether a stream has the Store whose peer is known to have accepted it.
func (l *lease) works() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream != nil && !l.ended && l.stream.heard.Load()
}

// yield ends what has the Store, unless p cannot go on from where it stands.
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
	return p.fits(place) // Begin tells it
}

// claim makes l the holder of its Store, unless a lease other than before has it: that is returned.
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

// unclaim undoes claim: the lease before still has the Store, or has given it back.
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

// isKey reports whether st may be the key of a map. A Store that may not is taken over as a stream is opened.
func isKey(st Store) bool { return reflect.ValueOf(st).Comparable() }

// begin has the Store begin, which ends the lease that has it.
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

// pin returns where the Store stands, and has it keep what is not acknowledged there until by is done with it. It reports false when
// the Store is being given back.
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

// settled returns up to where the Store may forget when all up to acked is acknowledged.
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

// onLost ends the stream that has the store, now or as soon as there is one.
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

// serve gives the hold to a stream, which gives it back when it ends.
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

// end gives the store back, if it was taken. Records up to acked may be forgotten; last, if not nil, is called before.
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
	}, func(why *hook.Failure) { // gives the Store back in any case
		err = errors.Join(err, l.store.End(acked))
		why.Rethrow()
	})
	if err != nil {
		return storeError(err)
	}
	return nil
}

// leave says that the Store is free, unless another lease has taken it.
func (l *lease) leave() {
	holders.mu.Lock()
	if isKey(l.store) && holders.of[l.store] == l {
		delete(holders.of, l.store)
	}
	holders.mu.Unlock()
	close(l.gone)
}
