package session

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/peerlane/peerlane/frame"
	"github.com/peerlane/peerlane/internal/handler"
)

// The end of a session in order (spec 5.9):
//
//	this side                                   the peer
//	Close: new work is refused; what was accepted begins to leave
//	GOAWAY(closed) ───────────────────────────> new work is refused; Writes in progress are cut short
//	             <───────────────────────────── GOAWAY(closed), behind what was accepted there
//	... both: what was accepted is received, handled and answered ...
//	END ──────────────────────────────────────>
//	             <───────────────────────────── END
//	the carrier is closed
//
// A peer that does not exchange ends takes GOAWAY(closed) for the last word: this side settles first, and sends it then.

// Close ends the session in order. New work is refused from then on. What was accepted before is completed: one-way messages are
// handled by the peer, calls in both directions are answered, and streams that are open are closed, so that the peer reads what was
// written and then io.EOF. What has arrived from the peer on shared and resumable streams can still be read; other dedicated streams end
// as with Stream.Close.
//
// Close returns nil when all that was accepted has arrived. It gives up when there has been no progress for CloseTimeout; a slow
// link is progress. The error is then, and after a loss of the session, an *Error with Op "close" that wraps one *Error for each
// message or stream that did not arrive, or is not known to have arrived, with its outcome; calls that were given up have returned
// their own. With CodeTimeout it matches os.ErrDeadlineExceeded. A session that has no carrier and nothing to complete ends at once.
//
// A peer that keeps sending messages, reads slowly, or sends anything at all while it owes an answer, is progress too: Abort ends a Close that
// takes longer than the application wants.
//
// Close may be called from a handler, for which it does not wait: the request that it serves is answered with CodeClosed. A handler of
// another session that calls Close is taken for one of this session, if one of its kind runs there. OnUndelivered must not call Close,
// which would wait for it. Later calls wait for the end too and return the same. The host may be closed right after Close.
func (s *Session) Close() error {
	return s.closeFrom(handler.Here())
}

// closeFrom is Close, called by a handler of this kind.
func (s *Session) closeFrom(caller handler.Kind) error {
	s.flushLanes()
	s.mu.Lock()
	s.exempt(caller)
	s.asked = true
	first := s.beginClosing(&Error{Op: "session", Peer: s.peer, Code: frame.CodeClosed, Err: ErrClosed})
	s.mu.Unlock()
	if first {
		s.settleAndEnd()
	}
	<-s.ended
	return s.awaitClosed()
}

// awaitClosed waits until nothing of a session that has ended runs but handlers, and returns what did not arrive.
func (s *Session) awaitClosed() error {
	<-s.writerDone
	s.awaitCarriers()
	s.awaitClosings()
	return s.closeError()
}

// awaitClosings waits, at the end of the session, for the streams that are being closed to say what did not arrive.
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

// endClosing ends the closing of a stream that closings counts, and notes what did not arrive. s.mu is held.
func (s *Session) endClosing(of streamConn, err error) {
	var failed *Error
	if errors.As(err, &failed) {
		s.noteLost(of, failed)
	}
	s.closings--
	s.checkIdle()
	s.stirLocked()
}

// Abort ends the session at once: what has not arrived is lost, and what waits to be handled or read on this side is dropped. Calls
// return an error that matches ErrClosed, and one-way messages that were not acknowledged are reported to OnUndelivered and Flush. The
// peer is told if its carrier takes that within a second.
func (s *Session) Abort() {
	s.cutOff(&Error{Op: "session", Peer: s.peer, Code: frame.CodeClosed, Err: ErrClosed})
}

// closeFor ends the session in order because the peer has closed it, or because it is drained.
func (s *Session) closeFor(reason *Error) {
	s.mu.Lock()
	first := s.beginClosing(reason)
	s.mu.Unlock()
	if first {
		s.settleAndEnd()
	}
	<-s.ended
}

// cutOff ends the session without waiting for what is in flight.
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

