package session

import (
	"errors"
	"fmt"
	"time"

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
	s.asked = true
	first := s.beginClosing(&Error{Op: "session", Peer: s.peer, Code: codes.Closed, Err: ErrClosed})
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
	for s.closings > 0 {
		stirred := s.stirring()
		s.mu.Unlock()
		<-stirred
		s.mu.Lock()
	}
}

// endClosing ends the closing of a stream counted in closings, and notes undelivered data. s.mu is held.
func (s *Session) endClosing(of streamConn, err error) {
	var failed *Error
	if errors.As(err, &failed) {
		s.noteLost(of, failed)
	}
	s.closings--
	s.checkIdle()
	s.stirLocked()
}

// Abort ends the session at once. Undelivered data is lost, and received data that has not been handled or read is dropped. Calls return
// an error that matches ErrClosed, and unacknowledged one-way messages are reported to OnUndelivered and Flush. The peer is notified if
// its carrier accepts the frame within a second.
func (s *Session) Abort() {
	s.cutOff(&Error{Op: "session", Peer: s.peer, Code: codes.Closed, Err: ErrClosed})
}

// closeFor ends the session in order because the peer has closed it, or because the drain is complete.
func (s *Session) closeFor(reason *Error) {
	s.mu.Lock()
	first := s.beginClosing(reason)
	s.mu.Unlock()
	if first {
		s.settleAndEnd()
	}
	<-s.ended
}

// cutOff ends the session without waiting for work in flight.
func (s *Session) cutOff(reason *Error) {
	s.mu.Lock()
	s.beginClosing(reason)
	s.impatient, s.aborted = true, true
	s.stirLocked()
	s.mu.Unlock()
	s.giveUp()
	<-s.writerDone
	s.awaitCarriers()
}

// beginClosing refuses new work from now on and begins to end open streams. It reports whether this is the first call. s.mu is held.
func (s *Session) beginClosing(reason *Error) (first bool) {
	if s.err != nil {
		return false
	}
	if s.phase >= phaseClosing {
		if !reason.Remote && s.leaving.Remote { // both have closed: this side's own reason counts
			s.leaving = reason
		}
		s.endStreams()
		return false
	}
	s.forgetUnwanted()
	s.phase, s.leaving, s.farewell = phaseClosing, reason, nil
	s.parting.Store(true)
	s.endStreams()
	if s.exchangesEnds() {
		s.farewell = &frame.Failure{Code: codes.Closed}
	}
	s.wake.Signal()
	s.checkIdle()
	return true
}

// settleAndEnd waits until everything is settled, exchanges the last frames and ends the session. It runs in one goroutine.
func (s *Session) settleAndEnd() {
	if !s.awaitProgress(s.isSettled, s.endProgress) || !s.sayGoodbye() {
		s.giveUp()
		return
	}
	s.mu.Lock()
	reason := s.leaving
	s.mu.Unlock()
	s.fail(reason)
}

// sayGoodbye exchanges the last frames with the peer, and reports whether that succeeded.
func (s *Session) sayGoodbye() bool {
	s.mu.Lock()
	code := codes.Closed
	if s.inbox.busy() { // a handler that has called Close: the peer would wait for what stands behind it
		code = codes.Timeout
	}
	s.sayLast(code)
	s.mu.Unlock()
	return s.awaitProgress(func() bool {
		return s.isAway() || s.isFlushed() && s.peerPhase >= phaseOver
	}, s.endProgress)
}

// giveUp ends the session although some work is not settled. The peer is notified if the carrier accepts the frame within the grace
// period.
func (s *Session) giveUp() {
	s.mu.Lock()
	s.sayLast(codes.Timeout)
	reason := s.leaving
	s.gaveUp = s.gaveUp || s.err == nil && !s.impatient // otherwise somebody has cut it off
	s.mu.Unlock()
	s.awaitFor(min(s.cfg.CloseTimeout, partingGrace), func() bool { return s.state == StateDetached || s.isFlushed() })
	s.fail(reason)
}

// partingGrace bounds how long sending the last frame to a slow peer may take.
const partingGrace = time.Second

// sayLast sends the last frame of this side, once. The code is codes.Closed if everything is settled, and codes.Timeout if not. s.mu is held.
func (s *Session) sayLast(code codes.Code) {
	if s.err != nil || s.phase >= phaseOver {
		return
	}
	if s.exchangesEnds() {
		s.farewell = nil
		if s.saidGoAway < phaseClosing { // gave up before the queued GOAWAY was sent
			s.goAwayLocked(frame.Failure{Code: codes.Closed})
		}
		s.controlFailure(frame.TypeEnd, 0, frame.Failure{Code: code})
	} else {
		s.goAwayLocked(frame.Failure{Code: codes.Closed})
	}
	s.phase = phaseOver
	s.wake.Signal()
}

// onPeerEnd handles the peer's END. s.mu is held.
func (s *Session) onPeerEnd(p []byte) error {
	f, err := frame.ConsumeFailure(p)
	if err != nil {
		return err
	}
	if s.peerPhase < phaseClosing || s.peerPhase == phaseOver || !s.exchangesEnds() {
		return fmt.Errorf("END without GOAWAY before it, or a second one: %w", frame.ErrMalformed)
	}
	s.peerPhase = phaseOver
	s.moved++
	if f.Code != codes.Closed { // the peer no longer waits for work in flight
		s.impatient = true
	}
	s.stirLocked()
	return nil
}

// isSettled reports whether the end of the session has nothing left that it must, or can, wait for. s.mu is held.
func (s *Session) isSettled() bool {
	if s.peerPhase == phaseOver && !s.exchangesEnds() {
		return !s.owesHandling() // nothing more will arrive
	}
	return !s.owes() && !s.isOwed() && (s.peerPhase >= phaseClosing || !s.exchangesEnds() || s.isAway())
}

