package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
)

// requests are the calls of the peer.
type requests struct {
	open    map[uint64]*Message // neither answered nor cancelled
	running int                 // running handlers, including those of cancelled requests
	partial int                 // incomplete bodies of the peer, of one-way messages too
	served  int                 // requests accepted in all
}

// retryHint is the RetryAfter of a refusal for lack of room.
const retryHint = 100 * time.Millisecond

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
		s.stats.refused.Add(1)
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
	return s.addRequestLocked(m, body, now)
}

// admitLocked decides whether to accept a request, from its head, and takes its place in the quota.
func (s *Session) admitLocked(m *Message, arrived int) frame.Failure {
	m.handleCall, m.handle = s.cfg.Mux.handler(m.Link)
	switch {
	case s.end.ours >= phaseDraining:
		return frame.Failure{Code: codes.GoingAway}
	case m.in.size() > s.cfg.MaxMessage || m.in.start.Total > s.cfg.MaxMessage:
		return tooLarge(m.in.size(), s.cfg.MaxMessage)
	case m.handleCall == nil && m.handle == nil:
		return frame.Failure{Code: codes.NotFound, Text: "no handler for link " + fmt.Sprintf("%q", m.Link)}
	case s.requests.running >= 2*s.cfg.MaxInFlight:
		return frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: "too many cancelled calls still run"}
	case s.cfg.Quota.fullOfCalls():
		return tooManyCalls
	case !s.take(m, arrived):
		return noMemory
	}
	return frame.Failure{}
}

var tooManyCalls = frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: "too many calls at once"}

var noMemory = frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: "no memory for more requests"}

func tooLarge(n, limit int) frame.Failure {
	return frame.Failure{Code: codes.TooLarge, Text: fmt.Sprintf("%d bytes, at most %d", n, limit)}
}

// take reserves n more bytes for m.
func (s *Session) take(m *Message, n int) bool {
	if !s.cfg.Quota.take(n) {
		return false
	}
	m.held += n
	return true
}

// addRequestLocked handles a part of a request's body, and starts the handler when the body is complete.
func (s *Session) addRequestLocked(m *Message, p []byte, now time.Duration) error {
	if err := m.in.add(p); err != nil {
		return err
	}
	if len(p) > 0 || m.in.progress == 0 { // an empty part is no progress
		m.in.progress = now
	}
	if !m.in.complete() {
		return nil
	}
	if !s.cfg.Quota.startCall() {
		s.refusePartialLocked(m, tooManyCalls)
		return nil
	}
	m.counted, m.started = true, true
	s.requests.partial--
	s.requests.running++
	go s.serve(m)
	return nil
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
		if !s.take(m, len(p)) {
			s.refusePartialLocked(m, noMemory)
			return nil
		}
		return s.addRequestLocked(m, p, s.elapsed())
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
	s.stats.refused.Add(1)
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
		if m.handleCall != nil {
			s.answerCall(m)
		} else {
			m.handle(m)
		}
	})
	returned = true
}

// takeBody returns the request's whole body.
func (s *Session) takeBody(m *Message) ([]byte, error) {
	if m.in.flags&frame.FlagCompressed != 0 {
		s.mu.Lock()
		room := s.take(m, m.in.start.Raw)
		s.mu.Unlock()
		if !room {
			m.in.drop()
			return nil, &Error{Code: noMemory.Code, RetryAfter: noMemory.RetryAfter, Text: noMemory.Text}
		}
	}
	value, err := m.in.value()
	if err != nil {
		return nil, &Error{Code: codes.Protocol, Text: err.Error()}
	}
	return value, nil
}

// answerCall runs a callFunc and sends its result.
func (s *Session) answerCall(m *Message) {
	reply, err := m.handleCall(m)
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
