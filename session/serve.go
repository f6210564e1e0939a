package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/internal/zstd"
)

// requests are the calls of the peer.
type requests struct {
	open    map[uint64]*Message // neither answered nor cancelled
	running int                 // running handlers, including those of cancelled requests
	partial int                 // incomplete bodies of the peer, of one-way messages too
	served  int                 // requests accepted in all
	pace    fair.Pace           // of incomplete bodies, over all of them: they share a link
}

// onRequest handles the first part of a request. s.mu is held.
func (s *Session) onRequest(h frame.Header, p []byte) error {
	start, body, err := s.consumeStartLocked(h, p)
	if err != nil {
		return err
	}
	if err := s.acceptIDLocked(h.Type, h.ID); err != nil {
		return err
	}
	if len(s.requests.open) >= s.cfg.MaxInFlight {
		return fmt.Errorf("more than %d requests in flight: %w", s.cfg.MaxInFlight, frame.ErrMalformed)
	}
	m := &Message{s: s, id: h.ID, Link: start.Link, codec: start.Codec}
	m.in.begin(start, h.Flags)
	if f := s.admitLocked(m, len(body)); f.Code != codes.OK {
		s.noteRefused("call", m.Link, f)
		s.refuseLocked(frame.TypeError, h.ID, f)
		return nil
	}
	now := s.touchCall()
	if start.Timeout > 0 {
		m.ctx.deadline = s.started.Add(now + start.Timeout)
	}
	s.requests.open[h.ID] = m
	s.requests.partial++
	s.requests.served++
	s.stats.requestsIn.Add(1)
	if s.requests.served == s.cfg.MaxRequests {
		s.drainLocked(frame.Failure{Code: codes.GoingAway, Text: "MaxRequests served"})
	}
	return s.addRequestLocked(m, body)
}

// admitLocked decides whether to accept a request, from its head, and takes its place in the quota.
func (s *Session) admitLocked(m *Message, arrived int) frame.Failure {
	call, fn, refusal := s.cfg.Mux.handler(m.Link)
	m.handleCall, m.handle = call, fn
	size := m.in.refusal(s.cfg.MaxMessage)
	switch {
	case s.end.ours >= phaseDraining:
		return frame.Failure{Code: codes.GoingAway}
	case size.Code != codes.OK:
		return size
	case refusal.Code != codes.OK:
		return refusal
	case s.requests.running >= 2*s.cfg.MaxInFlight:
		return frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: "too many cancelled calls still run"}
	}
	return s.take(m, arrived)
}

// tooManyPacked refuses a compressed body behind too many others of the peer.
var tooManyPacked = noRoom("too many compressed bodies wait to be unpacked")

// take reserves n more bytes for m, or returns the refusal.
func (s *Session) take(m *Message, n int) frame.Failure {
	f := s.part.take(fair.Bytes, n)
	if f.Code == codes.OK {
		m.held += n
	}
	return f
}

// takeReplyLocked reserves n bytes for the reply to m, or returns the refusal. A request that its handler has done with makes room for it.
func (s *Session) takeReplyLocked(m *Message, n int) frame.Failure {
	if !m.done {
		return s.take(m, n)
	}
	if n <= m.held {
		s.part.release(fair.Bytes, m.held-n)
		m.held = n
		return frame.Failure{}
	}
	f := s.take(m, n-m.held)
	if f.Code != codes.OK {
		s.part.release(fair.Bytes, m.held)
		m.held = 0
	}
	return f
}

// addRequestLocked handles a part of a request's body, and starts the handler when the body is complete.
func (s *Session) addRequestLocked(m *Message, p []byte) error {
	if err := m.in.add(p); err != nil {
		return err
	}
	if len(p) > 0 || m.in.progress == 0 { // an empty part is no progress
		m.in.progress = s.carriedLocked()
	}
	if !m.in.complete() {
		s.requests.pace.Add(len(p))
		return nil
	}
	f := s.pace(m)
	if f.Code == codes.OK && !m.in.packed() { // a packed one takes its place when it is unpacked
		f = s.countCallLocked(m)
	}
	if f.Code != codes.OK {
		s.refusePartialLocked(m, f)
		return nil
	}
	m.started = true
	s.requests.partial--
	s.requests.running++
	go s.serve(m)
	return nil
}