// beginClosing takes no new work from now on and begins to end what is open. It reports whether this is the first call. s.mu is
// held.
func (s *Session) beginClosing(reason *Error) (first bool) {
	if s.err != nil {
		return false
	}
	if s.phase >= phaseClosing {
		if !reason.Remote && s.leaving.Remote { // both have closed: this side's own word counts
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
		s.farewell = &frame.Failure{Code: frame.CodeClosed}
	}
	s.wake.Signal()
	s.checkIdle()
	return true
}

// settleAndEnd waits until everything is settled, exchanges the last word and ends the session. One goroutine does it.
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

// sayGoodbye exchanges the last word with the peer, and reports whether that succeeded.
func (s *Session) sayGoodbye() bool {
	s.mu.Lock()
	s.answerExempted()
	code := frame.CodeClosed
	if s.inbox.busy() { // a handler that has called Close: the peer would wait for what stands behind it
		code = frame.CodeTimeout
	}
	s.sayLast(code)
	s.mu.Unlock()
	return s.awaitProgress(func() bool {
		return s.isAway() || s.isFlushed() && s.peerPhase >= phaseOver
	}, s.endProgress)
}

// answerExempted answers the requests whose handlers have called Close: what they return afterwards is not sent any more. s.mu is held.
func (s *Session) answerExempted() {
	for _, m := range maps.Clone(s.serving) {
		_ = m.refuseLocked(frame.Failure{Code: frame.CodeClosed, Text: "its handler has closed the session"}) // it may have its answer
	}
}

// giveUp ends the session although something is not settled. The peer is told if it takes that within the grace.
func (s *Session) giveUp() {
	s.mu.Lock()
	s.sayLast(frame.CodeTimeout)
	reason := s.leaving
	s.gaveUp = s.gaveUp || s.err == nil && !s.impatient // otherwise somebody has cut it off
	s.mu.Unlock()
	s.awaitFor(min(s.cfg.CloseTimeout, partingGrace), func() bool { return s.state == StateDetached || s.isFlushed() })
	s.fail(reason)
}

// partingGrace bounds how long the last word to a peer may take that does not keep up.
const partingGrace = time.Second

// sayLast sends the last frame of this side, once. Code says whether all is settled: CodeClosed, or CodeTimeout if not. s.mu is held.
func (s *Session) sayLast(code frame.Code) {
	if s.err != nil || s.phase >= phaseOver {
		return
	}
	if s.exchangesEnds() {
		s.farewell = nil
		if s.saidGoAway < phaseClosing { // given up before its turn came
			s.goAwayLocked(frame.Failure{Code: frame.CodeClosed})
		}
		s.controlFailure(frame.TypeEnd, 0, frame.Failure{Code: code})
	} else {
		s.goAwayLocked(frame.Failure{Code: frame.CodeClosed})
	}
	s.phase = phaseOver
	s.wake.Signal()
}

// onPeerEnd takes the peer's last word. s.mu is held.
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
	if f.Code != frame.CodeClosed { // the peer waits no longer for what is in flight
		s.impatient = true
	}
	s.stirLocked()
	return nil
}

// isSettled reports whether nothing is left that the end of the session has to wait for, or can wait for. s.mu is held.
func (s *Session) isSettled() bool {
	if s.peerPhase == phaseOver && !s.exchangesEnds() {
		return !s.inbox.busy() || s.exempted[handler.OneWay] > 0 // nothing else will be heard
	}
	return !s.owes() && !s.isOwed() && (s.peerPhase >= phaseClosing || !s.exchangesEnds() || s.isAway())
}

// owes reports whether this side has something to complete for the peer. s.mu is held.
func (s *Session) owes() bool {
	return s.owesAnswers() || s.inbox.busy() && s.exempted[handler.OneWay] == 0
}

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

// isOwed reports whether something that was accepted on this side is not known to have arrived. s.mu is held.
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

// isAway reports whether there is no carrier and nothing that this side needs another one for. s.mu is held.
func (s *Session) isAway() bool { return s.state == StateDetached && !s.hasValue() }

// hasValue reports whether anything of worth waits for its acknowledgement, or to be sent. s.mu is held.
func (s *Session) hasValue() bool {
	return s.inFlight > 0 || s.waiting.len() > 0 || s.lane.charge > 0 || s.lane.waiting.len() > 0 ||
		len(s.receipts) > 0 || len(s.unasked) > 0 || s.closings > 0 || s.flow != nil && s.flow.Acked() < s.valueEnd ||
		s.ready.len() > 0 || s.later.len() > 0 || s.held.len() > 0 || s.outgoing.Load() || s.urgentValue
}

// isFlushed reports whether a carrier has been given all that is to be sent. s.mu is held.
func (s *Session) isFlushed() bool { return !s.outgoing.Load() && !s.hasOutbound() }

// progress counts what brings the end of the session nearer: frames that settle something, bytes of what is owed or awaited, and what
// the peer acknowledges. Other frames do not count, or a peer could hold up Close with them. s.mu is held.
func (s *Session) progress() uint64 {
	n := s.moved + s.written.Load()
	if s.inFlight > 0 || s.partial > 0 {
		n += s.arrived.Load() // a large frame of a slow peer may take long
	}
	if s.flow != nil {
		n += min(s.flow.Acked(), s.valueEnd)
	}
	return n
}

