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
	ticker  *time.Ticker
	ticks   <-chan time.Time // nil if silence means nothing
	heard   uint64
	since   time.Time // when heard was seen to change
	carrier *carrier  // of which that is said
}

func newWatch(f *Flow, every time.Duration) *watch {
	w := &watch{flow: f, every: every}
	if every > 0 {
		w.ticker = time.NewTicker(every / 4)
		w.ticks = w.ticker.C
	}
	return w
}

func (w *watch) stop() {
	if w.ticker != nil {
		w.ticker.Stop()
	}
}

// look asks a carrier for a sign of life that has been silent for every, and gives it up after twice that.
func (w *watch) look() {
	now, heard, carrier := time.Now(), w.flow.Heard(), w.flow.carrier()
	silence := now.Sub(w.since)
	switch {
	case carrier == nil:
	case heard != w.heard || carrier != w.carrier:
		w.heard, w.carrier, w.since = heard, carrier, now
	case silence >= 2*w.every:
		w.flow.Detach(errSilent)
	case silence >= w.every:
		w.flow.probe()
	}
}
