package session

import (
	"cmp"
	"context"
	"errors"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
)

// A drain completes the work in flight and accepts no new work:
//
//	this side                       the peer
//	... sends the requests its own callers have queued; refuses new work with GOAWAY's code ...
//	GOAWAY(last id served) ───────> refuses new work, NotSent; work in flight continues
//	... both wait until nothing is in flight ...
//	                       <─────── closes the carrier
//	closes, even if the peer has not done so within CloseTimeout

// Shutdown drains the session: it accepts no new work, tells the peer so, waits until all calls, handlers, one-way messages and streams of
// both sides have ended, and closes. If the session is lost first, the error is that of Close. If ctx ends first, Shutdown cuts off the
// rest as Abort does, but waits up to a second until the peer knows, and the error matches ctx's. A handler of the session may call
// Shutdown, which does not wait for it and answers its request with codes.Closed.
func (s *Session) Shutdown(ctx context.Context) error {
	if caller := handler.Here(); caller.Of(s) {
		caller.Exempt()
	}
	s.mu.Lock()
	s.drainLocked(frame.Failure{Code: codes.GoingAway})
	s.mu.Unlock()
	select {
	case <-s.ended:
		return s.awaitClosed()
	case <-ctx.Done():
		s.cutOff(&Error{Op: "shutdown", Peer: s.peer, Code: codes.Closed, Err: ErrClosed}, true)
		return &Error{Op: "shutdown", Peer: s.peer, Err: errors.Join(ctx.Err(), s.awaitClosed())}
	}
}

// Drain begins a drain and returns at once. It sends text to the peer. See Shutdown.
func (s *Session) Drain(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drainLocked(frame.Failure{Code: codes.GoingAway, Text: text})
}

// Draining reports whether the session accepts no new work, because either side drains it or it has ended.
func (s *Session) Draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end.ours > phaseOpen || s.end.theirs > phaseOpen || s.err != nil
}

// drainLocked begins a drain from this side, once.
func (s *Session) drainLocked(f frame.Failure) {
	if s.end.ours >= phaseDraining || s.err != nil {
		if s.end.ours == phaseClosing { // the application waits as well
			s.end.ask(demandDrain)
		}
		return
	}
	s.end.ours, s.end.farewell = phaseDraining, &f
	s.leaveWhenIdleLocked(&Error{Op: "session", Peer: s.peer, Code: codes.GoingAway, Text: "drained"})
}

// goAwayLocked notifies the peer that requests after the last accepted one are not served.
func (s *Session) goAwayLocked(f frame.Failure) {
	s.controlFailureLocked(frame.TypeGoAway, s.ids.theirs, f)
	s.end.saidGoAway = s.end.ours
	s.answerExemptedLocked()
}

// sayFarewellLocked sends the GOAWAY of a drain once everything that callers have queued has begun to leave. The peer closes when it is
// idle, so requests that it has not yet seen would be lost.
func (s *Session) sayFarewellLocked() {
	if s.end.farewell != nil && !s.backlogLocked() {
		s.goAwayLocked(*s.end.farewell)
		s.end.farewell = nil
	}
}

// backlogLocked reports whether any work of this side has not begun to leave.
func (s *Session) backlogLocked() bool {
	if s.calls.waiting.len() > 0 || int(s.calls.inFlight) > len(s.calls.pending) || s.messages.out.waiting.len() > 0 || s.messages.out.queue.len() > 0 {
		return true
	}
	begun := 0
	for _, st := range s.shared.open {
		if st.mine && !st.parted {
			begun++
		}
	}
	for st := range s.dedicated.open {
		if st.conn == nil && s.end.ours < phaseClosing {
			return true
		}
	}
	return s.shared.ours > begun
}

// onGoAway handles the peer's notice that it drains or closes. s.mu is held.
func (s *Session) onGoAway(h frame.Header, p []byte) error {
	f, err := frame.ConsumeFailure(p)
	if err != nil {
		return err
	}
	s.end.theirs = max(s.end.theirs, phaseDraining)
	gone := &Error{Remote: true, Code: codes.GoingAway, Outcome: NotSent, Text: f.Text}
	if f.Code != codes.GoingAway && f.Code != codes.Closed { // the peer ends the session for this
		gone.Code, gone.Outcome, gone.RetryAfter = f.Code, Rejected, f.RetryAfter
	}
	s.abortQueuedLocked(gone)
	for id, c := range s.calls.pending {
		if id > h.ID {
			refused := *gone
			c.finishLocked(&refused)
		}
	}
	for id, st := range s.shared.open {
		if st.mine && !st.accepted && id > h.ID {
			st.endLocked(gone)
		}
	}
	leaving := &Error{Op: "session", Peer: s.peer, Remote: true, Code: f.Code, RetryAfter: f.RetryAfter, Text: f.Text}
	if f.Code == codes.Closed {
		leaving.Err = ErrSessionLost
	}
	switch {
	case f.Code == codes.GoingAway:
		s.leaveWhenIdleLocked(leaving)
	case f.Code == codes.Closed && s.end.theirs < phaseClosing:
		s.onClosing(leaving)
	case f.Code == codes.Closed && s.exchangesEnds(): // repeated
	default:
		s.leaveWhenIdleLocked(leaving)
		s.end.theirs = max(s.end.theirs, phaseOver)
		if gone.Outcome == Rejected {
			go s.fail(s.end.leaving) // nothing more will come
		}
	}
	return nil
}

