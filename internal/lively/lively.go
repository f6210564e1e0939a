// Package lively bounds a wait for a peer by the time in which the peer is heard: while its connection is silent, or lost and not yet
// replaced, the time stands still. What is too late by such a clock is so by the peer's own doing.
package lively

import (
	"context"
	"sync"
	"time"
)

// Ping asks the peer for an answer and returns when it has come; the error says that none will, or is that of ctx.
type Ping = func(ctx context.Context) error

// steps is how often the peer is asked within the time.
const steps = 5

// After calls expire, in a goroutine of its own, once d has passed in which the peer answers. stop ends that; when expire
// has been called, stop waits until it has returned.
func After(d time.Duration, ping Ping, expire func()) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &wait{ctx: ctx, ping: ping, expire: expire, left: d, step: max(d/steps, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.step, w.tick)
	return func() {
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.timer.Stop()
	}
}

// WithTimeout returns a ctx that ends, with context.DeadlineExceeded as its cause, once d has passed in which the peer answers.
func WithTimeout(ctx context.Context, d time.Duration, ping Ping) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := After(d, ping, func() { cancel(context.DeadlineExceeded) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}

type wait struct {
	ctx    context.Context
	ping   Ping
	expire func()
	step   time.Duration

	mu    sync.Mutex
	timer *time.Timer
	left  time.Duration
	deaf  bool // the peer will not answer any more: from now on all time counts
}

// tick counts a step once the peer has answered. It is a goroutine of the timer's, and ends with the answer, or stop.
func (w *wait) tick() {
	w.mu.Lock()
	deaf := w.deaf
	w.mu.Unlock()
	if !deaf {
		deaf = w.ping(w.ctx) != nil
	}
	w.count(deaf)
}

// count takes a step off what is left, and calls expire at the last. stop waits for that.
func (w *wait) count(deaf bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = deaf
	if w.ctx.Err() != nil {
		return
	}
	if w.left -= w.step; w.left <= 0 {
		w.expire()
		return
	}
	w.timer.Reset(min(w.step, w.left))
}