// countCallLocked takes a place for the handler of m, or returns the refusal.
func (s *Session) countCallLocked(m *Message) frame.Failure {
	f := s.part.take(fair.Calls, 1)
	m.counted = f.Code == codes.OK
	return f
}

// onContinue handles a further part of a request, an answer or a one-way message. s.mu is held.
func (s *Session) onContinue(h frame.Header, p []byte) error {
	if s.ours(h.ID) {
		if c := s.calls.pending[h.ID]; c != nil && c.reply.start.Total > 0 {
			return c.addReplyLocked(p)
		}
		return s.checkOursLocked(h)
	}
	if m := s.requests.open[h.ID]; m != nil && !m.started {
		if f := s.take(m, len(p)); f.Code != codes.OK {
			s.refusePartialLocked(m, f)
			return nil
		}
		return s.addRequestLocked(m, p)
	}
	if s.messages.in.assembling(h.ID) {
		return s.addMessageLocked(p)
	}
	if h.ID > s.ids.theirs {
		return fmt.Errorf("CONTINUE of id %d, which was never opened: %w", h.ID, frame.ErrMalformed)
	}
	return nil // the rest of something refused or cancelled
}

// refusePartialLocked answers an incomplete request with f and forgets it.
func (s *Session) refusePartialLocked(m *Message, f frame.Failure) {
	s.noteRefused("call", m.Link, f)
	m.replied = true
	s.controlFailureLocked(frame.TypeError, m.id, f)
	m.cancelLocked(context.Canceled)
}

// onCancel handles the peer's notice that it no longer waits. s.mu is held.
func (s *Session) onCancel(h frame.Header) error {
	if s.ours(h.ID) || h.ID > s.ids.theirs {
		return fmt.Errorf("CANCEL of id %d: %w", h.ID, frame.ErrMalformed)
	}
	if m := s.requests.open[h.ID]; m != nil {
		s.stats.cancelled.Add(1)
		m.cancelLocked(context.Canceled)
	}
	return nil
}

// serve runs the handler of one request. It runs in its own goroutine, which ends when the handler returns. The answer reports the result
// to the caller.
func (s *Session) serve(m *Message) {
	defer s.finishServe(m)
	if f := s.awaitOpen(); f.Code != codes.OK {
		m.in.drop()
		_ = m.refuse(f) // the caller may have left meanwhile
		return
	}
	value, err := s.takeBody(m)
	if err != nil {
		_ = m.refuse(failureOf(err)) // the caller may have left meanwhile
		return
	}
	m.Value = value
	returned := false
	defer func() {
		if !returned {
			s.unfinished(m, hook.Why(recover()))
		}
	}()
	handler.Run((*callHandler)(m), handler.Call, func() {
		s.hookMessage(m)
		if chain := s.cfg.Mux.interceptors(); chain != nil {
			if err := m.handleThrough(chain); err != nil {
				_ = m.refuse(gaveUp(m, failureOf(err), err)) // the caller may have left meanwhile, or have its answer
			}
		} else if m.handleCall != nil {
			s.answerCall(m)
		} else {
			m.handle(m)
		}
	})
	returned = true
}

// takeBody returns the request's whole body. If it is compressed, it waits for the peer's turn to have it unpacked, and only then takes
// room for it, and a handler's place.
func (s *Session) takeBody(m *Message) ([]byte, error) {
	if !m.in.packed() {
		return m.in.value()
	}
	turn, f := s.awaitTurn(m)
	defer turn.Done()
	if f.Code == codes.OK {
		f = s.admitPacked(m)
	}
	if f.Code != codes.OK {
		m.in.drop()
		return nil, failed(f)
	}
	value, err := m.in.value()
	if err != nil {
		return nil, &Error{Code: codes.Protocol, Text: err.Error()}
	}
	return value, nil
}