// onClosing handles the peer's notice that it has closed the session. This side completes accepted work and closes the session too. A
// peer that does not exchange ends reads nothing more. s.mu is held.
func (s *Session) onClosing(leaving *Error) {
	s.end.theirs = phaseClosing
	s.end.moved++
	leaving = cmp.Or(s.end.leaving, leaving) // a drain has a reason of its own
	if !s.exchangesEnds() {
		s.end.theirs = phaseOver
		s.dropUnheardLocked(leaving)
	}
	s.messages.out.refuseWaiting(leaving)
	go s.closeFor(leaving) // the peer waits for this side's END before it closes the carrier
	if s.end.ours >= phaseClosing {
		s.endStreamsLocked()
	}
	s.stirLocked()
}

// dropUnheardLocked gives up the data that a closed peer will not read: the answers to its requests, and the unsent part of Writes.
func (s *Session) dropUnheardLocked(leaving *Error) {
	for _, m := range s.requests.open {
		m.cancelLocked(context.Canceled)
	}
	for _, st := range s.shared.open {
		if len(st.out) > 0 {
			st.abort(leaving)
		}
	}
}

// leaveWhenIdleLocked ends the session with the given reason once nothing is in flight.
func (s *Session) leaveWhenIdleLocked(reason *Error) {
	if s.end.leaving != nil {
		return
	}
	s.end.leaving = reason
	s.end.parting.Store(true)
	go s.finishDrain(reason, s.end.idle)
	s.checkIdleLocked()
}

// finishDrain closes a drained session. It runs in its own goroutine, which ends when the session has ended.
func (s *Session) finishDrain(reason *Error, idle <-chan struct{}) {
	for idle != nil {
		select {
		case <-idle:
		case <-s.ended:
			return
		}
		if !reason.Remote { // the peer closes first, once it is idle too
			s.awaitFor(min(s.cfg.CloseTimeout, partingGrace), s.isAwayLocked)
		}
		if s.carriers.flow != nil && s.awaitValue() != nil { // the last answers may wait for another carrier
			return
		}
		idle = s.busyAgain()
	}
	s.mu.Lock()
	if s.exempt.count != [handler.Kinds]int{} { // the streams of handlers that wait for the end are closed
		s.end.ask(demandClose)
	}
	s.mu.Unlock()
	s.closeFor(reason)
}

// awaitValue waits until the peer has acknowledged everything worth waiting for. GOAWAY itself does not count: a peer without a carrier
// and with nothing in flight has most likely ended. The error is the reason why the session ended.
func (s *Session) awaitValue() error {
	s.mu.Lock()
	end := s.out.valueEnd
	s.mu.Unlock()
	return s.carriers.flow.AwaitAckedTo(end)
}

// busyAgain returns the channel to wait on when work has arrived since the drain was idle, or nil.
func (s *Session) busyAgain() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || !s.unsettledLocked() {
		return nil
	}
	s.end.idle = make(chan struct{})
	return s.end.idle
}

// lookIdleLocked continues a drain or Close when some work has ended.
func (s *Session) lookIdleLocked() {
	s.stirLocked()
	s.sayFarewellLocked()
	if !s.unsettledLocked() {
		s.shutIdleLocked()
	}
}

// unsettledLocked reports whether anything is in flight, or on its way into the flow.
func (s *Session) unsettledLocked() bool {
	return s.out.inBatch.Load() || s.hasOutboundLocked() || s.busyLocked()
}

// busyLocked reports whether anything is in flight, other than what handlers serve that wait for the end of the session.
func (s *Session) busyLocked() bool { return s.worksLocked() || s.streamsLocked() }

// worksLocked reports whether anything but streams is in flight.
func (s *Session) worksLocked() bool { return s.owesLocked() || s.servesLocked() }

// servesLocked reports whether handlers of calls and messages run, or calls and messages of this side are under way.
func (s *Session) servesLocked() bool {
	return s.requests.running > s.exempt.count[handler.Call] || s.messages.in.works() && s.exempt.count[handler.OneWay] == 0 ||
		s.calls.inFlight > 0 || s.calls.waiting.len() > 0 || s.messages.out.charge > 0 || s.messages.out.waiting.len() > 0
}

// streamsLocked reports whether streams are open, or their handlers run.
func (s *Session) streamsLocked() bool {
	exempted := s.exempt.count[handler.Stream]
	return len(s.shared.open)+len(s.dedicated.open) > exempted || s.shared.ours > 0 || s.shared.handlers > exempted
}

func (s *Session) shutIdleLocked() {
	if !s.end.isIdle() {
		close(s.end.idle)
	}
}
