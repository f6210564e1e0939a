package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/peerlane/peerlane/internal/hook"
)

// ApplyOptions are the options of Apply. Nil is equivalent to the zero value.
type ApplyOptions struct {
	// Parallel is how many records are applied at a time. If zero, 1: one after the other. A negative one is ErrInvalid.
	Parallel int
}

// Apply reads records, calls fn to apply each in order, and acknowledges a record when fn has returned nil. It returns nil when the peer
// has written all records and they are applied.
//
// With Parallel, fn runs for several records at a time, started in order. A record is acknowledged once all before it are applied.
//
// An error of fn fails the record: with the Code, Retryable and Message of a *RecordFailure that it is or wraps, otherwise with code 1,
// permanently, and its text. After a retryable failure the peer sends the records from there on again; those applied in parallel meanwhile
// are not applied twice. After any other failure, and when ctx or the stream ends, Apply returns the error. fn's ctx ends with Apply's. A
// panic or runtime.Goexit of fn ends Apply in the same way.
func Apply(ctx context.Context, s *Stream, fn func(context.Context, Record) error, opts *ApplyOptions) error {
	parallel := 1
	if opts != nil && opts.Parallel != 0 {
		parallel = opts.Parallel
	}
	switch {
	case s == nil:
		return &Error{Op: "apply", Err: fmt.Errorf("%w: stream is nil", ErrInvalid)}
	case fn == nil:
		return s.opError("apply", fmt.Errorf("%w: fn is nil", ErrInvalid))
	case parallel < 0:
		return s.opError("apply", fmt.Errorf("%w: ApplyOptions.Parallel is %d, want 0 or more", ErrInvalid, parallel))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := &applier{s: s, fn: fn, places: make(chan struct{}, parallel), done: make(map[uint64]bool)}
	a.cancel = cancel
	err := a.run(ctx)
	if err != nil {
		cancel()
	}
	a.running.Wait()
	switch why := a.unfinished; {
	case why == nil:
	case why.Panic == nil:
		runtime.Goexit()
	default:
		panic(fmt.Sprintf("%v\n\n%s", why.Panic, why.Stack))
	}
	if failed := a.outcome(); failed != nil {
		return failed
	}
	return err
}

// applier applies the records of one stream.
type applier struct {
	s       *Stream
	cancel  context.CancelFunc // ends fn's ctx, and the reading
	fn      func(context.Context, Record) error
	places  chan struct{} // holds a value for each running fn
	running sync.WaitGroup

	mu         sync.Mutex
	done       map[uint64]bool // applied, while an earlier record is not
	failed     bool            // a record has failed, and will be sent again
	unfinished *hook.Failure   // how an fn in its own goroutine ended without returning; nil: none has
	final      error           // a permanent failure, or why a record could not be acknowledged
}

func (a *applier) run(ctx context.Context) error {
	for {
		if err := a.outcome(); err != nil {
			return err
		}
		r, err := a.s.ReadRecord(ctx)
		if err == io.EOF {
			a.running.Wait() // one of them may fail, so that records are sent again
			if r, err = a.s.ReadRecord(ctx); err == io.EOF {
				return nil
			}
		}
		if err != nil {
			return err
		}
		select {
		case a.places <- struct{}{}:
		case <-ctx.Done():
			return a.s.opError("apply", ctx.Err())
		}
		switch {
		case !a.begin(r.Seq):
			<-a.places
		case cap(a.places) == 1:
			a.apply(ctx, r)
		default:
			a.running.Go(func() { hook.Run(func() { a.apply(ctx, r) }, a.catch) })
		}
	}
}

// begin reports whether the record seq must be applied. It may have been applied before it was sent again, or may be about to be sent
// again.
func (a *applier) begin(seq uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed { // running records may be sent again, and are applied then
		a.mu.Unlock()
		a.running.Wait()
		a.mu.Lock()
		a.failed = false
	}
	if a.done[seq] {
		a.advance()
	}
	return a.s.applied() < seq && !a.done[seq] && seq <= a.s.delivered() // an earlier record's acknowledgement may have covered it
}

// apply applies one record.
func (a *applier) apply(ctx context.Context, r Record) {
	err := hook.Err(a.fn(ctx, r))
	a.mu.Lock()
	defer a.mu.Unlock()
	<-a.places
	switch {
	case err == nil:
		a.done[r.Seq] = true
		a.advance()
	case ctx.Err() != nil: // fn was cut short, which says nothing about the record
	case a.final == nil:
		a.fail(r.Seq, err)
	}
}

// advance acknowledges the records that are applied without a gap. mu is held.
func (a *applier) advance() {
	last := a.s.applied()
	next := last
	for a.done[next+1] && next < a.s.delivered() {
		next++
		delete(a.done, next)
	}
	if next == last {
		return
	}
	if err := a.s.AckRecord(next); err != nil && a.final == nil {
		a.final = err
	}
}

// fail reports to the peer that a record could not be applied. mu is held.
func (a *applier) fail(seq uint64, err error) {
	f := &RecordFailure{FailedSeq: seq, Code: 1, Message: err.Error()}
	if given, ok := errors.AsType[*RecordFailure](err); ok {
		f.Code, f.Retryable, f.Message = given.Code, given.Retryable, given.Message
	}
	failed := a.s.Fail(seq, f.Code, f.Retryable, f.Message)
	switch {
	case errors.Is(failed, ErrRange): // an earlier record has failed, so this one is sent again
	case failed != nil:
		a.final = failed
	case f.Retryable:
		a.failed = true
	default:
		a.final = a.s.opError("apply", err)
	}
}

// catch makes Apply end in the same way as an fn that did not return.
func (a *applier) catch(why *hook.Failure) {
	if why != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.unfinished = why
		a.cancel()
	}
}

func (a *applier) outcome() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.final
}
