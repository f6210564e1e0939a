// Package deadline is the one kind of deadline that conns of ours have: a moment from which on something fails, which wakes who waits.
package deadline

import (
	"sync"
	"time"
)

// Past is a deadline that makes everything that waits on a conn give up.
var Past = time.Unix(1, 0)

// A Deadline is a moment from which on something is to fail. The zero value is never. It is guarded by the lock that Set is given.
type Deadline struct {
	timer   *time.Timer
	expired bool
}

// Expired reports whether the deadline has passed. The lock is held.
func (d *Deadline) Expired() bool { return d.expired }

// Pass makes the deadline one that has passed, and wakes nobody. The lock is held.
func (d *Deadline) Pass() {
	d.Stop()
	d.expired = true
}

// Set moves the deadline to t, or away if t is zero. When it passes, wake is called with mu held: at once when it has passed already. mu
// is held.
func (d *Deadline) Set(mu sync.Locker, t time.Time, wake func()) {
	d.Stop()
	d.expired = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.expired = true
		wake()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		mu.Lock()
		defer mu.Unlock()
		if d.timer == timer { // it has not been moved while this waited for the lock
			d.expired = true
			wake()
		}
	})
	d.timer = timer
}

// Stop ends the timer: the deadline passes no more. The lock is held.
func (d *Deadline) Stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
