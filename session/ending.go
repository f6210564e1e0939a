package session

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/lively"
)

// An ending is how far a session is on the way to its end, and what that end waits for. See close.go and drain.go.
type ending struct {
	ours       phase
	theirs     phase
	saidGoAway phase          // phase of this side in which the last GOAWAY was sent
	farewell   *frame.Failure // the GOAWAY of the drain, until it is sent
	leaving    *Error         // why the session will end, once it drains or the peer has closed
	parting    atomic.Bool    // leaving is set
	refused    bool           // OnOpen has refused the session, and the peer has been sent why
	demand     demand         // of the application
	idle       chan struct{}  // closed when a drain has nothing left to wait for

	look     func()        // looks whether the drain or Close is complete, when some work has ended
	stirred  chan struct{} // closed at the next change that an end waits for; nil: no waiter
	moved    uint64        // counts settled work; see progressLocked
	flushed  chan struct{} // made by the first Close; closed when the lanes have put on their streams what they held back
	closings int           // streams that are being closed, and report undelivered data
	waits    uint64        // see endProgressLocked
	arrived  atomic.Uint64 // Reads that returned more than a heartbeat; not guarded
}

// endClosingLocked ends the closing of a stream counted in closings, and notes undelivered data.
func (s *Session) endClosingLocked(of any, err error) {
	var failed *Error
	if errors.As(err, &failed) {
		s.noteLostLocked(of, failed)
	}
	s.end.closings--
	s.checkIdleLocked()
	s.stirLocked()
}

// partingGrace bounds how long sending the last frame to a slow peer may take.
const partingGrace = time.Second

// progressLocked counts the events that bring the end of the session nearer: frames that settle work, bytes of work owed or awaited, and
// acknowledgements by the peer. Other frames do not count, or a peer could hold up Close with them.
func (s *Session) progressLocked() uint64 {
	n := s.end.moved + s.bare.written.Load()
	if s.calls.inFlight > 0 || s.requests.partial > 0 {
		n += s.end.arrived.Load() // a large frame from a slow peer may take long
	}
	if s.carriers.flow != nil {
		n += min(s.carriers.flow.Acked(), s.out.valueEnd)
	}
	return n
}

// awaitProgress waits until done returns true, and reports whether it did. It gives up when there has been no progress for CloseTimeout,
// when the session has ended, and when the peer no longer waits. It calls both functions with s.mu held.
func (s *Session) awaitProgress(done func() bool, progress func() uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := lively.NewProgress(s.cfg.CloseTimeout, progress())
	defer p.Stop()
	for !done() {
		if s.err != nil || s.end.isCutShort() {
			return false
		}
		stirred := s.stirringLocked()
		s.mu.Unlock()
		select {
		case <-stirred:
		case <-s.ended:
		case <-p.C:
		}
		s.mu.Lock()
		if p.Stalled(progress()) {
			return done()
		}
	}
	return true
}

// awaitFor waits until done returns true or the session has ended, for at most d. It calls done with s.mu held.
func (s *Session) awaitFor(d time.Duration, done func() bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && !done() {
		stirred := s.stirringLocked()
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

// stirringLocked returns a channel that is closed at the next change that a waiting end must see.
func (s *Session) stirringLocked() <-chan struct{} {
	if s.end.stirred == nil {
		s.end.stirred = make(chan struct{})
	}
	return s.end.stirred
}

// stirLocked wakes the goroutines that wait for an end.
func (s *Session) stirLocked() {
	if s.end.stirred != nil {
		close(s.end.stirred)
		s.end.stirred = nil
	}
}

// stage returns what the phases of both sides come to, if they exchange ends.
func (e *ending) stage() stage { return stages[e.ours][e.theirs] }

// ask records that the application asks for d.
func (e *ending) ask(d demand) { e.demand = max(e.demand, d) }

// endsStreams reports whether the streams are ended in order. Abort ends them with the session, so that no peer takes what has arrived for all.
func (e *ending) endsStreams() bool { return e.demand == demandClose }

// isCutShort reports whether the end no longer waits for anything.
func (e *ending) isCutShort() bool { return e.demand == demandAbort || e.theirs == phaseGaveUp }

// isIdle reports whether a drain has nothing left to wait for.
func (e *ending) isIdle() bool {
	select {
	case <-e.idle:
		return true
	default:
		return false
	}
}

// isPartedLocked reports whether the two sides have no more frames to exchange, so that the end of the carrier is the end of the session.
func (s *Session) isPartedLocked() bool {
	e := &s.end
	switch {
	case e.leaving == nil:
		return false
	case e.refused:
		return true
	case s.exchangesEnds():
		return e.stage() == stageParted || e.theirs >= phaseOver && e.isCutShort()
	}
	return e.theirs >= phaseOver || e.ours >= phaseOver
}

// exchangesEnds reports whether both sides settle the work in flight before a session ends, and send END.
func (s *Session) exchangesEnds() bool { return s.caps&frame.CapEnds != 0 }

// refusalLocked returns the error for new work on a session that takes none, or nil.
func (s *Session) refusalLocked(op, link string) *Error {
	var code codes.Code
	var cause error
	switch {
	case s.err != nil:
		code, cause = s.err.Code, s.err.cause()
	case s.end.ours >= phaseClosing:
		code, cause = s.end.leaving.Code, s.end.leaving.cause()
	case s.end.flushed != nil:
		code, cause = codes.Closed, ErrClosed
	case s.end.stage() != stageOpen:
		code = codes.GoingAway
		if why := s.end.leaving; why != nil && why.Remote && why.Code != codes.Closed { // the peer may have refused the session
			code, cause = why.Code, why.cause()
		}
	default:
		return nil
	}
	return &Error{Op: op, Peer: s.peer, Link: link, Outcome: NotSent, Code: code, Err: cause}
}

// checkIdleLocked continues a drain or Close when some work has ended.
func (s *Session) checkIdleLocked() {
	if s.end.leaving != nil {
		s.end.look()
	}
}
