package flow

import "time"

// A Watch detects a silent carrier. One goroutine uses it.
type Watch struct {
	Ticks <-chan time.Time // says when to call Look; nil if silence is ignored

	flow    *Flow
	every   time.Duration
	timer   *time.Timer
	since   time.Time // when the last sign of life came
	carrier *carrier  // the carrier that since refers to
}

// NewWatch returns a Watch that asks a carrier for a sign of life after a silence of every, and gives it up after twice that. It ignores
// silence if every is not positive.
func NewWatch(f *Flow, every time.Duration) *Watch {
	w := &Watch{flow: f, every: every}
	if every > 0 {
		w.timer = time.NewTimer(every / 4)
		w.Ticks = w.timer.C
	}
	return w
}

// Stop ends the Ticks.
func (w *Watch) Stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// Look asks a silent carrier for a sign of life, or gives it up, and sets when to look again.
func (w *Watch) Look() {
	now, heard, carrier := time.Now(), w.flow.LastHeard(), w.flow.carrier()
	next := w.every / 4
	switch {
	case carrier == nil:
	case carrier != w.carrier:
		w.carrier, w.since = carrier, now
	case heard.After(w.since):
		w.since = heard
	case now.Sub(w.since) >= 2*w.every:
		w.flow.Detach(errSilent)
	case now.Sub(w.since) >= w.every:
		w.flow.probe()
	}
	if carrier != nil {
		next = max(min(next, w.since.Add(2*w.every).Sub(now)), 0)
	}
	w.timer.Reset(next)
}

// probe asks the other side for its number: a live peer answers (spec 5.4).
func (f *Flow) probe() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out.askDue = true
	f.sendLater()
}
