package registry

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Measure is a kind of duration that observers get.
type Measure int

// The measures.
const (
	CallAnswered Measure = iota // from a call of this side to its answer
	CallFailed                  // from a call of this side to its failure
	BarrierWait                 // of one barrier of a record stream
	ResumeTime                  // from the loss of a session's carrier to its next carrier
	DirectTime                  // from a session's first relayed carrier to its next direct one
	NumMeasures                 // how many there are
)

// An Observer gets durations as they are measured. Observe must be quick: calls wait for it.
type Observer interface {
	Observe(m Measure, tag string, took time.Duration)
}

// Observers are those of a Client or Server. The zero value has none. It is safe for concurrent use.
type Observers struct {
	mu  sync.Mutex // of those who change all
	all atomic.Pointer[[]*observing]
}

// observing is one observer, by identity.
type observing struct{ Observer }

// Add adds o, until stop is called. One Observe may still run when stop returns.
func (s *Observers) Add(o Observer) (stop func()) {
	added := &observing{o}
	s.change(func(all []*observing) []*observing { return append(all, added) })
	return func() {
		s.change(func(all []*observing) []*observing {
			return slices.DeleteFunc(all, func(other *observing) bool { return other == added })
		})
	}
}

// change replaces the list by what edit makes of a copy.
func (s *Observers) change(edit func([]*observing) []*observing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*observing
	if old := s.all.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if all = edit(all); len(all) == 0 {
		s.all.Store(nil)
		return
	}
	s.all.Store(&all)
}

// A Watch passes the durations of the sessions of one tag to observers. The zero value and nil have none.
type Watch struct {
	Tag       string
	Observers *Observers
}

// On reports whether there is an observer. Without one, there is no need to measure.
func (w *Watch) On() bool { return w != nil && w.Observers != nil && w.Observers.all.Load() != nil }

// Observe passes a duration to the observers.
func (w *Watch) Observe(m Measure, took time.Duration) {
	if w == nil || w.Observers == nil {
		return
	}
	all := w.Observers.all.Load()
	if all == nil {
		return
	}
	for _, o := range *all {
		o.Observe(m, w.Tag, took)
	}
}
