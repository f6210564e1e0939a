package session

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
)

// events are the means of a session to call its hooks. The zero value is that of a session without hooks. Its fields are constant except cron,
// which s.mu guards.
type events struct {
	line    *hookLine     // nil: there are no hooks
	gate    chan struct{} // closed when the peer's work may be handed to handlers, or is refused; nil: OnOpen is not set
	pass    sync.Once     // closes gate
	refusal frame.Failure // of the peer's work; set before gate is closed
	cron    *time.Timer   // nil: OnCron is not set
	cronDue atomic.Bool   // OnCron waits for its turn
}

// setHooks prepares the hooks of a new session.
func (s *Session) setHooks() {
	h := s.cfg.Hooks
	if h == nil {
		return
	}
	s.events.line = &hookLine{held: h.OnOpen != nil}
	h.setLine(s.events.line)
	if h.OnOpen != nil {
		s.events.gate = make(chan struct{})
	}
}

// callHook makes a hook be called in its turn, and reports whether it will be.
func (s *Session) callHook(name string, fn func()) bool {
	return s.events.line.add(s.hookCall(name, fn))
}

// hookCall returns the call of a hook.
func (s *Session) hookCall(name string, fn func()) hookCall {
	return hookCall{
		fn:   func() { handler.Run((*hookOwner)(s), handler.Hook, fn) },
		done: func(why *hook.Failure) { logHook(s.cfg.Logger, why, name, s.peer) },
	}
}

// passGate lets the peer's work pass to its handlers, or refuses it if the refusal has a Code. Only the first call counts.
func (s *Session) passGate(refusal frame.Failure) {
	if s.events.gate == nil {
		return
	}
	s.events.pass.Do(func() {
		s.events.refusal = refusal
		close(s.events.gate)
	})
}

// awaitOpen waits until OnOpen has returned, and returns why the peer's work is not handed to a handler, if it is not.
func (s *Session) awaitOpen() frame.Failure {
	if s.events.gate == nil {
		return frame.Failure{}
	}
	select {
	case <-s.events.gate: // whether or not the session has ended: what has come before an end in order is handled after it
		return s.events.refusal
	default:
	}
	select {
	case <-s.events.gate:
		return s.events.refusal
	case <-s.ended:
		return frame.Failure{Code: codes.Closed}
	}
}

// hookStep reports a step to OnStateChange.
func (s *Session) hookStep(change StateChange) {
	if s.events.line != nil && s.cfg.Hooks.OnStateChange != nil {
		s.callHook("OnStateChange", func() { s.cfg.Hooks.OnStateChange(s, change) })
	}
}

// hookLane reports that a lane is open, or has ended.
func (s *Session) hookLane(l Lane, open bool) {
	if s.events.line == nil {
		return
	}
	name, fn := "OnLaneOpen", s.cfg.Hooks.OnLaneOpen
	if !open {
		name, fn = "OnLaneClose", s.cfg.Hooks.OnLaneClose
	}
	if fn != nil {
		s.callHook(name, func() { fn(s, l) })
	}
}

// hookRetry reports that the session looks again for a carrier.
func (s *Session) hookRetry(attempt int, err error) {
	if s.events.line == nil || s.cfg.Hooks.OnRetry == nil {
		return
	}
	r := Retry{Op: "resume", Peer: s.peer, Tag: s.cfg.Tag, Session: s, Attempt: attempt, Err: err}
	s.callHook("OnRetry", func() { s.cfg.Hooks.OnRetry(r) })
}

// noteRefused counts something of the peer that is refused, and reports it to OnRefuse.
func (s *Session) noteRefused(kind, name string, f frame.Failure) {
	s.stats.refused.Add(1)
	if s.events.line == nil || s.cfg.Hooks.OnRefuse == nil {
		return
	}
	r := Refusal{Kind: kind, Name: name, Peer: s.peer, Tag: s.cfg.Tag, Session: s,
		Err: &Error{Op: kind, Peer: s.peer, Link: name, Code: f.Code, RetryAfter: f.RetryAfter, Text: f.Text, Outcome: Rejected}}
	s.callHook("OnRefuse", func() { s.cfg.Hooks.OnRefuse(r) })
}

// startCron starts the timer of OnCron. It ends with the session.
func (s *Session) startCron() {
	if s.events.line == nil || s.cfg.Hooks.OnCron == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.events.cron = time.AfterFunc(s.cronPeriod(), s.onCron)
	}
}

// cronPeriod returns the time between calls of OnCron.
func (s *Session) cronPeriod() time.Duration {
	switch {
	case s.cfg.Hooks.CronPeriod > 0:
		return s.cfg.Hooks.CronPeriod
	case s.cfg.Heartbeat > 0:
		return s.cfg.Heartbeat
	}
	return defaultCron
}

// defaultCron is the time between calls of OnCron of a session without a heartbeat.
const defaultCron = 5 * time.Second

// onCron makes OnCron be called, unless it waits already.
func (s *Session) onCron() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.events.cron.Reset(s.cronPeriod())
	if s.events.cronDue.Swap(true) {
		return
	}
	if !s.callHook("OnCron", func() {
		defer s.events.cronDue.Store(false)
		s.cfg.Hooks.OnCron(s)
	}) {
		s.events.cronDue.Store(false)
	}
}

// endHooks makes OnError be called, if failed is not nil, and OnClose. The attributes are left afterwards. It reports whether they will be.
func (s *Session) endHooks(failed error) bool {
	s.mu.Lock()
	if s.events.cron != nil {
		s.events.cron.Stop()
	}
	s.mu.Unlock()
	var last []hookCall
	if h := s.cfg.Hooks; h.OnError != nil && failed != nil {
		last = append(last, s.hookCall("OnError", func() { h.OnError(s, failed) }))
	}
	closed := s.hookCall("OnClose", func() {
		if s.cfg.Hooks.OnClose != nil {
			s.cfg.Hooks.OnClose(s)
		}
	})
	log := closed.done
	closed.done = func(why *hook.Failure) {
		log(why)
		s.endUse()
	}
	return s.events.line.end(append(last, closed))
}
