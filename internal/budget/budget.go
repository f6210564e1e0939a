// Package budget counts what a limited relay lets through on a connection, which it cuts after so many bytes each way, or so much time.
package budget

import (
	"sync"
	"time"
)

// The share of a relay's limits that is spent before a circuit is left. What libp2p adds to the bytes of its streams, and
// what else runs on the connection, takes from the rest: a relay that lets 131072 bytes through was measured to deliver
// 123904 of one stream.
const (
	numerator   = 3
	denominator = 4
)

// leaveBefore is how long before the end of its time a circuit is left, at most a quarter of that time.
const leaveBefore = 5 * time.Second

// A Budget is what a limited relay lets through on one connection, which all carriers on it share.
type Budget struct {
	limit int64  // bytes each way; 0: no limit
	spent func() // called once, in a goroutine, when the circuit is to be left

	mu       sync.Mutex
	in, out  int64
	over     bool
	released bool          // the circuit stays: writes do not wait any more
	freed    chan struct{} // closed by Release
	timer    *time.Timer
}

// New returns the budget of a connection of which the relay lets data bytes pass each way, 0 meaning any number, for so long, until
// expires. A zero expires means without end. It calls spent once, in a goroutine, when the circuit is to be left.
func New(data int64, lasts time.Duration, expires time.Time, spent func()) *Budget {
	b := &Budget{limit: data / denominator * numerator, spent: spent, freed: make(chan struct{})}
	if !expires.IsZero() {
		early := min(leaveBefore, lasts/denominator)
		b.timer = time.AfterFunc(time.Until(expires)-early, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.end()
		})
	}
	return b
}

// end makes the circuit be left. mu is held.
func (b *Budget) end() {
	if !b.over {
		b.over = true
		go b.spent()
	}
}

// Read counts n bytes that have come in.
func (b *Budget) Read(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.in += int64(n); b.limit > 0 && b.in >= b.limit {
		b.end()
	}
}

// Take returns how many of n bytes may go out, and counts them. When the budget is spent it waits until that is released
// or the carrier is given up, and then lets all of them go.
func (b *Budget) Take(n int, gone <-chan struct{}) int {
	b.mu.Lock()
	switch {
	case b.released:
	case b.over:
		b.mu.Unlock()
		select {
		case <-gone:
		case <-b.freed:
		}
		b.mu.Lock()
	case b.limit > 0:
		n = int(min(int64(n), b.limit-b.out))
		if b.out+int64(n) >= b.limit {
			b.end()
		}
	}
	b.out += int64(n)
	b.mu.Unlock()
	return n
}

// Leaving returns a channel that is closed when the circuit has been left, or stays after all; nil when it is not to be
// left. It may be called on nil.
func (b *Budget) Leaving() <-chan struct{} {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over || b.released {
		return nil
	}
	return b.freed
}

// Release lets writes go on: the circuit is not left.
func (b *Budget) Release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.released {
		b.released = true
		close(b.freed)
	}
}

// Stop ends the timer, of a connection that is gone, and releases the budget.
func (b *Budget) Stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
	b.Release()
}
