package transfer

import (
	"maps"
	"slices"
	"time"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/frame"
)

// watch owns the looking after origins: the windows, and those that bring nothing. It ends with the receiver.
func (r *receiver) watch() {
	const every = time.Second
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		r.t.meter.tick(time.Now())
		stalled, lanes := r.watchOnce(every)
		for _, o := range stalled {
			r.t.meter.stalls.Add(1)
			r.t.tell(Event{EventStalled, o.peer, "", nil})
		}
		for _, l := range lanes {
			_ = l.Abort(frame.CodeCancelled) // its reader finds out, and the peer opens another
		}
	}
}

// watchOnce returns the origins that have stalled since, and their lanes, which are to be replaced. It gives up those that still do.
func (r *receiver) watchOnce(every time.Duration) (stalled []*origin, lanes []*bulk.Lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o := range r.origins {
		o.rate = float64(o.since) / every.Seconds()
		o.since = 0
		o.window = max(o.window/2, windowFor(o.rate, o.rtt().Seconds()))
		if !r.isStalledLocked(o, time.Now()) {
			continue
		}
		o.last, o.answered = time.Now(), time.Now()
		if o.stalls++; o.stalls > 1 { // the same stall: it was told
			o.giveUp(&Error{Code: CodeStalled, Text: "nothing came for too long"})
			continue
		}
		stalled = append(stalled, o)
		lanes = slices.AppendSeq(lanes, maps.Keys(o.lanes))
	}
	return stalled, lanes
}

// slowHash is how many bytes per second a sender hashes at least that has been asked for a layer or a root.
const slowHash = 16 << 20

// isStalledLocked reports whether an origin that is to bring something has not for too long.
func (r *receiver) isStalledLocked(o *origin, now time.Time) bool {
	paused := r.t.meter.isPaused()
	if len(o.wanted) == 0 || paused {
		o.last = now
	}
	if heard := time.Unix(0, o.heard.Load()); heard.After(o.last) {
		o.last = heard
	}
	owes := int64(0) // bytes to be hashed, one file after the other
	for _, a := range r.active {
		if a.asked == o && (a.left == 0 || r.hashed && a.tree == nil) {
			owes += a.shape.Size()
		}
	}
	if owes == 0 || paused {
		o.answered = now
	}
	allowed := r.o.StallAfter + time.Duration(float64(owes)/slowHash*float64(time.Second))
	return now.Sub(o.last) >= r.o.StallAfter || now.Sub(o.answered) >= allowed
}
