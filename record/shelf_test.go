package record_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/peerlane/peerlane/record"
)

var errKilled = errors.New("the process was killed")

// A shelf is a record.Store in memory, and what an application keeps next to it. Kill ends the process that has it: the shelf stands
// as of the last call that was completed, and the next process goes on with a new one.
type shelf struct {
	slow func() time.Duration // if not nil, says how long a call waits before it has an effect, and after

	mu      sync.Mutex
	free    sync.Cond
	place   record.Place
	kept    []string // the records from place.Acked+1 on
	effects []string // what the application has applied, kept in one step with the place
	lost    func()
	held    bool
	killed  bool
	shrunk  error // a place that went back, or a hole: the stream has broken its promise
}

var _ record.Store = (*shelf)(nil)

func newShelf() *shelf {
	s := &shelf{place: record.Place{Log: record.NewLogID(), Next: 1}}
	s.free.L = &s.mu
	return s
}

// kill returns what is left of s, for the next process. No call on s has an effect any more.
func (s *shelf) kill() *shelf {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed = true
	s.free.Broadcast()
	next := &shelf{slow: s.slow, place: s.place, kept: slices.Clone(s.kept), effects: slices.Clone(s.effects), shrunk: s.shrunk}
	next.free.L = &next.mu
	return next
}

// do runs an effect as a call that takes its time.
func (s *shelf) do(effect func()) error {
	wait := func() {
		if s.slow != nil {
			time.Sleep(s.slow())
		}
	}
	wait()
	s.mu.Lock()
	killed := s.killed
	if !killed {
		effect()
	}
	s.mu.Unlock()
	if killed {
		return errKilled
	}
	wait() // a kill now drops the answer, not the effect
	return nil
}

func (s *shelf) Begin(lost func()) (record.Place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.held && !s.killed {
		if tell := s.lost; tell != nil {
			s.lost = nil
			s.mu.Unlock()
			tell()
			s.mu.Lock()
			continue
		}
		s.free.Wait()
	}
	if s.killed {
		return record.Place{}, errKilled
	}
	s.held, s.lost = true, lost
	return s.place, nil
}

func (s *shelf) Tail(seq uint64) iter.Seq2[record.Record, error] {
	s.mu.Lock()
	first, kept := s.place.Acked+1, slices.Clone(s.kept)
	s.mu.Unlock()
	return func(yield func(record.Record, error) bool) {
		for i, p := range kept {
			if n := first + uint64(i); n >= seq && !yield(record.Record{Seq: n, Payload: []byte(p)}, nil) {
				return
			}
		}
	}
}

func (s *shelf) Append(first uint64, records iter.Seq[[]byte], acked uint64) error {
	return s.do(func() {
		if first != s.place.Next {
			s.shrunk = fmt.Errorf("record %d is appended where %d is due", first, s.place.Next)
		}
		for p := range records {
			s.kept = append(s.kept, string(p))
			s.place.Next++
		}
		s.forget(acked)
	})
}

// forget drops records that are acknowledged. mu is held.
func (s *shelf) forget(acked uint64) {
	if acked >= s.place.Next {
		s.shrunk = fmt.Errorf("record %d is acknowledged, and %d is next", acked, s.place.Next)
		return
	}
	if acked > s.place.Acked {
		s.kept = s.kept[acked-s.place.Acked:]
		s.place.Acked = acked
	}
}

func (s *shelf) Applied(log record.LogID, seq uint64) error {
	return s.do(func() { s.apply(log, seq) })
}

// apply keeps a place. mu is held.
func (s *shelf) apply(log record.LogID, seq uint64) {
	if s.place.Peer != (record.LogID{}) && s.place.Peer != log {
		s.shrunk = fmt.Errorf("log %x, and the place is in %x", log[:4], s.place.Peer[:4])
	}
	s.place.Peer, s.place.Applied = log, max(s.place.Applied, seq)
}

func (s *shelf) End(acked uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killed {
		return errKilled
	}
	s.forget(acked)
	s.held = false
	s.free.Broadcast()
	return nil
}

// commit is the application's transaction: a record's effect, and its place in log, or neither.
func (s *shelf) commit(log record.LogID, r record.Record) error {
	return s.do(func() {
		if r.Seq != uint64(len(s.effects))+1 {
			s.shrunk = fmt.Errorf("record %d comes after %d effects", r.Seq, len(s.effects))
			return
		}
		s.effects = append(s.effects, string(r.Payload))
		s.apply(log, r.Seq)
	})
}

// state returns the place, how many effects there are, and what is wrong.
func (s *shelf) state() (record.Place, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.place, len(s.effects), s.shrunk
}
