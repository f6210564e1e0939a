package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/internal/lane"
)

// One-way messages form a lane: the other side handles each side's messages one at a time, in the order sent. MESSAGE_ACK acknowledges the
// handled messages, which gives the sender both room in the window and the outcome.

// messages are the one-way messages of both sides.
type messages struct {
	out outLane
	in  inLane
}

// messageCharge is the charge of a one-way message in the window in addition to its bytes.
const messageCharge = 64

// maxFailures bounds the lane's failures kept for Flush.
const maxFailures = 64

// outLane is the sending side of the lane. Its fields are guarded by the session's mu. It is a source.
type outLane struct {
	s       *Session
	queue   queue[*oneWay] // admitted, in order, not yet sent whole
	queued  bool           // the lane is in the queue of ready sources
	unacked queue[*oneWay] // begun and not acknowledged, in order
	charge  int            // of all messages in queue or unacked
	held    lane.Held      // counts charge in the quota, in steps
	waiting line[*oneWay]  // not admitted: the window is full, or the quota has no room

	admitted, handled uint64 // how many in all
	flushers          []*flusher
	failures          []error  // since the last Flush, at most maxFailures
	failed            int      // since the last Flush
	untold            []*Error // failures of abort not yet reported to OnUndelivered
}

// oneWay is one message of the lane.
type oneWay struct {
	out      outgoing
	charge   int
	admitted chan struct{} // closed when it has been queued, or refused with err
	err      *Error
	gone     bool // its sender no longer waits
	failed   bool // its failure has been reported
}

// gaveUp reports whether the message no longer waits for the window.
func (o *oneWay) gaveUp() bool { return o.gone }

// onBegun and onSent do nothing: the lane keeps its own books.
func (o *oneWay) onBegun() {}
func (o *oneWay) onSent()  {}

func (o *oneWay) abort(*Error) {}

type flusher struct {
	target uint64
	done   chan struct{}
}

// Send queues value for the handler of link at the peer and returns; value may change afterwards. One-way messages of a session are handled
// one at a time in the order of Send, each once. Send waits for ctx while the peer's MessageWindow is full, or the Quota has no room for more of a
// peer that has opened the session. Flush and Config.OnUndelivered report what becomes of the message.
//
// The error is an *Error with outcome NotSent; it matches ErrTooLarge, the ctx's error, or why the session ended.
func (s *Session) Send(ctx context.Context, link string, value []byte) error {
	return s.send(ctx, outgoing{start: frame.Start{Link: link}}, value)
}

// send queues one message, behind the interceptors.
func (s *Session) send(ctx context.Context, head outgoing, value []byte) error {
	if chain := s.cfg.Mux.interceptors(); chain != nil {
		x := &Exchange{Link: head.start.Link, OneWay: true, Value: value}
		return s.sendThrough(ctx, "send", x, chain, func(ctx context.Context) error { return s.queue(ctx, head, x.Value) })
	}
	return s.queue(ctx, head, value)
}

func (s *Session) queue(ctx context.Context, head outgoing, value []byte) error {
	link := head.start.Link
	if err := s.checkSize("send", link, len(value)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return &Error{Op: "send", Peer: s.peer, Link: link, Outcome: NotSent, Err: err}
	}
	s.touchCall()
	o := &oneWay{out: head, charge: len(value) + messageCharge}
	o.out.s, o.out.owner, o.out.typ = s, o, frame.TypeMessage
	o.out.fill(value)
	if o.out.flags&frame.FlagCompressed == 0 {
		o.out.body = bytes.Clone(value)
	}
	s.mu.Lock()
	if err := s.refusalLocked("send", link); err != nil {
		s.mu.Unlock()
		return err
	}
	if s.messages.out.waiting.len() == 0 && s.messages.out.hasRoom(o) {
		s.messages.out.admit(o)
		s.mu.Unlock()
		return nil
	}
	o.admitted = make(chan struct{})
	s.messages.out.waiting.push(o)
	s.mu.Unlock()
	return s.awaitAdmission(ctx, o)
}

