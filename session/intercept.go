package session

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/peerlane/peerlane/internal/hook"
)

// An Exchange is a call or message on its way through Interceptors.
type Exchange struct {
	Session *Session // nil for a call over pointsub's wire, which has none
	Peer    string   // the peer, as its owner names it
	Tag     string   // of the session
	Link    string   // the link; empty for the calls of a tag
	Inbound bool     // the peer has sent it
	OneWay  bool     // no reply is waited for
	// Value is the body. An interceptor may put another slice in its place before it calls next, but must not change the bytes.
	Value []byte
	// Reply is the reply, once next has returned nil, and an interceptor may put another slice in its place. It stays nil where the handler
	// of a link replies by itself.
	Reply []byte
}

// An Interceptor stands before the handlers of calls and messages of the peer, and before the sending of calls and messages of this side. It
// calls next, with ctx or one made from it, to continue, and returns next's error or one of its own. Without a call of next, nothing is sent or
// handled. An error goes to the caller: of an inbound exchange as that of a handler would, of an outbound one as an *Error, with the outcome of
// what next has done, or Rejected if next was not called, which a Client's Send does not try again. An *Error of its own keeps its outcome, but
// for Unknown without a call of next.
//
// The handler finds the ctx given to next in Message.Context. An interceptor runs in the goroutine of the handler or caller, whose panics pass
// through it. It is called for each attempt of a Client's Send, and for each message at its sender and its receiver; streams do not pass it.
type Interceptor func(ctx context.Context, x *Exchange, next func(context.Context) error) error

// Intercept adds interceptors behind those that are set already: the first one is called first. Those of a Mux come before those of its
// children. They apply to calls and messages from now on. Nil ones are ignored.
func (x *Mux) Intercept(interceptors ...Interceptor) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []Interceptor
	if old := x.chain.Load(); old != nil {
		all = slices.Clone(*old)
	}
	for _, i := range interceptors {
		if i != nil {
			all = append(all, i)
		}
	}
	x.chain.Store(&all)
}

// interceptors returns the interceptors of x, those of its parents first, or nil.
func (x *Mux) interceptors() []Interceptor {
	var all []Interceptor
	for ; x != nil; x = x.parent {
		if own := x.chain.Load(); own != nil {
			all = append(slices.Clip(*own), all...)
		}
	}
	return all
}

// Through runs last behind the interceptors of x. It is for calls that come and go without a session. The error of an outbound exchange is, or
// wraps, an *Error. It matches ErrInvalid for a nil argument.
func (x *Mux) Through(ctx context.Context, e *Exchange, last func(context.Context) error) error {
	if ctx == nil || e == nil || last == nil {
		return fmt.Errorf("session: %w: ctx, exchange or function is nil", ErrInvalid)
	}
	if e.Inbound {
		return through(ctx, e, x.interceptors(), last)
	}
	return sendThrough(ctx, "send", e, x.interceptors(), last)
}

func through(ctx context.Context, e *Exchange, chain []Interceptor, last func(context.Context) error) error {
	if len(chain) == 0 {
		return last(ctx)
	}
	return chain[0](ctx, e, func(ctx context.Context) error { return through(ctx, e, chain[1:], last) })
}

// sendThrough runs send, which sends x.Value, behind interceptors. The error is, or wraps, an *Error.
func (s *Session) sendThrough(ctx context.Context, op string, x *Exchange, chain []Interceptor, send func(context.Context) error) error {
	x.Session, x.Peer, x.Tag = s, s.peer, s.cfg.Tag
	return sendThrough(ctx, op, x, chain, send)
}

func sendThrough(ctx context.Context, op string, x *Exchange, chain []Interceptor, send func(context.Context) error) error {
	outcome, sent, last := Rejected, false, (*Error)(nil)
	err := hook.Err(through(ctx, x, chain, func(ctx context.Context) error {
		err := send(ctx)
		var now Outcome
		if last = nil; errors.As(err, &last) {
			now = last.Outcome
		} else if err == nil && !x.OneWay {
			now = Delivered
		}
		if sent && now != outcome {
			now = Unknown // it has been sent several times
		}
		outcome, sent = now, true
		return err
	}))
	var e *Error
	switch {
	case err == nil, errors.As(err, &e) && e == last:
		return err
	case e == nil:
		return &Error{Op: op, Peer: x.Peer, Link: x.Link, Outcome: outcome, Err: err}
	}
	own := &Error{Code: e.Code, RetryAfter: e.RetryAfter, Outcome: e.Outcome, Err: err} // e may be shared by all callers
	if err == error(e) {
		own.Text, own.Err, own.Details = e.Text, e.Err, e
	}
	own.Op, own.Peer, own.Link = op, x.Peer, x.Link
	if !sent && e.Outcome == Unknown {
		own.Outcome = Rejected
	}
	return own
}
