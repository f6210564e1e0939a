package resume

import (
	"time"

	"github.com/peerlane/peerlane/internal/hook"
)

// keep looks after the conn: it tells of its states, resumes it, and watches for silence. It owns Options.OnState and the
// dialing, and ends, as the last of all, when the flow is closed.
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

// tell tells of what has happened, and returns the last of it, or 0 if there is nothing new. Before it tells of the end, it
// waits until everything has ended.
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
			_ = hook.Do(func() { c.opts.OnState(e) }) // this goroutine goes on whatever it does with its own
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

// watch notices that a carrier has been silent. Only keep uses it.
type watch struct {
	flow    *Flow
	every   time.Duration
	timer   *time.Timer
	ticks   <-chan time.Time // nil if silence means nothing
	since   time.Time        // when there was last a sign of life
	carrier *carrier         // of which that is said
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

// look asks a carrier for a sign of life that has been silent for every, and gives it up after twice that.
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