// owes reports whether this side has work to complete for the peer. s.mu is held.
func (s *Session) owes() bool { return s.owesAnswers() || s.owesHandling() }

// owesHandling reports whether a one-way message waits for a handler, and none of these has called Close. s.mu is held.
func (s *Session) owesHandling() bool { return s.inbox.busy() && s.exempted[handler.OneWay] == 0 }

// owesAnswers reports whether a request waits for its answer whose handler has not called Close. s.mu is held.
func (s *Session) owesAnswers() bool {
	if len(s.serving) > 0 && s.running > s.exempted[handler.Call] {
		return true
	}
	for _, m := range s.serving {
		if m.returned || !m.started {
			return true
		}
	}
	return false
}

// isOwed reports whether anything accepted on this side is not known to have arrived. s.mu is held.
func (s *Session) isOwed() bool {
	if s.farewell != nil || s.inFlight > 0 || s.waiting.len() > 0 || s.lane.charge > 0 || s.lane.waiting.len() > 0 ||
		len(s.receipts) > 0 || len(s.unasked) > 0 || s.closings > 0 || !s.isFlushed() {
		return true
	}
	for _, st := range s.streams {
		if st.mine && !st.accepted || st.writing || st.finAsked && !st.finSent {
			return true
		}
	}
	return false
}

// isAway reports whether there is no carrier and nothing that needs another one. s.mu is held.
func (s *Session) isAway() bool { return s.state == StateDetached && !s.hasValue() }

// hasValue reports whether anything worth waiting for is still to be sent or acknowledged. s.mu is held.
func (s *Session) hasValue() bool {
	return s.inFlight > 0 || s.waiting.len() > 0 || s.lane.charge > 0 || s.lane.waiting.len() > 0 ||
		len(s.receipts) > 0 || len(s.unasked) > 0 || s.closings > 0 || s.flow != nil && s.flow.Acked() < s.valueEnd ||
		s.ready.len() > 0 || s.later.len() > 0 || s.held.len() > 0 || s.outgoing.Load() || s.urgentValue
}

// isFlushed reports whether all outbound frames have been handed to a carrier. s.mu is held.
func (s *Session) isFlushed() bool { return !s.outgoing.Load() && !s.hasOutbound() }

// progress counts the events that bring the end of the session nearer: frames that settle work, bytes of work owed or awaited, and
// acknowledgements by the peer. Other frames do not count, or a peer could hold up Close with them. s.mu is held.
func (s *Session) progress() uint64 {
	n := s.moved + s.written.Load()
	if s.inFlight > 0 || s.partial > 0 {
		n += s.arrived.Load() // a large frame from a slow peer may take long
	}
	if s.flow != nil {
		n += min(s.flow.Acked(), s.valueEnd)
	}
	return n
}

// awaitProgress waits until done returns true, and reports whether it did. It gives up when there has been no progress for CloseTimeout,
// when the session has ended, and when the peer no longer waits. It calls both functions with s.mu held.
func (s *Session) awaitProgress(done func() bool, progress func() uint64) bool {
	limit := s.cfg.CloseTimeout
	tick := time.NewTimer(limit)
	defer tick.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, at := progress(), time.Now()
	for !done() {
		if s.err != nil || s.impatient {
			return false
		}
		stirred := s.stirring()
		s.mu.Unlock()
		select {
		case <-stirred:
		case <-s.ended:
		case <-tick.C:
		}
		s.mu.Lock()
		now := time.Now()
		if n := progress(); n != seen {
			seen, at = n, now
		}
		if now.Sub(at) >= limit {
			return done()
		}
		tick.Reset(max(min(limit/4, limit-now.Sub(at)), time.Millisecond))
	}
	return true
}

// endProgress returns the progress of the end of the session. A session that ends only because the peer closed it also counts the peer's
// waiting: the peer has as long as its carrier lives. s.mu is held.
func (s *Session) endProgress() uint64 {
	if s.peerWaits() {
		s.waits++
	}
	return s.progress() + s.waits
}

// peerWaits reports whether the session ends only because the peer has closed it, and the peer still waits for work in flight. s.mu is
// held.
func (s *Session) peerWaits() bool {
	return !s.asked && !s.hurried && s.peerPhase == phaseClosing && s.phase < phaseOver && s.state != StateDetached
}

// awaitFor waits until done returns true or the session has ended, for at most d. It calls done with s.mu held.
func (s *Session) awaitFor(d time.Duration, done func() bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && !done() {
		stirred := s.stirring()
		s.mu.Unlock()
		var over bool
		select {
		case <-stirred:
		case <-s.ended:
		case <-timer.C:
			over = true
		}
		s.mu.Lock()
		if over {
			return
		}
	}
}

// stirring returns a channel that is closed at the next change that a waiting end must see. s.mu is held.
func (s *Session) stirring() <-chan struct{} {
	if s.stirred == nil {
		s.stirred = make(chan struct{})
	}
	return s.stirred
}

// stirLocked wakes the goroutines that wait for an end. s.mu is held.
func (s *Session) stirLocked() {
	if s.stirred != nil {
		close(s.stirred)
		s.stirred = nil
	}
}

// endStreams ends the open streams. When this side closes the session, it closes them so that the peer can read them to their end. When
// the peer closes it, endStreams cuts short the Writes in progress, because the peer will grant no more credit. s.mu is held.
func (s *Session) endStreams() {
	for _, st := range s.streams {
		if s.peerPhase >= phaseClosing {
			st.cutWrite()
		}
		if s.asked {
			st.askFin()
		}
	}
	if s.asked {
		s.endDedicated()
	}
}
