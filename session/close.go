package session

import (
	"fmt"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
)

// The end of a session in order (spec 5.9):
//
//	this side                                   the peer
//	Close: refuses new work, begins to send accepted work
//	GOAWAY(closed) ───────────────────────────> new work is refused; Writes in progress are cut short
//	             <───────────────────────────── GOAWAY(closed), behind the work accepted there
//	... both receive, handle and answer the accepted work ...
//	END ──────────────────────────────────────>
//	             <───────────────────────────── END
//	the carrier is closed
//
// A peer that does not exchange ends treats GOAWAY(closed) as the last frame. For such a peer, this side settles first and sends GOAWAY
// afterwards.

// Close ends the session in order. It refuses new work and completes the work accepted before: the peer handles one-way messages, calls
// in both directions are answered, and open streams are closed, so that the peer reads the written data and then io.EOF. Data received on
// shared and resumable streams can still be read; other dedicated streams end as with Stream.Close.
//
// Close returns nil once everything accepted has arrived. It gives up after CloseTimeout without progress; a slow link counts as
// progress. Its error is then, and after a loss of the session, an *Error with Op "close". It wraps one *Error, with its outcome, for
// each message or stream that did not arrive or is not known to have arrived. Calls that were given up have returned their own errors. An
// error with codes.Timeout matches os.ErrDeadlineExceeded. A session that has no carrier and nothing to complete ends at once.
//
// A peer that keeps sending messages, reads slowly, or sends anything at all while it owes an answer, is progress too: Abort ends a Close that
// takes longer than the application wants.
//
// A handler of the session may call Close. Close does not wait for that handler, and answers the handler's request with codes.Closed. It
// waits for a handler whose other goroutine calls Close. OnUndelivered must not call Close, because Close waits for it. Later calls also
// wait for the end and return the same error. The host may be closed once Close has returned.
func (s *Session) Close() error {
	if caller := handler.Here(); caller.Of(s) {
		caller.Exempt()
	}
	s.flushLanes()
	s.mu.Lock()
	s.end.ask(demandClose)
	first := s.beginClosingLocked(&Error{Op: "session", Peer: s.peer, Code: codes.Closed, Err: ErrClosed})
	s.mu.Unlock()
	if first {
		s.settleAndEnd()
	}
	<-s.ended
	return s.awaitClosed()
}

// awaitClosed waits until only handlers of an ended session still run, and returns the error that lists undelivered work.
func (s *Session) awaitClosed() error {
	<-s.writerDone
	s.awaitCarriers()
	s.awaitClosings()
	return s.closeError()
}

// awaitClosings waits, at the end of the session, until the streams being closed have reported undelivered data.
func (s *Session) awaitClosings() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.end.closings > 0 {
		stirred := s.stirringLocked()
		s.mu.Unlock()
		<-stirred
		s.mu.Lock()
	}
}

// Abort ends the session at once. Undelivered data is lost, and received data that has not been handled or read is dropped. Calls return
// an error that matches ErrClosed, and unacknowledged one-way messages are reported to OnUndelivered and Flush. The peer is notified if
// its carrier accepts the frame within a second.
func (s *Session) Abort() {
	s.cutOff(&Error{Op: "session", Peer: s.peer, Code: codes.Closed, Err: ErrClosed}, false)
}

// closeFor ends the session in order because the peer has closed it, or because the drain is complete.
func (s *Session) closeFor(reason *Error) {
	s.mu.Lock()
	first := s.beginClosingLocked(reason)
	s.mu.Unlock()
	if first {
		s.settleAndEnd()
	}
	<-s.ended
}

// cutOff ends the session without waiting for work in flight. If heard, it waits within the grace period until the peer has the last
// frame: a host that is closed right after a Write may lose what was written, and the peer would look for the session until its resume
// window ends.
func (s *Session) cutOff(reason *Error, heard bool) {
	s.mu.Lock()
	s.beginClosingLocked(reason)
	s.end.ask(demandAbort)
	s.stirLocked()
	s.mu.Unlock()
	s.giveUp(heard)
	<-s.writerDone
	s.awaitCarriers()
}