// awaitAdmission waits until o has been queued or refused, or ctx ends. No acknowledgement says that there is room in the quota again, so it looks
// now and then.
func (s *Session) awaitAdmission(ctx context.Context, o *oneWay) error {
	var retry lane.Retry
	for waits := true; waits && ctx.Err() == nil; {
		timer := time.NewTimer(retry.Next())
		select {
		case <-o.admitted:
			waits = false
		case <-ctx.Done():
		case <-timer.C:
			s.mu.Lock()
			s.messages.out.admitWaiting()
			s.mu.Unlock()
		}
		timer.Stop()
	}
	select {
	case <-o.admitted:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-o.admitted:
		default:
			o.gone = true
			o.out.dropLocked()
			s.messages.out.waiting.leave()
			s.checkIdleLocked()
			return &Error{Op: "send", Peer: s.peer, Link: o.out.start.Link, Outcome: NotSent, Err: ctx.Err()}
		}
	}
	if o.err != nil {
		return o.err
	}
	return nil
}

// hasRoom reports whether the peer's window, and the quota, have room for o.
func (l *outLane) hasRoom(o *oneWay) bool {
	return l.charge < int(l.s.limits.MessageWindow) && l.hold(l.charge+o.charge)
}

// Messages with a charge of less than uncharged together are not counted; others are in steps.
const (
	uncharged  = 16 << 10
	chargeStep = 64 << 10
)

// hold counts messages with a charge in the quota, and reports false if there is no room.
func (l *outLane) hold(charge int) bool {
	if charge <= uncharged {
		return l.held.UpTo(0)
	}
	return l.held.UpTo((charge + chargeStep - 1) / chargeStep * chargeStep)
}

// admitWaiting queues the messages that wait and have room now.
func (l *outLane) admitWaiting() {
	for l.waiting.len() > 0 && l.hasRoom(l.waiting.first()) {
		o := l.waiting.pop()
		l.admit(o)
		close(o.admitted)
	}
}

// admit queues o.
func (l *outLane) admit(o *oneWay) {
	l.charge += o.charge
	l.admitted++
	l.queue.push(o)
	if !l.queued {
		l.queued = true
		l.s.enqueueLocked(l)
	}
}

// next sends the next fragment of the first message, and continues with the next messages while they are small.
func (l *outLane) next(b []byte) ([]byte, bool) {
	for full := len(b) + l.s.out.part; l.queue.len() > 0 && len(b) < full; {
		o := *l.queue.peek()
		begun := o.out.begun
		var more bool
		b, more = o.out.next(b)
		if !begun {
			l.unacked.push(o)
			l.s.stats.messagesOut.Add(1)
		}
		if !more {
			l.queue.pop()
		}
	}
	l.queued = l.queue.len() > 0
	return b, l.queued
}

// awaits reports whether the first unacknowledged message has an id up to id.
func (l *outLane) awaits(id uint64) bool {
	return l.unacked.len() > 0 && (*l.unacked.peek()).out.id <= id
}

// onAck handles the peer's notice that every message up to id has been handled.
func (l *outLane) onAck(id uint64) error {
	if !l.awaits(id) || !l.s.ours(id) || id > l.s.ids.ours {
		return fmt.Errorf("MESSAGE_ACK of id %d: %w", id, frame.ErrMalformed)
	}
	for l.awaits(id) {
		o := *l.unacked.peek()
		if !o.out.gone {
			return fmt.Errorf("MESSAGE_ACK of id %d, which has not been sent whole: %w", id, frame.ErrMalformed)
		}
		l.unacked.pop()
		l.charge -= o.charge
		l.handled++
		l.s.end.moved++
	}
	l.hold(l.charge)
	l.admitWaiting()
	l.wakeFlushers(false)
	l.s.checkIdleLocked()
	return nil
}

// undelivered records the failure of message id, once, and reports whether there was such a message without a failure.
func (l *outLane) undelivered(id uint64, err *Error) bool {
	i := sort.Search(l.unacked.len(), func(i int) bool { return l.unacked.at(i).out.id >= id })
	if i == l.unacked.len() || l.unacked.at(i).out.id != id || l.unacked.at(i).failed {
		return false
	}
	o := l.unacked.at(i)
	o.failed = true
	err.Op, err.Peer, err.Link = "send", l.s.peer, o.out.start.Link
	l.note(err)
	switch {
	case l.s.cfg.OnUndelivered == nil && err.Outcome == Rejected:
		l.s.noteLostLocked(nil, err) // for Close, unless Flush returns it before
	case l.s.cfg.OnUndelivered != nil:
		l.s.mu.Unlock()
		defer l.s.mu.Lock()
		l.tell(err)
	}
	return true
}

