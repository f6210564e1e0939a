package resume

import (
	"time"

	"github.com/peerlane/peerlane/internal/hook"
)

// keep maintains the conn: it reports its states, resumes it, and watches for silence. It owns Options.OnState and the dialing, and ends
// last, when the flow is closed.
func (c *Conn) keep() {
	defer close(c.done)
	w := newWatch(c.flow, c.opts.Heartbeat)
	defer w.stop()
	for {
		forced := false
		select {
		case <-c.poke:
		case <-c.kick:
			forced = true
		case <-w.ticks:
			w.look()
		}
		state := c.tell()
		if state.over() {
			return
		}
		if c.dialer != nil && (forced || state == StateDetached) {
			c.redial(forced)
		}
	}
}

// tell reports events to OnState, and returns the last state, or 0 if there is nothing new. Before it reports the end, it waits until
// everything else has ended.
func (c *Conn) tell() State {
	last := State(0)
	for _, e := range c.happened() {
		last = e.State
		if last.over() {
			c.pumping.Wait()
			c.flow.Wait()
		}
		if c.server != nil {
			c.server.account(c, last)
		}
		if c.opts.OnState != nil {
			_ = hook.Do(func() { c.opts.OnState(e) }) // this goroutine continues even if OnState ends its own
		}
	}
	return last
}

func (c *Conn) happened() []StateChange {
	c.flow.mu.Lock()
	defer c.flow.mu.Unlock()
	events := c.events
	c.events = nil
	return events
}

// watch detects a silent carrier. Only keep uses it.
type watch struct {
	flow    *Flow
	every   time.Duration
	timer   *time.Timer
	ticks   <-chan time.Time // nil if silence is ignored
	since   time.Time        // when the last sign of life came
	carrier *carrier         // the carrier that since refers to
}

func newWatch(f *Flow, every time.Duration) *watch {
	w := &watch{flow: f, every: every}
	if every > 0 {
		w.timer = time.NewTimer(every / 4)
		w.ticks = w.timer.C
	}
	return w
}

func (w *watch) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// look asks a carrier that has been silent for every for a sign of life, and gives it up after twice that.
func (w *watch) look() {
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
