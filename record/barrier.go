package record

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// barrier is a call that waits until the peer has applied a record, or the Store has it.
type barrier struct {
	op      string
	seq     uint64
	durable bool // waits for the Store
	met     chan struct{}
	err     error // why the wait failed; set before met is closed

	began   time.Time
	flushed time.Time // when the conn had taken the record; zero: not yet
}

// Barrier waits until the peer's application has applied every record that was written before the call. It keeps waiting across the loss of
// a carrier, as the session does.
//
// The error is the *RecordFailure of one of these records, or an *Error that matches ctx's error, ErrPeerClosed, ErrClosed, or the reason
// why the stream has ended. Its Applied says how far the peer is known to have come.
func (s *Stream) Barrier(ctx context.Context) error {
	s.mu.Lock()
	return s.barrier(ctx, s.out.next-1)
}

// BarrierTo is Barrier for the records up to seq. A seq that has not been written is ErrRange.
func (s *Stream) BarrierTo(ctx context.Context, seq uint64) error {
	s.mu.Lock()
	if last := s.out.next - 1; seq > last {
		s.mu.Unlock()
		return s.opError("barrier", fmt.Errorf("%w: record %d, and %d are written", ErrRange, seq, last))
	}
	return s.barrier(ctx, seq)
}

// barrier waits for the record seq. mu is held, and released.
func (s *Stream) barrier(ctx context.Context, seq uint64) error {
	o := &s.out
	if seq <= o.acked {
		s.mu.Unlock()
		return nil
	}
	if err := s.hopeless(seq); err != nil {
		s.mu.Unlock()
		return err
	}
	b := &barrier{op: "barrier", seq: seq, met: make(chan struct{}), began: time.Now()}
	if o.written >= seq {
		b.flushed = b.began
	}
	o.barriers = append(o.barriers, b)
	o.hurried = max(o.hurried, seq)
	s.wake.Signal()
	s.mu.Unlock()

	select {
	case <-b.met:
	case <-ctx.Done():
	}
	now := time.Now()
	s.observeBarrier(now.Sub(b.began))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.countBarrier(b, now)
	select {
	case <-b.met:
		return b.err
	default:
	}
	o.forgetBarrier(b)
	return &Error{Op: b.op, Name: s.name, Applied: o.acked, Err: ctx.Err()}
}

// hopeless returns why it is useless to wait for the unacknowledged record seq, or nil. mu is held.
func (s *Stream) hopeless(seq uint64) error {
	switch o := &s.out; {
	case s.err != nil:
		return s.endedLocked("barrier")
	case o.closing != nil:
		return &Error{Op: "barrier", Name: s.name, Applied: o.acked, Err: o.closing}
	case o.gone != nil:
		return &Error{Op: "barrier", Name: s.name, Applied: o.acked, Err: o.gone}
	case o.failed != nil && seq >= o.failed.FailedSeq:
		return o.failed
	}
	return nil
}

// flushed records which barriers' records the conn has taken.
func (o *outbound) flushed() {
	if len(o.barriers) == 0 {
		return
	}
	now := time.Now()
	for _, b := range o.barriers {
		if b.flushed.IsZero() && o.written >= b.seq {
			b.flushed = now
		}
	}
}

// awaitDurable waits until the Store has the record seq. mu is held, and released while it waits.
func (s *Stream) awaitDurable(ctx context.Context, seq uint64) error {
	if s.out.durable >= seq {
		return nil
	}
	b := &barrier{op: "write", seq: seq, durable: true, met: make(chan struct{})}
	s.out.barriers = append(s.out.barriers, b)
	s.mu.Unlock()
	select {
	case <-b.met:
	case <-ctx.Done():
	}
	s.mu.Lock()
	select {
	case <-b.met:
		return b.err
	default:
	}
	s.out.forgetBarrier(b)
	return s.opError("write", ctx.Err())
}

// forgetBarrier ends an abandoned wait.
func (o *outbound) forgetBarrier(b *barrier) {
	o.barriers = slices.DeleteFunc(o.barriers, func(other *barrier) bool { return other == b })
}
