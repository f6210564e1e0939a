package session

import "time"

// reports are the steps of a session that OnState has not been told.
type reports struct {
	pending []StateChange
	running bool // a goroutine calls OnState
}

// happenLocked records what has happened to the carrier, and the steps that follow from it, which tell reports. why is the reason of a
// loss, or of the end.
func (s *Session) happenLocked(e event, why error) {
	for _, state := range s.carriers.state.after(e) {
		err := why
		if state != StateDetached && state != StateEnded {
			err = nil
		}
		s.stepLocked(state, err)
	}
}

// stepLocked records one step.
func (s *Session) stepLocked(state State, err error) {
	now := time.Now()
	switch state {
	case StateResumed:
		s.stats.resumes++
	case StateMigrated:
		s.stats.migrations++
	}
	if s.carriers.state == StateDetached {
		s.carriers.away += now.Sub(s.carriers.since)
	}
	s.carriers.state, s.carriers.since = state, now
	s.recordCarrierLocked(state, now, err)
	s.stirLocked()
	if s.carriers.changed != nil {
		close(s.carriers.changed)
		s.carriers.changed = nil
	}
	change := StateChange{State: state, At: now, Conn: s.Conn(), Err: err}
	if s.cfg.OnState != nil {
		s.reports.pending = append(s.reports.pending, change)
	}
	s.hookStep(change)
}

// State returns the current state.
func (s *Session) State() State {
	state, _ := s.stateAt()
	return state
}

// stateAt returns the state, and when it began.
func (s *Session) stateAt() (State, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.carriers.state, s.carriers.since
}

// Changed returns a channel that is closed when the state changes next, also from one to the same, as when a session moves twice.
func (s *Session) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.awaitChangeLocked()
}

// awaitChangeLocked returns a channel that is closed at the next step.
func (s *Session) awaitChangeLocked() <-chan struct{} {
	if s.carriers.changed == nil {
		s.carriers.changed = make(chan struct{})
	}
	return s.carriers.changed
}

// tell makes OnState be called for the unreported steps. s.mu is not held.
func (s *Session) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reports.running && len(s.reports.pending) > 0 {
		s.reports.running = true
		go s.tellAll()
	}
}

// tellAll calls OnState for one step after the other. It runs in its own goroutine, so that the hook may call the session, and ends when
// all steps are reported.
func (s *Session) tellAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.toldLocked()
	for len(s.reports.pending) > 0 {
		change := s.reports.pending[0]
		s.reports.pending = s.reports.pending[1:]
		s.tellOne(change)
	}
}

// tellOne calls OnState. s.mu is held, and released meanwhile.
func (s *Session) tellOne(change StateChange) {
	s.mu.Unlock()
	defer s.mu.Lock()
	s.cfg.OnState(s, change)
}

// toldLocked ends tellAll, or starts another goroutine for the rest if OnState has ended this one.
func (s *Session) toldLocked() {
	if s.reports.running = len(s.reports.pending) > 0; s.reports.running {
		go s.tellAll()
	}
}
