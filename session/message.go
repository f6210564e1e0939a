package session

import (
	"context"
	"fmt"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/hook"
)

// A Message is one value sent to a link, or the reply to one. Its fields belong to the receiver.
type Message struct {
	Link  string // the link it was sent to; "" for a tag's calls and for replies
	Value []byte // the body; never nil

	s     *Session
	codec string
	ctx   callCtx
	in    assembly
	out   outgoing
	id    uint64
	held  int           // bytes taken from the quota
	wait  time.Duration // before the body is unpacked

	passed     *passage // behind interceptors; nil: there are none
	handleCall callFunc // one of the two, chosen when the first part arrived
	handle     func(*Message)
	oneWay     bool
	done       bool // the handler has returned its reply, and needs the request no more

	// Guarded by s.mu.
	started   bool        // the handler has been started
	returned  bool        // the handler has returned
	replied   bool        // Reply or a refusal has been queued
	emitted   bool        // it has been sent
	cancelled bool        // the caller gave up, or the session ended
	later     bool        // ReplyLater
	counted   bool        // holds a handler's place in the quota
	unwatch   func() bool // stops the watch over the session once the reply has been sent; nil if there is none
}

// passage is a message of the peer behind interceptors.
type passage struct {
	ctx     context.Context // given to the handler
	refusal error           // of Refuse; guarded by s.mu
}

// Session returns the session that the message arrived on.
func (m *Message) Session() *Session { return m.s }

// Context returns the request's context. It ends when the sender gives up, when its deadline passes, with the session, and at the latest
// when the handler has returned and the reply has been sent. A one-way message's context ends with the session. It has the values that
// interceptors have given it.
func (m *Message) Context() context.Context {
	if m.passed != nil {
		return m.passed.ctx
	}
	if m.oneWay || m.id == 0 {
		return m.s.ctx
	}
	return &m.ctx
}

// WantsReply reports whether the sender waits for Reply.
func (m *Message) WantsReply() bool { return !m.oneWay && m.id != 0 }

// Object decodes the value into v with the codec that made it; a value without a codec is decoded as JSON. It returns an *Error, which
// matches ErrUnsupported if the codec is not registered on this side.
func (m *Message) Object(v any) error { return m.s.decode(m.Link, m.codec, m.Value, v) }

// Reply answers the message with a copy of value. Nil means that the reply is on its way: if the session is lost before it arrives, the
// sender's call returns an error with outcome Unknown. Reply returns ErrReplied on the second call, ErrOneWay if the sender waits for no
// reply, an error that matches context.Canceled if the sender has given up (the reply is dropped and counted), one that matches ErrTooLarge
// if value exceeds either side's MaxMessage, and one that matches ErrUnavailable if the Quota has no room for it, as when the peer does not
// read its replies. In the last two cases the sender receives codes.ReplyTooLarge.
func (m *Message) Reply(value []byte) error {
	return m.reply(outgoing{}, append([]byte{}, value...))
}

// ReplyObj answers the message with v, encoded by the codec called name ("" is JSON). It is otherwise like Reply.
func (m *Message) ReplyObj(name string, v any) error {
	head, value, err := m.s.object("", name, v)
	if err != nil {
		return err
	}
	return m.reply(head, value)
}

// ReplyLater lets the handler return before Reply is called. Without it, the sender receives an error as soon as a handler returns without
// a reply. It has no effect on a one-way message.
func (m *Message) ReplyLater() {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.later = true
}

// Refuse answers the message with an error instead of a value: err's text with codes.Application, or, if err is an *Error
// with a Code, that Code, Text and RetryAfter. It returns what Reply returns.
func (m *Message) Refuse(err error) error {
	if !m.WantsReply() {
		return ErrOneWay
	}
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if !m.replied && m.passed != nil {
		m.passed.refusal = failed(failureOf(err))
	}
	return m.refuseLocked(failureOf(err))
}

// failureOf returns the wire form of a handler's error. A nil error gives a failure without a text.
func failureOf(err error) frame.Failure {
	e, own := err.(*Error) //nolint:errorlint // a wrapped one is about other work, and says nothing about this
	if err == nil || own && e == nil {
		return frame.Failure{Code: codes.Application}
	}
	if own && !e.Remote && e.Code != codes.OK && outcomes[e.Code] != NotSent {
		text := e.Text
		if text == "" {
			text = err.Error()
		}
		return frame.Failure{Code: e.Code, RetryAfter: e.RetryAfter, Text: text}
	}
	return frame.Failure{Code: codes.Application, Text: err.Error()}
}

// reply queues the answer, once. value must not change before it has been sent.
func (m *Message) reply(head outgoing, value []byte) error {
	if !m.WantsReply() {
		return ErrOneWay
	}
	s := m.s
	if most, ours := s.mostOut(); len(value) > most {
		text := fmt.Sprintf("reply of %d bytes, the caller takes at most %d", len(value), most)
		if ours {
			text = fmt.Sprintf("reply of %d bytes, MaxMessage of the handler's side is %d", len(value), most)
		}
		if err := m.refuse(frame.Failure{Code: codes.ReplyTooLarge, Text: text}); err != nil {
			return err
		}
		return &Error{Op: "reply", Peer: s.peer, Link: m.Link, Code: codes.TooLarge, Outcome: NotSent, Text: text}
	}
	head.s, head.owner, head.typ, head.id = s, m, frame.TypeResponse, m.id
	head.fill(value)
	s.mu.Lock()
	if err := m.claimReplyLocked(); err != nil {
		s.mu.Unlock()
		return err
	}
	if f := s.takeReplyLocked(m, len(head.body)); f.Code != codes.OK {
		s.mu.Unlock()
		return m.dropReply(len(head.body), f)
	}
	m.out = head
	s.enqueueLocked(&m.out)
	s.mu.Unlock()
	return nil
}

