package registry

import "sync"

// RingSize is how many events a Ring keeps.
const RingSize = 32

// A Ring keeps the last RingSize events. The zero value is ready. It is safe for concurrent use.
type Ring struct {
	mu     sync.Mutex
	events []Event // at most RingSize; once full, next is the oldest
	next   int
}

// Add adds e, in place of the oldest event if the ring is full.
func (r *Ring) Add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) < RingSize {
		r.events = append(r.events, e)
		return
	}
	r.events[r.next] = e
	r.next = (r.next + 1) % RingSize
}

// All returns the events, the oldest first.
func (r *Ring) All() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Event, 0, len(r.events))
	all = append(all, r.events[r.next:]...)
	return append(all, r.events[:r.next]...)
}
