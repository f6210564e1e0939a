package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sort"

	"github.com/peerlane/peerlane/frame"
)

// One-way messages are a lane: each side's are handled by the other one at a time, in the order sent. MESSAGE_ACK tells
// how far the handling is, which gives the sender both room in the window and the outcome.

// messageCharge is what a one-way message counts in the window beside its bytes.
const messageCharge = 64

// Bounds of the lane's failures that wait for Flush.
const maxFailures = 64

// outLane is the sending side of the lane. Its fields are guarded by the session's mu. It is a source.
type outLane struct {
	s       *Session
	queue   queue[*oneWay] // admitted, in order, not yet sent whole
	queued  bool           // the lane stands among the ready sources
	unacked queue[*oneWay] // begun and not acknowledged, in order
	charge  int            // of all that is in queue or unacked
	waiting line[*oneWay]  // not admitted: the window is full

	admitted, handled uint64 // how many in all
	flushers          []*flusher
	failures          []error  // since the last Flush, at most maxFailures
	failed            int      // since the last Flush
	untold            []*Error // failures of abort that OnUndelivered has not been told
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

// gaveUp tells the line of those that wait for the window.
func (o *oneWay) gaveUp() bool { return o.gone }

// onBegun and onSent have nothing to do: the lane keeps the books.
func (o *oneWay) onBegun() {}
func (o *oneWay) onSent()  {}

func (o *oneWay) abort(*Error) {}

type flusher struct {
	target uint64
	done   chan struct{}
}

// Send queues value for the handler of link at the peer and returns; value may change afterwards. One-way messages of a
// session are handled one at a time in the order of Send, each once. Send waits for ctx while the peer's MessageWindow
// is full. What becomes of it afterwards is told by Flush and by Config.OnUndelivered.
//
// The error is an *Error with outcome NotSent; it matches ErrTooLarge, the ctx's error, or why the session ended.
func (s *Session) Send(ctx context.Context, link string, value []byte) error {
	return s.send(ctx, outgoing{start: frame.Start{Link: link}}, value)
}

func (s *Session) send(ctx context.Context, head outgoing, value []byte) error {
	link := head.start.Link
	if err := s.checkSize("send", link, len(value)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return &Error{Op: "send", Peer: s.peer, Link: link, Outcome: NotSent, Err: err}
	}
	s.touch()
	o := &oneWay{out: head, charge: len(value) + messageCharge}
	o.out.s, o.out.owner, o.out.typ = s, o, frame.TypeMessage
	o.out.fill(value)
	if o.out.flags&frame.FlagCompressed == 0 {
		o.out.body = bytes.Clone(value)
	}
	s.mu.Lock()
	if err := s.refusal("send", link); err != nil {
		s.mu.Unlock()
		return err
	}
	if s.lane.waiting.len() == 0 && s.lane.hasRoom() {
		s.lane.admit(o)
		s.mu.Unlock()
		return nil
	}
	o.admitted = make(chan struct{})
	s.lane.waiting.push(o)
	s.mu.Unlock()
	return s.awaitAdmission(ctx, o)
}

// awaitAdmission waits until o has been queued.
func (s *Session) awaitAdmission(ctx context.Context, o *oneWay) error {
	select {
	case <-o.admitted:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-o.admitted:
		default:
			o.gone = true
			o.out.drop()
			s.lane.waiting.leave()
			s.checkIdle()
			return &Error{Op: "send", Peer: s.peer, Link: o.out.start.Link, Outcome: NotSent, Err: ctx.Err()}
		}
	}
	if o.err != nil {
		return o.err
	}
	return nil
}

func (l *outLane) hasRoom() bool { return l.charge < int(l.s.limits.MessageWindow) }

// admit queues o.
func (l *outLane) admit(o *oneWay) {
	l.charge += o.charge
	l.admitted++
	l.queue.push(o)
	if !l.queued {
		l.queued = true
		l.s.enqueue(l)
	}
}

