package session

import (
	"cmp"
	"context"
	"errors"
	"time"

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
// rest as Abort does, and the error matches ctx's. A handler of the session may call Shutdown, which does not wait for it and answers its
// request with codes.Closed.
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
		s.cutOff(&Error{Op: "shutdown", Peer: s.peer, Code: codes.Closed, Err: ErrClosed})
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
	return s.phase > phaseOpen || s.peerPhase > phaseOpen || s.err != nil
}

// drainLocked begins a drain from this side, once.
func (s *Session) drainLocked(f frame.Failure) {
	if s.phase >= phaseDraining || s.err != nil {
		s.hurried = s.hurried || s.phase == phaseClosing // the application waits as well
		return
	}
	s.phase, s.farewell = phaseDraining, &f
	s.leaveWhenIdle(&Error{Op: "session", Peer: s.peer, Code: codes.GoingAway, Text: "drained"})
}

// goAwayLocked notifies the peer that requests after the last accepted one are not served.
func (s *Session) goAwayLocked(f frame.Failure) {
	s.controlFailure(frame.TypeGoAway, s.lastPeerID, f)
	s.saidGoAway = s.phase
	s.answerExempted()
}

// sayFarewell sends the GOAWAY of a drain once everything that callers have queued has begun to leave. The peer closes when it is idle,
// so requests that it has not yet seen would be lost. s.mu is held.
func (s *Session) sayFarewell() {
	if s.farewell != nil && !s.backlog() {
		s.goAwayLocked(*s.farewell)
		s.farewell = nil
	}
}

// backlog reports whether any work of this side has not begun to leave. s.mu is held.
func (s *Session) backlog() bool {
	if s.waiting.len() > 0 || int(s.inFlight) > len(s.pending) || s.lane.waiting.len() > 0 || s.lane.queue.len() > 0 {
		return true
	}
	begun := 0
	for _, st := range s.streams {
		if st.mine && !st.parted {
			begun++
		}
	}
	for st := range s.dedicated {
		if st.conn == nil && s.phase < phaseClosing {
			return true
		}
	}
	return s.mine > begun
}

// onGoAway handles the peer's notice that it drains or closes. s.mu is held.
func (s *Session) onGoAway(h frame.Header, p []byte) error {
	f, err := frame.ConsumeFailure(p)
	if err != nil {
		return err
	}
	s.peerPhase = max(s.peerPhase, phaseDraining)
	gone := &Error{Remote: true, Code: codes.GoingAway, Text: f.Text}
	s.abortQueued(gone)
	for id, c := range s.pending {
		if id > h.ID {
			c.finish(&Error{Remote: true, Code: codes.GoingAway, Outcome: NotSent, Text: f.Text})
		}
	}
	for id, st := range s.streams {
		if st.mine && !st.accepted && id > h.ID {
			st.end(&Error{Remote: true, Code: codes.GoingAway, Outcome: NotSent, Text: f.Text})
		}
	}
	leaving := &Error{Op: "session", Peer: s.peer, Remote: true, Code: f.Code, Text: f.Text}
	if f.Code == codes.Closed {
		leaving.Err = ErrSessionLost
	}
	switch {
	case f.Code == codes.GoingAway:
		s.leaveWhenIdle(leaving)
	case f.Code == codes.Closed && s.peerPhase < phaseClosing:
		s.onClosing(leaving)
	case f.Code == codes.Closed && s.exchangesEnds(): // repeated
	default:
		s.leaveWhenIdle(leaving)
		s.peerPhase = phaseOver
	}
	return nil
}

// onClosing handles the peer's notice that it has closed the session. This side completes accepted work and closes the session too. A
// peer that does not exchange ends reads nothing more. s.mu is held.
func (s *Session) onClosing(leaving *Error) {
	s.peerPhase = phaseClosing
	s.moved++
	leaving = cmp.Or(s.leaving, leaving) // a drain has a reason of its own
	if !s.exchangesEnds() {
		s.peerPhase = phaseOver
		s.dropUnheard(leaving)
	}
	s.lane.refuseWaiting(leaving)
	go s.closeFor(leaving) // the peer waits for this side's END before it closes the carrier
	if s.phase >= phaseClosing {
		s.endStreams()
	}
	s.stirLocked()
}

// dropUnheard gives up the data that a closed peer will not read: the answers to its requests, and the unsent part of Writes. s.mu is
// held.
func (s *Session) dropUnheard(leaving *Error) {
	for _, m := range s.serving {
		m.cancelLocked(context.Canceled)
	}
	for _, st := range s.streams {
		if len(st.out) > 0 {
			st.abort(leaving)
		}
	}
}

// leaveWhenIdle ends the session with the given reason once nothing is in flight. s.mu is held.
func (s *Session) leaveWhenIdle(reason *Error) {
	if s.leaving != nil {
		return
	}
	s.leaving = reason
	s.parting.Store(true)
	go s.finishDrain(reason, s.idle)
	s.checkIdle()
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
			s.awaitFor(min(s.cfg.CloseTimeout, partingGrace), s.isAway)
		}
		if s.flow != nil && s.awaitValue() != nil { // the last answers may wait for another carrier
			return
		}
		idle = s.busyAgain()
	}
	s.mu.Lock()
	s.asked = s.asked || s.exempted != [handler.Kinds]int{} // the streams of handlers that wait for the end are closed
	s.mu.Unlock()
	s.closeFor(reason)
}

// awaitValue waits until the peer has acknowledged everything worth waiting for. GOAWAY itself does not count: a peer without a carrier
// and with nothing in flight has most likely ended. The error is the reason why the session ended.
func (s *Session) awaitValue() error {
	s.mu.Lock()
	end := s.valueEnd
	s.mu.Unlock()
	return s.flow.AwaitAckedTo(end)
}

// busyAgain returns the channel to wait on when work has arrived since the drain was idle, or nil.
func (s *Session) busyAgain() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || !s.unsettled() {
		return nil
	}
	s.idle, s.idleShut = make(chan struct{}), false
	return s.idle
}

// checkIdle continues a drain when some work has ended. s.mu is held.
func (s *Session) checkIdle() {
	if s.leaving == nil {
		return
	}
	s.stirLocked()
	s.sayFarewell()
	if !s.unsettled() {
		s.shutIdleLocked()
	}
}

// unsettled reports whether anything is in flight, or on its way into the flow. s.mu is held.
func (s *Session) unsettled() bool { return s.outgoing.Load() || s.hasOutbound() || s.busy() }

// busy reports whether anything is in flight, other than what handlers serve that wait for the end of the session. s.mu is held.
func (s *Session) busy() bool {
	exempted := s.exempted[handler.Stream]
	return s.owes() || s.running > s.exempted[handler.Call] || s.inFlight > 0 || s.waiting.len() > 0 ||
		s.lane.charge > 0 || s.lane.waiting.len() > 0 ||
		len(s.streams)+len(s.dedicated) > exempted || s.mine > 0 || s.streaming > exempted
}

func (s *Session) shutIdleLocked() {
	if !s.idleShut {
		s.idleShut = true
		close(s.idle)
	}
}

// IdleSince returns when the application last used the session, and false while anything is in flight.
func (s *Session) IdleSince() (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.activeAt(), !s.busy()
}