// pace notes how long a complete body has to wait before it is unpacked, or returns why it is not.
func (s *Session) pace(m *Message) frame.Failure {
	if !m.in.packed() {
		return frame.Failure{}
	}
	wait, ok := s.cfg.pacer.Take(s.coder, m.in.start.Total, m.in.start.Raw)
	if !ok {
		return frame.Failure{Code: codes.Unavailable, RetryAfter: wait, Text: "too many bodies that expand greatly"}
	}
	m.wait = wait
	return frame.Failure{}
}

// awaitTurn waits until a compressed body may be unpacked.
func (s *Session) awaitTurn(m *Message) (*zstd.Turn, frame.Failure) {
	if m.wait > 0 {
		timer := time.NewTimer(m.wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-m.Context().Done():
		}
	}
	turn, err := zstd.Await(s.coder, s, m.in.start.Raw, false)
	switch {
	case errors.Is(err, zstd.ErrBusy):
		return nil, tooManyPacked
	case err != nil:
		return nil, frame.Failure{Code: codes.Closed}
	}
	return turn, frame.Failure{}
}

// admitPacked decides whether to unpack a body, and takes its place in the quota.
func (s *Session) admitPacked(m *Message) frame.Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.cancelled {
		return frame.Failure{Code: codes.Cancelled}
	}
	if !m.oneWay {
		if f := s.countCallLocked(m); f.Code != codes.OK {
			return f
		}
	}
	return s.take(m, m.in.start.Raw)
}

// answerCall runs a callFunc and sends its result.
func (s *Session) answerCall(m *Message) {
	reply, err := m.handleCall(m)
	m.done = true
	if err != nil {
		_ = m.refuse(gaveUp(m, failureOf(err), err)) // the caller may have left meanwhile
		return
	}
	_ = m.reply(outgoing{}, reply) // same; a reply that is too large has been refused
}

// gaveUp returns the failure to send for a handler that failed with err. A handler that only returned its ctx's error decided nothing, and
// the caller learns no more than from its own deadline.
func gaveUp(m *Message, f frame.Failure, err error) frame.Failure {
	ended := m.Context().Err()
	switch {
	case f.Code != codes.Application || ended == nil || !errors.Is(err, ended):
	case errors.Is(ended, context.DeadlineExceeded):
		f.Code = codes.Timeout
	default:
		f.Code = codes.Cancelled
	}
	return f
}

// unfinished answers for a handler that did not return.
func (s *Session) unfinished(m *Message, why *hook.Failure) {
	s.logFailure(why, "link", m.Link)
	s.mu.Lock()
	told := why.Panic == nil && !m.later // otherwise finishServe answers: there is no reply
	s.mu.Unlock()
	if !told {
		_ = m.refuse(unfinished(why)) // the caller may have left meanwhile, or have its answer
	}
}

// unfinished returns the failure to send for a handler that did not return.
func unfinished(why *hook.Failure) frame.Failure {
	return frame.Failure{Code: codes.Internal, Text: "handler " + why.Error()}
}

// logFailure logs that a handler of the application did not return.
func (s *Session) logFailure(why *hook.Failure, kind, name string) {
	if why.Panic == nil {
		s.cfg.Logger.Error("handler ended its goroutine", kind, name, "peer", s.peer)
		return
	}
	s.cfg.Logger.Error("handler panicked", kind, name, "peer", s.peer, "panic", why.Panic, "stack", string(why.Stack))
}

// finishServe completes what serve began.
func (s *Session) finishServe(m *Message) {
	s.touch()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.part.Served() // first: the last that the holder gives back makes the tree forget it
	m.endCallLocked()
	if m.unwatch != nil {
		m.unwatch()
	}
	s.end.moved++
	s.requests.running--
	m.returned = true
	if !m.replied && !m.cancelled && !m.later {
		m.replied = true
		s.controlFailureLocked(frame.TypeError, m.id, frame.Failure{Code: codes.NoReply})
		m.onSent()
		return
	}
	m.settleLocked()
	s.checkIdleLocked()
}