// beginClosingLocked refuses new work from now on and begins to end open streams. It reports whether this is the first call.
func (s *Session) beginClosingLocked(reason *Error) (first bool) {
	if s.err != nil {
		return false
	}
	if s.end.ours >= phaseClosing {
		if !reason.Remote && s.end.leaving.Remote { // both have closed: this side's own reason counts
			s.end.leaving = reason
		}
		s.endStreamsLocked()
		return false
	}
	s.forgetUnwantedLocked()
	s.end.ours, s.end.leaving, s.end.farewell = phaseClosing, reason, nil
	s.end.parting.Store(true)
	s.endStreamsLocked()
	if s.exchangesEnds() {
		s.end.farewell = &frame.Failure{Code: codes.Closed}
	}
	s.out.wake.Signal()
	s.checkIdleLocked()
	return true
}

// settleAndEnd waits until everything is settled, exchanges the last frames and ends the session. It runs in one goroutine.
func (s *Session) settleAndEnd() {
	if !s.awaitProgress(s.isSettledLocked, s.endProgressLocked) || !s.sayGoodbye() {
		s.giveUp(false)
		return
	}
	s.mu.Lock()
	reason := s.end.leaving
	s.mu.Unlock()
	s.fail(reason)
}

// sayGoodbye exchanges the last frames with the peer, and reports whether that succeeded.
func (s *Session) sayGoodbye() bool {
	s.mu.Lock()
	code := codes.Closed
	if s.messages.in.busy() { // a handler that has called Close: the peer would wait for what stands behind it
		code = codes.Timeout
	}
	s.sayLastLocked(code)
	s.mu.Unlock()
	return s.awaitProgress(func() bool {
		return s.isAwayLocked() || s.isFlushedLocked() && s.end.theirs >= phaseOver
	}, s.endProgressLocked)
}

// giveUp ends the session although some work is not settled. The peer is notified if the carrier accepts the frame within the grace
// period; if heard, giveUp waits within that for the peer's answer.
func (s *Session) giveUp(heard bool) {
	s.mu.Lock()
	s.sayLastLocked(codes.Timeout)
	reason := s.end.leaving
	if s.err == nil && !s.end.isCutShort() { // otherwise somebody has cut it off
		s.end.ours = phaseGaveUp
	}
	s.mu.Unlock()
	s.awaitFor(min(s.cfg.CloseTimeout, partingGrace), func() bool {
		return s.carriers.state == StateDetached || s.isFlushedLocked() && (!heard || s.isHeardLocked())
	})
	s.fail(reason)
}

// isHeardLocked reports whether the peer has answered this side's last frame with its own, or need not hear it: without a flow, it takes
// the end of the carrier for the end of the session.
func (s *Session) isHeardLocked() bool { return s.carriers.flow == nil || s.end.theirs >= phaseOver }

// sayLastLocked sends the last frame of this side, once. The code is codes.Closed if everything is settled, and codes.Timeout if not.
func (s *Session) sayLastLocked(code codes.Code) {
	if s.err != nil || s.end.ours >= phaseOver {
		return
	}
	if s.exchangesEnds() {
		s.end.farewell = nil
		if s.end.saidGoAway < phaseClosing { // gave up before the queued GOAWAY was sent
			s.goAwayLocked(frame.Failure{Code: codes.Closed})
		}
		s.controlFailureLocked(frame.TypeEnd, 0, frame.Failure{Code: code})
	} else {
		s.goAwayLocked(frame.Failure{Code: codes.Closed})
	}
	s.end.ours = phaseOver
	s.out.wake.Signal()
}

// onPeerEnd handles the peer's END. s.mu is held.
func (s *Session) onPeerEnd(p []byte) error {
	f, err := frame.ConsumeFailure(p)
	if err != nil {
		return err
	}
	if s.end.theirs < phaseClosing || s.end.theirs >= phaseOver || !s.exchangesEnds() {
		return fmt.Errorf("END without GOAWAY before it, or a second one: %w", frame.ErrMalformed)
	}
	s.end.theirs = phaseOver
	s.end.moved++
	if f.Code != codes.Closed { // the peer no longer waits for work in flight
		s.end.theirs = phaseGaveUp
	}
	s.stirLocked()
	return nil
}