// next sends the first message's next fragment, and goes on to the next message while they are small.
func (l *outLane) next(b []byte) ([]byte, bool) {
	for full := len(b) + fragment; l.queue.len() > 0 && len(b) < full; {
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

// awaits reports whether id is a message that has begun and is not acknowledged.
func (l *outLane) awaits(id uint64) bool {
	return l.unacked.len() > 0 && (*l.unacked.peek()).out.id <= id
}

// onAck takes the peer's word that every message up to id has been handled.
func (l *outLane) onAck(id uint64) error {
	if !l.awaits(id) || !l.s.ours(id) || id > l.s.lastID {
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
	}
	for l.waiting.len() > 0 && l.hasRoom() {
		o := l.waiting.pop()
		l.admit(o)
		close(o.admitted)
	}
	l.wakeFlushers(false)
	l.s.checkIdle()
	return nil
}

// undelivered notes the failure of the message id, once, and reports whether there is such a message.
func (l *outLane) undelivered(id uint64, err *Error) bool {
	i := sort.Search(l.unacked.len(), func(i int) bool { return l.unacked.at(i).out.id >= id })
	if i == l.unacked.len() || l.unacked.at(i).out.id != id || l.unacked.at(i).failed {
		return false
	}
	o := l.unacked.at(i)
	o.failed = true
	err.Op, err.Peer, err.Link = "send", l.s.peer, o.out.start.Link
	l.note(err)
	if l.s.cfg.OnUndelivered != nil {
		l.s.mu.Unlock()
		defer l.s.mu.Lock()
		l.s.cfg.OnUndelivered(err)
	}
	return true
}

// note keeps a failure for the next Flush.
func (l *outLane) note(err *Error) {
	l.s.stats.undelivered.Add(1)
	l.failed++
	if len(l.failures) < maxFailures {
		l.failures = append(l.failures, err)
	}
}

// abort ends the lane with the session: what has not been acknowledged is noted, for tellUndelivered too.
func (l *outLane) abort(err *Error) {
	l.queued = false
	end := func(o *oneWay, outcome Outcome) *Error {
		return &Error{Op: "send", Peer: l.s.peer, Link: o.out.start.Link, Outcome: outcome, Code: err.Code, Err: err.cause()}
	}
	for l.waiting.len() > 0 {
		o := l.waiting.pop()
		o.err = end(o, NotSent)
		close(o.admitted)
	}
	report := func(o *oneWay, outcome Outcome) {
		if o.failed {
			return
		}
		e := end(o, outcome)
		l.note(e)
		if l.s.cfg.OnUndelivered != nil {
			l.untold = append(l.untold, e)
		}
	}
	for l.unacked.len() > 0 {
		o := l.unacked.pop()
		outcome := NotSent
		if o.out.gone {
			outcome = Unknown
		}
		report(o, outcome)
	}
	for l.queue.len() > 0 {
		if o := l.queue.pop(); !o.out.begun {
			report(o, NotSent)
		}
	}
	l.wakeFlushers(true)
}

// tellUndelivered calls OnUndelivered with what abort noted. s.mu is not held; the session has ended.
func (l *outLane) tellUndelivered() {
	for _, err := range l.untold {
		l.s.cfg.OnUndelivered(err)
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

// Flush waits until the peer has handled every one-way message that Send took before. It returns the failures of one-way
// messages since the last Flush, each an *Error with its outcome, joined; the ctx's error if that ended first; or, when
// the session ended before all were acknowledged, what is not known to have been handled.
func (s *Session) Flush(ctx context.Context) error {
	s.mu.Lock()
	f := &flusher{target: s.lane.admitted, done: make(chan struct{})}
	if s.lane.handled >= f.target || s.err != nil {
		close(f.done)
	} else {
		s.lane.flushers = append(s.lane.flushers, f)
	}
	s.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lane.flushers = slices.DeleteFunc(s.lane.flushers, func(x *flusher) bool { return x == f })
		return &Error{Op: "flush", Peer: s.peer, Err: ctx.Err()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	failures := s.lane.failures
	if more := s.lane.failed - len(failures); more > 0 {
		failures = append(failures, fmt.Errorf("and %d more", more))
	}
	s.lane.failures, s.lane.failed = nil, 0
	return errors.Join(failures...)
}

// SendWait sends value to the handler of link at the peer and waits for its Reply. It is Call otherwise: concurrent
// SendWaits are handled concurrently, and are not ordered with Send.
func (s *Session) SendWait(ctx context.Context, link string, value []byte) (*Message, error) {
	a, err := s.call(ctx, "send", outgoing{start: frame.Start{Link: link}}, value)
	if err != nil {
		return nil, err
	}
	return &Message{s: s, Value: a.value, codec: a.codec, oneWay: true}, nil
}

// inLane is the receiving side of the lane. Its fields are guarded by the session's mu.
type inLane struct {
	current *Message // the one that is not yet whole; nil if none
	queue   queue[*Message]
	running bool   // deliver runs
	charge  int    // of all that has begun to arrive and has not been acknowledged
	handled uint64 // id of the last one handled
	toAck   int    // charge of those handled and not acknowledged
}

func (l *inLane) assembling(id uint64) bool { return l.current != nil && l.current.id == id }

// onMessage takes the first part of a one-way message. s.mu is held.
func (s *Session) onMessage(h frame.Header, p []byte) error {
	start, body, err := s.consumeStart(h, p)
	if err != nil {
		return err
	}
	if err := s.acceptID(h.Type, h.ID); err != nil {
		return err
	}
	if s.inbox.current != nil {
		return fmt.Errorf("MESSAGE %d before the end of %d: %w", h.ID, s.inbox.current.id, frame.ErrMalformed)
	}
	if s.inbox.charge >= s.cfg.MessageWindow {
		return fmt.Errorf("MESSAGE %d beyond the window of %d bytes: %w", h.ID, s.cfg.MessageWindow, frame.ErrMalformed)
	}
	m := &Message{s: s, id: h.ID, Link: start.Link, codec: start.Codec, oneWay: true}
	m.in.begin(start, h.Flags)
	s.inbox.charge += m.in.size() + messageCharge
	s.inbox.current = m
	s.partial++
	s.stats.messagesIn.Add(1)
	m.handleCall, m.handle = s.cfg.Mux.handler(m.Link)
	switch {
	case m.in.size() > s.cfg.MaxMessage || start.Total > s.cfg.MaxMessage:
		s.skip(m, tooLarge(m.in.size(), s.cfg.MaxMessage))
	case m.handleCall == nil && m.handle == nil:
		s.skip(m, frame.Failure{Code: frame.CodeNotFound, Text: fmt.Sprintf("no handler for link %q", m.Link)})
	}
	s.touch()
	return s.addMessage(body)
}

// skip refuses a one-way message; what is still to come of it is passed over. s.mu is held.
func (s *Session) skip(m *Message, f frame.Failure) {
	s.stats.refused.Add(1)
	s.controlFailure(frame.TypeError, m.id, f)
	m.cancelled = true
	m.in.drop()
	s.cfg.Quota.Release(m.held)
	m.held = 0
}

// addMessage takes a part of the current one-way message, and hands it on when it is whole. s.mu is held.
func (s *Session) addMessage(p []byte) error {
	m := s.inbox.current
	if len(p) > 0 || m.in.progress == 0 { // an empty part is no progress
		m.in.progress = s.elapsed()
	}
	if !m.cancelled && !s.take(m, len(p)) {
		s.skip(m, noMemory)
	}
	if m.cancelled {
		if m.in.got += len(p); m.in.got > m.in.start.Total {
			return fmt.Errorf("message %d goes past its %d bytes: %w", m.id, m.in.start.Total, frame.ErrMalformed)
		}
	} else if err := m.in.add(p); err != nil {
		return err
	}
	if !m.in.complete() {
		return nil
	}
	s.inbox.current = nil
	s.partial--
	s.inbox.queue.push(m)
	if !s.inbox.running {
		s.inbox.running = true
		go s.deliver()
	}
	return nil
}

// deliver runs the handlers of the one-way messages that have arrived, one at a time. It is a goroutine of its own; it
// ends when there is none left or the session has ended.
func (s *Session) deliver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.delivered()
	for s.inbox.queue.len() > 0 && s.err == nil {
		s.deliverNext()
	}
}

// delivered ends deliver, also when a handler has ended its goroutine by runtime.Goexit. s.mu is held.
func (s *Session) delivered() {
	if s.inbox.queue.len() > 0 && s.err == nil {
		go s.deliver()
		return
	}
	s.inbox.running = false
	s.checkIdle()
}

// deliverNext runs the handler of the first message. s.mu is held, and released meanwhile.
func (s *Session) deliverNext() {
	m := s.inbox.queue.pop()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.cfg.Quota.Release(m.held)
		m.held = 0
		s.inbox.handled = m.id
		s.inbox.toAck += m.in.size() + messageCharge
		s.ackMessages()
	}()
	if !m.cancelled {
		s.deliverOne(m)
	}
}

// ackMessages tells the sender how far the handling is, once it is worth a frame. s.mu is held.
func (s *Session) ackMessages() {
	if s.inbox.queue.len() > 0 && s.inbox.toAck < s.cfg.MessageWindow/4 {
		return
	}
	s.inbox.charge -= s.inbox.toAck
	s.inbox.toAck = 0
	s.control(frame.Header{Type: frame.TypeMessageAck, ID: s.inbox.handled}, nil)
}

// deliverOne runs the handler of one message. A failure is told to the sender.
func (s *Session) deliverOne(m *Message) {
	refuse := func(f frame.Failure) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.controlFailure(frame.TypeError, m.id, f)
	}
	value, err := s.takeBody(m)
	if err != nil {
		refuse(failureOf(err))
		return
	}
	m.Value = value
	defer func() {
		if v := recover(); v != nil {
			s.cfg.Logger.Error("handler panicked", "link", m.Link, "peer", s.peer, "panic", v, "stack", string(debug.Stack()))
			refuse(frame.Failure{Code: frame.CodeInternal, Text: fmt.Sprintf("handler panicked: %v", v)})
		}
	}()
	s.touch()
	if m.handle != nil {
		m.handle(m)
	} else if _, err := m.handleCall(m); err != nil {
		refuse(failureOf(err))
	}
}

// abortLocked gives back what the lane holds. s.mu is held.
func (l *inLane) abortLocked(s *Session) {
	if l.current != nil {
		l.current.in.drop()
		s.cfg.Quota.Release(l.current.held)
		l.current = nil
	}
	for l.queue.len() > 0 {
		m := l.queue.pop()
		m.in.drop()
		s.cfg.Quota.Release(m.held)
	}
}