// dropReply tells the caller that there is no room for the reply: this side holds too many that have not been sent, of this peer.
func (m *Message) dropReply(n int, why frame.Failure) error {
	s := m.s
	text := fmt.Sprintf("no room for the reply of %d bytes until others have been read: %s", n, why.Text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.refused.Add(1)
	s.controlFailureLocked(frame.TypeError, m.id, frame.Failure{Code: codes.ReplyTooLarge, Text: text})
	m.onSent()
	return &Error{Op: "reply", Peer: s.peer, Link: m.Link, Code: codes.Unavailable, Outcome: NotSent, Text: text}
}

// refuse answers with a failure, once.
func (m *Message) refuse(f frame.Failure) error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	return m.refuseLocked(f)
}

// refuseLocked is refuse.
func (m *Message) refuseLocked(f frame.Failure) error {
	if err := m.claimReplyLocked(); err != nil {
		return err
	}
	m.s.controlFailureLocked(frame.TypeError, m.id, f)
	m.onSent()
	return nil
}

// claimReplyLocked marks the one reply as given, or returns why none can be given.
func (m *Message) claimReplyLocked() error {
	switch {
	case m.replied:
		return ErrReplied
	case m.cancelled:
		m.replied = true
		m.s.stats.late.Add(1)
		return &Error{Op: "reply", Peer: m.s.peer, Link: m.Link, Code: codes.Cancelled, Outcome: NotSent,
			Text: "the sender no longer waits"}
	}
	m.replied = true
	m.endCallLocked() // the caller, once it has the answer, may call again at once
	return nil
}

// endCallLocked releases the handler's place in the quota, once.
func (m *Message) endCallLocked() {
	if m.counted {
		m.counted = false
		m.s.part.release(fair.Calls, 1)
	}
}

func (m *Message) onBegun() {}

// onSent marks the answer as sent: the peer may use its place again. s.mu is held.
func (m *Message) onSent() {
	m.emitted = true
	delete(m.s.requests.open, m.id)
	if m.started && !m.returned { // the session no longer knows the request, and its handler still runs
		m.unwatch = context.AfterFunc(m.s.ctx, func() { m.ctx.end(context.Canceled) })
	}
	m.settleLocked()
}

// abort is called by the writer when the session ended before the answer was sent.
func (m *Message) abort(*Error) { m.cancelLocked(context.Canceled) }

// cancelLocked ends the request from outside.
func (m *Message) cancelLocked(err error) {
	if m.cancelled || m.emitted {
		return
	}
	m.cancelled = true
	delete(m.s.requests.open, m.id)
	m.out.dropLocked()
	if !m.started {
		m.s.requests.partial--
		m.in.drop()
	}
	m.settleLocked()
	m.ctx.end(err)
}

// settleLocked releases the request's resources once they are no longer used.
func (m *Message) settleLocked() {
	if m.started && !m.returned || !m.emitted && !m.cancelled {
		return
	}
	m.s.part.release(fair.Bytes, m.held)
	m.held = 0
	m.ctx.end(context.Canceled) // releases its timer and derived contexts
	m.s.checkIdleLocked()
}

// hookMessage reports a call or message to OnMessage, in the goroutine of its handler.
func (s *Session) hookMessage(m *Message) {
	if s.events.line == nil || s.cfg.Hooks.OnMessage == nil || !s.events.line.enter() {
		return
	}
	hook.Run(func() { s.cfg.Hooks.OnMessage(s, m) }, func(why *hook.Failure) {
		s.events.line.leave()
		logHook(s.cfg.Logger, why, "OnMessage", s.peer)
	})
}

// handleThrough runs the handler of m behind interceptors, and sends the reply of a callFunc. An error of theirs, or of the handler, is left to
// the caller.
func (m *Message) handleThrough(chain []Interceptor) error {
	s := m.s
	x := &Exchange{Session: s, Peer: s.peer, Tag: s.cfg.Tag, Link: m.Link, Inbound: true, OneWay: m.oneWay, Value: m.Value}
	err := through(m.Context(), x, chain, func(ctx context.Context) (err error) {
		m.Value, m.passed = x.Value, &passage{ctx: ctx}
		if m.handleCall != nil {
			x.Reply, err = m.handleCall(m)
			return err
		}
		m.handle(m)
		s.mu.Lock()
		defer s.mu.Unlock()
		return m.passed.refusal
	})
	if m.handleCall == nil || m.oneWay {
		return err
	}
	m.done = true
	if err == nil {
		_ = m.reply(outgoing{}, x.Reply) // the caller may have left meanwhile; a reply that is too large has been refused
	}
	return err
}
