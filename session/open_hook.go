package session

import (
	"context"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
)

// OnOpen runs beside the session, which already lives: a call of OnOpen's gets its answer. What the peer sends meanwhile waits at a gate
// before its handlers, within the limits that hold for running handlers.

// open calls OnOpen, and then lets the session begin, or ends it. It runs in its own goroutine, which ends when both are done. told gets the
// refusal, or nil.
func (s *Session) open(told func(*Error)) {
	var err error
	hook.Run(func() {
		handler.Run((*hookOwner)(s), handler.Hook, func() { err = hook.Err(s.cfg.Hooks.OnOpen(s)) })
	}, func(why *hook.Failure) {
		if why != nil {
			logHook(s.cfg.Logger, why, "OnOpen", s.peer)
			err = &Error{Code: codes.Internal, Text: "OnOpen " + why.Error()}
		}
		if err == nil {
			s.passGate(frame.Failure{})
			s.events.line.release()
			told(nil)
			return
		}
		told(s.turnAway(err))
	})
}

// askOnOpenBeside calls OnOpen for a session that the peer has dialed, unless it has ended already: then no hook is called.
func (s *Session) askOnOpenBeside() {
	switch {
	case s.events.gate == nil:
	case s.Err() == nil:
		go s.open(func(*Error) {})
	default:
		s.dropHooks()
	}
}

// dropHooks calls no hook of the session.
func (s *Session) dropHooks() {
	if s.events.line.shut() {
		s.endUse()
	}
}

// turnAway ends the session because OnOpen has refused it, and tells the peer why.
func (s *Session) turnAway(cause error) *Error {
	refusal := *refusalBy(cause) // it may be shared by all sessions
	refusal.Op, refusal.Peer, refusal.Remote, refusal.Outcome, refusal.refused = "open", s.peer, false, NotSent, false
	if refusal.Code == codes.GoingAway || refusal.Code == codes.Closed { // in GOAWAY, these are ends in order
		refusal.Code = codes.NotAllowed
	}
	f := frame.Failure{Code: refusal.Code, RetryAfter: refusal.RetryAfter, Text: refusal.Text}
	s.dropHooks()
	s.noteRefusedSession(f)
	s.mu.Lock()
	if s.err == nil && s.end.ours < phaseClosing {
		s.end.leaving, s.end.farewell, s.end.refused = &refusal, nil, true
		s.end.parting.Store(true)
		s.controlFailureLocked(frame.TypeGoAway, 0, f)
		s.end.ours, s.end.saidGoAway = phaseOver, phaseOver
		s.out.wake.Signal()
	}
	s.mu.Unlock()
	s.passGate(f)
	s.awaitFor(min(s.cfg.CloseTimeout, partingGrace), func() bool {
		return s.carriers.state == StateDetached || s.isFlushedLocked() && s.end.theirs >= phaseClosing
	})
	s.fail(&refusal)
	own := refusal // the caller may add to it, and the session's goroutines read theirs
	return &own
}

// noteRefusedSession reports a refused session to OnRefuse. Its line is shut.
func (s *Session) noteRefusedSession(f frame.Failure) {
	if s.dialer {
		return
	}
	s.cfg.Hooks.reportRefusal(Refusal{Kind: "session", Peer: s.peer, Tag: s.cfg.Tag,
		Err: &Error{Op: "session", Peer: s.peer, Code: f.Code, RetryAfter: f.RetryAfter, Text: f.Text, Outcome: Rejected}}, s.cfg.Logger)
}

// askOnOpen calls OnOpen for a session that this side has dialed, and returns its refusal. If ctx ends first, the session is aborted.
func (s *Session) askOnOpen(ctx context.Context) error {
	if s.events.gate == nil {
		return nil
	}
	answer := make(chan *Error, 1)
	go s.open(func(refusal *Error) { answer <- refusal })
	select {
	case refusal := <-answer:
		if refusal != nil {
			return refusal
		}
		return nil
	case <-ctx.Done():
		s.Abort()
		return &Error{Op: "open", Peer: s.peer, Outcome: NotSent, Err: ctx.Err()}
	}
}
