package session

import (
	"context"
	"sync"
	"time"
)

// callCtx is the context of one request. It makes its channel and its timer only when somebody asks for them, so that a
// handler that does not look at its context costs nothing.
type callCtx struct {
	deadline time.Time // zero: none; constant

	mu    sync.Mutex
	done  chan struct{}
	err   error
	timer *time.Timer
	after map[*func()]struct{} // AfterFunc's that have not been stopped; nil until there is one
}

// Deadline returns when the caller stops waiting.
func (c *callCtx) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Value returns nil: a request carries no values.
func (c *callCtx) Value(any) any { return nil }

// Done returns a channel that is closed when the caller has given up, its deadline has passed, or the session has ended.
func (c *callCtx) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
		c.watchLocked()
	}
	return c.done
}

// Err returns nil, context.Canceled or context.DeadlineExceeded.
func (c *callCtx) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		c.endLocked(context.DeadlineExceeded)
	}
	return c.err
}

// AfterFunc arranges for fn to run in its own goroutine when the context ends. The context package uses it, so that
// contexts derived from this one need no goroutine.
func (c *callCtx) AfterFunc(fn func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go fn()
		return func() bool { return false }
	}
	if c.after == nil {
		c.after = make(map[*func()]struct{})
	}
	c.after[&fn] = struct{}{}
	c.watchLocked()
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waits := c.after[&fn]
		delete(c.after, &fn)
		return waits
	}
}

// end ends the context for the reason err, once.
func (c *callCtx) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(err)
}

func (c *callCtx) endLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	for fn := range c.after {
		go (*fn)()
	}
	c.after = nil
}

// watchLocked starts the deadline's timer.
func (c *callCtx) watchLocked() {
	if c.timer == nil && c.err == nil && !c.deadline.IsZero() {
		c.timer = time.AfterFunc(time.Until(c.deadline), func() { c.end(context.DeadlineExceeded) })
	}
}
