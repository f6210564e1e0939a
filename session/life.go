package session

import (
	"context"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/zstd"
)

// fail ends the session with err, once. It wakes all waiters and drops the carrier. A session that ends with the reason of its Close or
// drain, and was not aborted, ends in order; any other is lost.
func (s *Session) fail(err *Error) {
	s.mu.Lock()
	inOrder := err == s.end.leaving && s.end.demand != demandAbort
	s.mu.Unlock()
	s.finish(err, inOrder)
}

// finish does the work of fail. If inOrder, received data can still be handled and read to its end; otherwise it is dropped.
func (s *Session) finish(err *Error, inOrder bool) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	failed := s.failureLocked(err)
	s.happenLocked(eventEnded, err)
	s.abortAllLocked(err, inOrder)
	dedicated := s.attachedLocked()
	close(s.ended)
	s.mu.Unlock()
	if !inOrder {
		zstd.Leave(s.coder, s)
	}
	s.endCtx()
	s.heartbeat.stop()
	s.stopWatch()
	if s.carriers.flow != nil {
		s.carriers.flow.Close(err)
	} else {
		drop(s.Conn(), dropCode(err))
	}
	for _, st := range dedicated {
		st.endWithSession(err, inOrder)
	}
	s.messages.out.tellUndelivered()
	close(s.finished)
	callbacks := s.keepForUses()
	if s.onEnd != nil {
		s.onEnd()
	}
	s.part.Leave()
	s.tell()
	s.callAtEnd(failed, callbacks)
}

// keepForUses keeps the attributes and the place of the session until the functions of the application that are called at its end have returned.
// It reports whether close callbacks are among them.
func (s *Session) keepForUses() (callbacks bool) {
	users := 0
	if callbacks = s.callbacks.end(); callbacks {
		users++
	}
	if s.events.line != nil {
		users++
	}
	s.attributes.end(users)
	switch {
	case s.onLeft == nil:
	case users > 0:
		s.part.quota.linger(s)
	default:
		s.onLeft()
	}
	return callbacks
}

// callAtEnd calls what the application wants to be called when the session has ended, with failed if that was an error.
func (s *Session) callAtEnd(failed error, callbacks bool) {
	s.announceLanesEnded()
	if callbacks {
		go s.runCallbacks()
	}
	if s.events.line != nil && !s.endHooks(failed) {
		s.endUse()
	}
}

// announceLanesEnded reports the lanes to hooks that end with the session: no hook is called after OnClose.
func (s *Session) announceLanesEnded() {
	if s.events.line == nil {
		return
	}
	s.lanes.counting.Lock()
	s.lanes.over = true
	for _, l := range s.lanes.shown.All() {
		s.announceShown(l, false)
	}
	s.lanes.counting.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.dedicated.open {
		st.announceLocked(false)
	}
}

// failureLocked returns the error by which the session has ended for its application, or nil if it has ended in order: by Close, Abort or a
// drain of this side, or by a Close or drain of the peer which waited for all work.
func (s *Session) failureLocked(err *Error) error {
	switch {
	case s.end.ours == phaseGaveUp:
		return err
	case err.Code == codes.Closed && !err.Remote:
		return nil
	case err == s.end.leaving && s.end.theirs != phaseGaveUp && (err.Code == codes.Closed || err.Code == codes.GoingAway):
		return nil
	}
	return err
}

// dropCode returns the code for resetting a carrier when err ends its session. A session that ends in order closes its carrier instead,
// because a reset would overtake the last answers.
func dropCode(err *Error) codes.Code {
	if err.Code == codes.GoingAway {
		return codes.Closed
	}
	return err.Code
}

// attachedLocked returns the dedicated streams that have a carrier to reset.
func (s *Session) attachedLocked() []*Stream {
	var open []*Stream
	for st := range s.dedicated.open {
		if st.conn != nil {
			open = append(open, st)
		}
	}
	return open
}

// abortAllLocked ends everything on this session. If inOrder, it keeps the messages that wait for their handler.
func (s *Session) abortAllLocked(err *Error, inOrder bool) {
	for _, q := range [...]*queue[source]{&s.out.ready, &s.out.later, &s.out.held} {
		for q.len() > 0 {
			q.pop().abort(err)
		}
	}
	for s.calls.waiting.len() > 0 {
		s.calls.waiting.pop().abort(err)
	}
	for _, c := range s.calls.pending {
		c.abort(err)
	}
	for _, m := range s.requests.open {
		m.cancelLocked(context.Canceled)
	}
	for _, st := range s.shared.open {
		st.abort(err)
	}
	s.shared.account.close()
	s.messages.out.abort(err)
	s.messages.in.dropPartialLocked(s)
	if !inOrder {
		s.messages.in.dropQueueLocked(s)
	}
	s.releaseUrgentLocked()
	if s.sharesCredit() {
		s.shared.in.end()
	}
	s.shutIdleLocked()
	s.stirLocked()
	s.out.wake.Broadcast()
}
