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

// ApplyOptions are for Apply. Nil is as good as the zero value.
type ApplyOptions struct {
	// Parallel is how many records are applied at once. If zero, 1: one after the other. A negative one is ErrInvalid.
	Parallel int
}

// Apply reads records and has fn apply them, in their order, and acknowledges each when fn has returned without an error. It returns
// nil when the peer has written all, and they are applied.
//
// With Parallel, fn is called for several at once, begun in their order; a record is acknowledged once all before it are applied.
//
// An error of fn fails the record: with the Code, Retryable and Message of a *RecordFailure that it is or wraps, otherwise with
// code 1, for good, and its text. After a retryable one the records from there on come again when the peer sends them; those that
// have been applied in parallel meanwhile are not applied twice. After another, and when ctx ends, or the stream, Apply returns the
// error. fn's ctx ends with Apply's. A panic of fn, or its runtime.Goexit, is Apply's.
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
	places  chan struct{} // holds a value for each fn that runs
	running sync.WaitGroup

	mu         sync.Mutex
	done       map[uint64]bool // applied, and a record before is not
	failed     bool            // a record has, and is to come again
	unfinished *hook.Failure   // how fn has ended, in a goroutine of its own, that did not return; nil: none has
	final      error           // a failure that is not retryable, or why a record could not be acknowledged
}

func (a *applier) run(ctx context.Context) error {
	for {
		if err := a.outcome(); err != nil {
			return err
		}
		r, err := a.s.ReadRecord(ctx)
		if err == io.EOF {
			a.running.Wait() // one of them may fail, and records come again
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

// begin reports whether the record seq is to be applied: it may have been, before it came again, or be about to come again.
func (a *applier) begin(seq uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed { // what runs may come again: it is done then
		a.mu.Unlock()
		a.running.Wait()
		a.mu.Lock()
		a.failed = false
	}
	if a.done[seq] {
		a.advance()
	}
	return a.s.applied() < seq && !a.done[seq] && seq <= a.s.delivered() // one before it may have had it acknowledged
}

// apply applies one record.
func (a *applier) apply(ctx context.Context, r Record) {
	err := a.fn(ctx, r)
	a.mu.Lock()
	defer a.mu.Unlock()
	<-a.places
	switch {
	case err == nil:
		a.done[r.Seq] = true
		a.advance()
	case ctx.Err() != nil: // it was cut short: that says nothing about the record
	case a.final == nil:
		a.fail(r.Seq, err)
	}
}

// advance acknowledges what is applied without a gap. mu is held.
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

// fail tells the peer that a record could not be applied. mu is held.
func (a *applier) fail(seq uint64, err error) {
	f := &RecordFailure{FailedSeq: seq, Code: 1, Message: err.Error()}
	var given *RecordFailure
	if errors.As(err, &given) {
		f.Code, f.Retryable, f.Message = given.Code, given.Retryable, given.Message
	}
	failed := a.s.Fail(seq, f.Code, f.Retryable, f.Message)
	switch {
	case errors.Is(failed, ErrRange): // a record before it has failed: it comes again
	case failed != nil:
		a.final = failed
	case f.Retryable:
		a.failed = true
	default:
		a.final = a.s.opError("apply", err)
	}
}

// catch has Apply end as fn has, which did not return.
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
