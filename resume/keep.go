package resume

import (
	"github.com/peerlane/peerlane/internal/flow"
	"github.com/peerlane/peerlane/internal/hook"
)

// keep maintains the conn: it reports its states, resumes it, and watches for silence. It owns Options.OnState and the dialing, and ends
// last, when the flow is closed.
func (c *Conn) keep() {
	defer close(c.done)
	w := flow.NewWatch(c.flow, c.opts.Heartbeat)
	defer w.Stop()
	for {
		forced := false
		select {
		case <-c.poke:
		case <-c.kick:
			forced = true
		case <-w.Ticks:
			w.Look()
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

// tell reports events to OnState, and returns the last state, or "" if there is nothing new. Before it reports the end, it waits until
// everything else has ended.
func (c *Conn) tell() State {
	last := State("")
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
	c.flow.Lock()
	defer c.flow.Unlock()
	events := c.events
	c.events = nil
	return events
}