// tell calls OnUndelivered. s.mu is not held. OnUndelivered may end its goroutine, and this goroutine is the session's.
func (l *outLane) tell(err *Error) {
	if hook.Do(func() { l.s.cfg.OnUndelivered(err) }) != nil {
		l.s.cfg.Logger.Error("OnUndelivered ended its goroutine", "link", err.Link, "peer", l.s.peer)
	}
}

// note keeps a failure for the next Flush.
func (l *outLane) note(err *Error) {
	l.s.stats.undelivered.Add(1)
	l.failed++
	if len(l.failures) < maxFailures {
		l.failures = append(l.failures, err)
	}
}

// refuseWaiting ends the Sends that wait for room in the window, because the peer accepts no more.
func (l *outLane) refuseWaiting(err *Error) {
	for l.waiting.len() > 0 {
		o := l.waiting.pop()
		o.err = &Error{Op: "send", Peer: l.s.peer, Link: o.out.start.Link, Outcome: NotSent, Code: err.Code, Err: err.cause()}
		close(o.admitted)
	}
}

// abort ends the lane with the session. It records the unacknowledged messages, for tellUndelivered too.
func (l *outLane) abort(err *Error) {
	l.queued = false
	end := func(o *oneWay, outcome Outcome) *Error {
		return &Error{Op: "send", Peer: l.s.peer, Link: o.out.start.Link, Outcome: outcome, Code: err.Code, Err: err.cause()}
	}
	l.refuseWaiting(err)
	report := func(o *oneWay, outcome Outcome) {
		if o.failed {
			return
		}
		e := end(o, outcome)
		l.note(e)
		l.s.noteLostLocked(nil, e)
		if l.s.cfg.OnUndelivered != nil {
			l.untold = append(l.untold, e)
		}
	}
	for l.unacked.len() > 0 {
		o := l.unacked.pop()
		report(o, l.s.outcomeOfLocked(&o.out))
	}
	for l.queue.len() > 0 {
		if o := l.queue.pop(); !o.out.begun {
			report(o, NotSent)
		}
	}
	l.held.End()
	l.wakeFlushers(true)
}

// tellUndelivered calls OnUndelivered for the failures that abort recorded. s.mu is not held; the session has ended.
func (l *outLane) tellUndelivered() {
	for _, err := range l.untold {
		l.tell(err)
	}
	l.untold = nil
}

func (l *outLane) wakeFlushers(all bool) {
	kept := l.flushers[:0]
	for _, f := range l.flushers {
		if all || f.target <= l.handled {
			close(f.done)
		} else {
			kept = append(kept, f)
		}
	}
	l.flushers = kept
}

// Flush waits until the peer has handled every one-way message that Send accepted before. It returns the joined failures of one-way
// messages since the last Flush, each an *Error with its outcome. It returns the ctx's error if the ctx ended first. If the session ended
// before all messages were acknowledged, the failures include each message not known to have been handled.
func (s *Session) Flush(ctx context.Context) error {
	s.mu.Lock()
	f := &flusher{target: s.messages.out.admitted, done: make(chan struct{})}
	if s.messages.out.handled >= f.target || s.err != nil {
		close(f.done)
	} else {
		s.messages.out.flushers = append(s.messages.out.flushers, f)
	}
	s.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.messages.out.flushers = slices.DeleteFunc(s.messages.out.flushers, func(x *flusher) bool { return x == f })
		return &Error{Op: "flush", Peer: s.peer, Err: ctx.Err()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	failures := s.messages.out.failures
	if more := s.messages.out.failed - len(failures); more > 0 {
		failures = append(failures, fmt.Errorf("and %d more", more))
	}
	s.messages.out.failures, s.messages.out.failed = nil, 0
	s.forgetErrorsLocked(failures)
	return errors.Join(failures...)
}
