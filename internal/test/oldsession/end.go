package oldsession

import (
	"context"
	"errors"
	"fmt"
)

// end ends the session: everything that waits learns of it, and the carrier is dropped. mu is not held.
func (s *Session) end(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	for _, st := range s.streams {
		st.fail(err)
	}
	for _, c := range s.calls {
		c.finish(nil, err)
	}
	var own []*Stream
	for st := range s.own {
		own = append(own, st)
	}
	for _, m := range s.outbox.sent {
		s.tellFailure(m, err)
	}
	s.outbox.sent = nil
	s.changed.Broadcast()
	s.cancel()
	close(s.done)
	s.mu.Unlock()
	if s.flow != nil {
		s.flow.locked(func() { s.flow.close(err) })
	} else {
		s.only.drop(dropCode(err))
	}
	for _, st := range own {
		st.abandon(err)
	}
}

// dropCode returns the code that a carrier is reset with when its session ends with err.
func dropCode(err error) uint32 {
	if code := codeOf(err); code != CodeGoingAway {
		return code
	}
	return CodeClosed
}

// dropCarrier ends a carrier that is of no more use.
func (s *Session) dropCarrier(c *carrier, end error) {
	if end == nil {
		c.drop(CodeCancelled)
	} else {
		c.drop(dropCode(end))
	}
}

// onLost takes note that the session has no carrier: it may have been about to end.
func (s *Session) onLost(err error) {
	s.mu.Lock()
	end := s.leaving
	if end != nil && !s.closing && !s.cutOff && (s.busy() || s.flow.unacknowledged()) {
		end = nil
	}
	s.mu.Unlock()
	var reset *ResetError
	if end == nil && errors.As(err, &reset) {
		switch reset.Code {
		case CodeProtocol, CodeUnsupported, CodeFlowControl, CodeInternal, CodeTimeout:
			end = fmt.Errorf("%w: %w", ErrLost, err)
		}
	}
	if end != nil {
		s.end(end)
	}
}

// Close ends the session: what has been taken to be sent is sent, and then GOAWAY, which the other side answers with its own.
// All that takes a second at most. What the other side has not handled or read by then, it drops.
func (s *Session) Close() { s.closeFor(ErrClosed) }

func (s *Session) closeFor(reason error) {
	s.mu.Lock()
	if s.err != nil || s.closing {
		s.mu.Unlock()
		return
	}
	s.closing, s.leaving = true, reason
	for _, c := range s.calls {
		c.finish(nil, reason)
	}
	s.changed.Broadcast()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	attached := s.attached()
	_ = s.wait(ctx, func() bool { return s.bodies == 0 }) // what is late is given up
	s.postFailure(typeGoAway, s.lastIn, CodeClosed, "")
	s.saidBye = true
	_ = s.wait(ctx, func() bool { return len(s.out) == 0 && !s.writing && (s.heardBye || !attached) }) // likewise
	s.mu.Unlock()
	if s.flow != nil {
		s.flow.awaitSent(ctx)
	}
	s.end(reason)
}

// Drain takes no new work, tells the other side so, and ends the session when nothing is in flight. It returns at once.
func (s *Session) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || s.err != nil {
		return
	}
	s.draining = true
	s.leave(&Failure{Code: CodeGoingAway, Text: "drained"}, !s.attached() && !s.busy())
}

// onGoAway takes the word that the other side takes no new work. mu is held.
func (s *Session) onGoAway(f frame) error {
	why, err := parseFailure(f.payload)
	if err != nil {
		return err
	}
	s.goneAway, s.cutOff = true, s.cutOff || why.Code != CodeGoingAway
	unserved := &Failure{Code: CodeGoingAway, Remote: true, NotSent: true, Text: why.Text}
	for id, c := range s.calls {
		if id > f.id {
			c.finish(nil, unserved)
		}
	}
	for id, st := range s.streams {
		if st.mine && !st.accepted && id > f.id {
			st.fail(unserved)
		}
	}
	s.leave(why, false)
	if why.Code == CodeClosed && !s.heardBye {
		s.heardBye = true
		for _, r := range s.serving { // it does not hear the answers
			r.cancel()
		}
		clear(s.serving)
		reason := s.leaving
		s.running.Go(func() { s.closeFor(reason) })
	}
	return nil
}

// leave ends the session for a reason once nothing is in flight. deserted says that the other side is away, and need not
// come back for that. mu is held.
func (s *Session) leave(reason error, deserted bool) {
	if s.leaving != nil {
		return
	}
	s.leaving = reason
	s.running.Go(func() { s.finishDrain(reason, deserted) })
}

func (s *Session) finishDrain(reason error, deserted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	forever := context.Background()
	if s.draining { // what its callers have queued goes first
		_ = s.wait(forever, func() bool { return s.waiting == 0 }) // the end of the session ends all of these
		s.postFailure(typeGoAway, s.lastIn, CodeGoingAway, "")
	}
	for again := true; again && s.err == nil; again = s.busy() {
		_ = s.wait(forever, func() bool { return !s.busy() })
		if s.draining { // the other side closes, when it sees the same
			ctx, cancel := context.WithTimeout(forever, closeTimeout)
			_ = s.wait(ctx, func() bool { return false })
			cancel()
		}
		if s.flow != nil && (s.attached() || !deserted) {
			s.mu.Unlock()
			s.flow.awaitAcked()
			s.mu.Lock()
		}
	}
	s.mu.Unlock()
	s.closeFor(reason)
	s.mu.Lock()
}

// busy reports whether anything is in flight. mu is held.
func (s *Session) busy() bool {
	return s.waiting > 0 || s.bodies > 0 || len(s.calls) > 0 || len(s.serving) > 0 || s.handlers > 0 || s.outbox.charge > 0 ||
		s.inbox.running || s.inbox.current != nil || len(s.streams) > 0 || s.shared > 0 || len(s.own) > 0 || len(s.out) > 0 || s.writing
}
