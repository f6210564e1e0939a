package main

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// fullCheckEvery is how many calls of a worker share one comparison of every
// byte of the reply.
const fullCheckEvery = 64

// A worker is one application goroutine that calls in a closed loop.
type worker struct {
	ctx     context.Context
	id      int
	caller  caller
	payload []byte

	// of run, which has one goroutine at a time
	seq     uint64
	latency histogram
}

// newWorkers returns the workers of l on s, and what closes them. Each has its
// own context, as callers in a real program do: a shared one would be a lock
// that only some contenders take.
func newWorkers(ctx context.Context, s service, l load, set settings) ([]*worker, *cleanups, error) {
	closers := new(cleanups)
	workers := make([]*worker, l.Callers)
	deadline, _ := ctx.Deadline()
	for i := range workers {
		payload, err := newPayload(set.Payload, l.Size)
		if err != nil {
			return nil, nil, closers.fail(err)
		}
		own, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
		stop := context.AfterFunc(ctx, cancel)
		closers.push(func() error { stop(); cancel(); return nil })
		c, err := s.Caller(own)
		if err != nil {
			return nil, nil, closers.fail(fmt.Errorf("caller %d: %w", i, err))
		}
		closers.push(c.Close)
		workers[i] = &worker{ctx: own, id: i, caller: c, payload: payload}
	}
	return workers, closers, nil
}

// run owns the worker's counters. It ends when a call ends after end, or with
// the error of the first call that fails or is answered wrongly, and reports to
// its caller. What an earlier run recorded is forgotten.
func (w *worker) run(start, end time.Time) error {
	w.latency = histogram{}
	for start.Before(end) {
		stamp(w.payload, w.id, w.seq)
		reply, err := w.caller.Call(w.ctx, w.payload)
		if err != nil {
			return fmt.Errorf("caller %d, call %d: %w", w.id, w.seq, err)
		}
		if err := w.verify(reply); err != nil {
			return fmt.Errorf("caller %d, call %d: %w", w.id, w.seq, err)
		}
		w.seq++
		now := time.Now()
		w.latency.record(now.Sub(start))
		start = now
	}
	return nil
}

// verify fails unless reply is the echo of the current payload, as far as the
// package documentation says it is looked at.
func (w *worker) verify(reply []byte) error {
	if len(reply) != len(w.payload) {
		return fmt.Errorf("echo has %d bytes, want %d", len(reply), len(w.payload))
	}
	if !bytes.Equal(reply[:stampSize], w.payload[:stampSize]) {
		return fmt.Errorf("echo is of another call: stamp %x, want %x", reply[:stampSize], w.payload[:stampSize])
	}
	if w.seq%fullCheckEvery == 0 && !bytes.Equal(reply, w.payload) {
		return fmt.Errorf("echo differs from the %d bytes sent", len(w.payload))
	}
	return nil
}
