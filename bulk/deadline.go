package bulk

import (
	"sync"
	"time"
)

// deadline is one direction's. It is guarded by the lock that set is given.
type deadline struct {
	timer   *time.Timer
	expired bool
}

// set moves the deadline to t, or away if t is zero. When it passes, wake is called with mu held. mu is held.
func (d *deadline) set(mu sync.Locker, t time.Time, wake func()) {
	d.stop()
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
		if d.timer == timer {
			d.expired = true
			wake()
		}
	})
	d.timer = timer
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