// awaitProgress waits until done, and reports whether that came before there had been no progress for CloseTimeout. Both functions are
// called with s.mu held.
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

// endProgress is progress of the end of the session. One that ends only because the peer closed it gives the peer, which waits as well, all
// the time that a carrier lives. s.mu is held.
func (s *Session) endProgress() uint64 {
	if s.peerWaits() {
		s.waits++
	}
	return s.progress() + s.waits
}

// peerWaits reports whether the session ends only because the peer has closed it, and the peer still waits for what is in flight. s.mu
// is held.
func (s *Session) peerWaits() bool {
	return !s.asked && !s.hurried && s.peerPhase == phaseClosing && s.phase < phaseOver && s.state != StateDetached
}

// exempt lets the end of the session not wait for one handler of a kind, the one that calls Close. s.mu is held.
func (s *Session) exempt(kind handler.Kind) {
	if kind != handler.None {
		s.exempted[kind]++
		s.stirLocked()
	}
}

// awaitFor waits until done, which is called with s.mu held, or for d.
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

// stirring returns a channel that is closed when something changes that an end waits for. s.mu is held.
func (s *Session) stirring() <-chan struct{} {
	if s.stirred == nil {
		s.stirred = make(chan struct{})
	}
	return s.stirred
}

// stirLocked wakes what waits for an end. s.mu is held.
func (s *Session) stirLocked() {
	if s.stirred != nil {
		close(s.stirred)
		s.stirred = nil
	}
}

// endStreams closes the streams that are open for the peer to read to their end, when this side closes the session, and cuts short
// the Writes in progress when the peer does: it will not grant credit for them. s.mu is held.
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

// maxLost bounds the errors that closeError wraps.
const maxLost = 256

// lost is something that did not arrive, or is not known to have arrived.
type lost struct {
	of  streamConn // nil: it is not a stream
	err *Error
	at  time.Duration // Session.elapsed
}

// noteLost notes something that is lost for closeError; a stream is noted once. s.mu is held.
func (s *Session) noteLost(of streamConn, err *Error) {
	if of != nil && slices.ContainsFunc(s.lostThings, func(l lost) bool { return l.of == of }) {
		return
	}
	closing := s.phase >= phaseClosing || s.err != nil
	if !closing {
		s.forgetUnwanted()
	}
	if len(s.lostThings) == maxLost && err.Remote && !closing {
		return // there are enough of them to tell
	}
	if s.lostCount++; len(s.lostThings) < maxLost {
		s.lostThings = append(s.lostThings, lost{of, err, s.elapsed()})
	}
}

// forgetLost takes back what noteLost has noted of a stream. s.mu is held.
func (s *Session) forgetLost(of streamConn) {
	n := len(s.lostThings)
	s.lostThings = slices.DeleteFunc(s.lostThings, func(l lost) bool { return l.of == of })
	s.lostCount -= n - len(s.lostThings)
}

// unwantedFor is how long it is remembered that the peer did not want the rest of a stream: perhaps because it is closing the session, which
// it says behind all that it had queued.
const unwantedFor = 10 * time.Minute

// forgetUnwanted forgets the streams of which the peer has not wanted the rest for a while. s.mu is held.
func (s *Session) forgetUnwanted() {
	before := s.elapsed() - unwantedFor
	n := len(s.lostThings)
	s.lostThings = slices.DeleteFunc(s.lostThings, func(l lost) bool { return l.err.Remote && l.at < before })
	s.lostCount -= n - len(s.lostThings)
}

// closeError returns what Close returns of a session that has ended.
func (s *Session) closeError() error {
	<-s.finished
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lostCount == 0 {
		return nil
	}
	failed := &Error{Op: "close", Peer: s.peer, Outcome: Unknown}
	if len(s.lostThings) > 0 {
		failed.Outcome = s.lostThings[0].err.Outcome
	}
	all := make([]error, 0, len(s.lostThings)+2)
	for _, l := range s.lostThings {
		if l.err.Outcome != failed.Outcome {
			failed.Outcome = Unknown
		}
		all = append(all, l.err)
	}
	if more := s.lostCount - len(s.lostThings); more > 0 {
		failed.Outcome = Unknown
		all = append(all, fmt.Errorf("and %d more", more))
	}
	switch {
	case s.gaveUp && s.err.Code == frame.CodeClosed:
		failed.Code = frame.CodeTimeout
		failed.Text = fmt.Sprintf("no progress for %v", s.cfg.CloseTimeout)
	case !errors.Is(s.err, ErrClosed):
		failed.Code = s.err.Code
		all = append(all, s.err.cause())
	}
	failed.Err = errors.Join(all...)
	return failed
}
