package transfer

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
)

// watch supervises the origins: their windows, and those that deliver nothing. It ends with the receiver.
func (r *receiver) watch() {
	const every = time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	var asking sync.WaitGroup
	defer asking.Wait()
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		r.t.meter.tick(time.Now())
		stalled, lanes := r.watchOnce(every, &asking)
		for _, o := range stalled {
			r.t.meter.stalls.Add(1)
			r.t.tell(Event{EventStalled, o.peer, "", nil})
		}
		for _, l := range lanes {
			_ = l.Abort(codes.Cancelled) // its reader notices, and the peer opens another
		}
	}
}

// watchOnce returns the origins that have newly stalled, and the lanes to replace. It gives up origins that are still stalled.
func (r *receiver) watchOnce(every time.Duration, asking *sync.WaitGroup) (stalled []*origin, lanes []*bulk.Lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.origins {
		o.rate = float64(o.since) / every.Seconds()
		o.since = 0
		o.resize(o.rate, o.s.RTT().Seconds())
		if !r.isStalledLocked(o, time.Now()) {
			o.doubted = time.Time{}
			continue
		}
		if !r.isHeedlessLocked(o, time.Now(), asking) {
			continue
		}
		o.doubted = time.Time{}
		o.last, o.answered = time.Now(), time.Now()
		if o.stalls++; o.stalls > 1 { // the same stall, already reported
			o.giveUp(&Error{Code: CodeStalled, Text: "nothing came for too long"})
			continue
		}
		stalled = append(stalled, o)
		lanes = slices.AppendSeq(lanes, maps.Keys(o.lanes))
	}
	return stalled, lanes
}

// mostDoubt is how many times StallAfter an origin may be silent while it is not known to have received its requests.
const mostDoubt = 10

// isHeedlessLocked reports whether an origin that has been silent for too long has received its requests. On a slow link the requests or
// its data may still be under way. A ping travels behind both, and its answer shows that they have arrived.
func (r *receiver) isHeedlessLocked(o *origin, now time.Time, asking *sync.WaitGroup) bool {
	if o.doubted.IsZero() {
		o.doubted = now
	}
	if !o.asked {
		o.asked = true
		asking.Go(func() { // ends with the answer, the session, or the receiver
			_, err := o.s.Ping(r.ctx)
			r.mu.Lock()
			defer r.mu.Unlock()
			o.asked = false
			if err == nil {
				o.heedless = now
			}
		})
	}
	return !o.heedless.Before(o.doubted) || now.Sub(o.doubted) >= mostDoubt*r.o.StallAfter
}

// slowHash is the least rate, in bytes per second, at which a sender is expected to hash for a requested layer or root.
const slowHash = 16 << 20

// isStalledLocked reports whether an origin with open requests has delivered nothing for too long.
func (r *receiver) isStalledLocked(o *origin, now time.Time) bool {
	paused := r.t.meter.isPaused()
	if len(o.wanted) == 0 || paused {
		o.last = now
	}
	if heard := time.Unix(0, o.heard.Load()); heard.After(o.last) {
		o.last = heard
	}
	owes := r.owedLocked(o) // bytes to be hashed, one file after the other
	for _, a := range r.active {
		if a.asked == &o.supplier && (a.left == 0 || r.hashed && a.tree == nil) {
			owes += a.shape.Size()
		}
	}
	if owes == 0 || paused || o.resetting {
		o.answered = now
	}
	allowed := r.o.StallAfter + time.Duration(float64(owes)/slowHash*float64(time.Second))
	return now.Sub(o.last) >= r.o.StallAfter || now.Sub(o.answered) >= allowed
}