// isSettledLocked reports whether the end of the session has nothing left that it must, or can, wait for.
func (s *Session) isSettledLocked() bool {
	if s.end.theirs >= phaseOver && !s.exchangesEnds() {
		return !s.owesHandlingLocked() // nothing more will arrive
	}
	return !s.owesLocked() && !s.isOwedLocked() && (s.end.theirs >= phaseClosing || !s.exchangesEnds() || s.isAwayLocked())
}

// owesLocked reports whether this side has work to complete for the peer.
func (s *Session) owesLocked() bool { return s.owesAnswersLocked() || s.owesHandlingLocked() }

// owesHandlingLocked reports whether a one-way message waits for a handler, and none of these has called Close.
func (s *Session) owesHandlingLocked() bool {
	return s.messages.in.busy() && s.exempt.count[handler.OneWay] == 0
}

// owesAnswersLocked reports whether a request waits for its answer whose handler has not called Close.
func (s *Session) owesAnswersLocked() bool {
	if len(s.requests.open) > 0 && s.requests.running > s.exempt.count[handler.Call] {
		return true
	}
	for _, m := range s.requests.open {
		if m.returned || !m.started {
			return true
		}
	}
	return false
}

// isOwedLocked reports whether anything accepted on this side is not known to have arrived.
func (s *Session) isOwedLocked() bool {
	if s.end.farewell != nil || s.calls.inFlight > 0 || s.calls.waiting.len() > 0 || s.messages.out.charge > 0 || s.messages.out.waiting.len() > 0 ||
		len(s.shared.receipts) > 0 || len(s.shared.unasked) > 0 || s.end.closings > 0 || !s.isFlushedLocked() {
		return true
	}
	for _, st := range s.shared.open {
		if st.mine && !st.accepted || st.writing || st.finAsked && !st.finSent {
			return true
		}
	}
	return false
}

// isAwayLocked reports whether there is no carrier and nothing that needs another one.
func (s *Session) isAwayLocked() bool {
	return s.carriers.state == StateDetached && !s.hasValueLocked()
}

// hasValueLocked reports whether anything worth waiting for is still to be sent or acknowledged.
func (s *Session) hasValueLocked() bool {
	return s.calls.inFlight > 0 || s.calls.waiting.len() > 0 || s.messages.out.charge > 0 || s.messages.out.waiting.len() > 0 ||
		len(s.shared.receipts) > 0 || len(s.shared.unasked) > 0 || s.end.closings > 0 || s.carriers.flow != nil && s.carriers.flow.Acked() < s.out.valueEnd ||
		s.out.ready.len() > 0 || s.out.later.len() > 0 || s.out.held.len() > 0 || s.out.inBatch.Load() || s.out.urgentValue
}

// isFlushedLocked reports whether all outbound frames have been handed to a carrier.
func (s *Session) isFlushedLocked() bool { return !s.out.inBatch.Load() && !s.hasOutboundLocked() }

// endProgressLocked returns the progress of the end of the session. A session that ends only because the peer closed it also counts the
// peer's waiting: the peer has as long as its carrier lives.
func (s *Session) endProgressLocked() uint64 {
	if s.peerWaitsLocked() {
		s.end.waits++
	}
	return s.progressLocked() + s.end.waits
}

// peerWaitsLocked reports whether the session ends only because the peer has closed it, and the peer still waits for work in flight.
func (s *Session) peerWaitsLocked() bool {
	return s.end.demand == demandNone && s.end.theirs == phaseClosing && s.end.ours < phaseOver && s.carriers.state != StateDetached
}

// endStreamsLocked ends the open streams. When this side closes the session, it closes them so that the peer can read them to their end.
// When the peer closes it, endStreamsLocked cuts short the Writes in progress, because the peer will grant no more credit.
func (s *Session) endStreamsLocked() {
	for _, st := range s.shared.open {
		if s.end.theirs >= phaseClosing {
			st.cutWriteLocked()
		}
		if s.end.endsStreams() {
			st.askFinLocked()
		}
	}
	if s.end.endsStreams() {
		s.endDedicatedLocked()
	}
}
