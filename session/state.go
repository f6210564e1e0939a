package session

import (
	"fmt"
	"net"
	"time"
)

// A State is the relation of a session to its carrier.
//
//	connected ──> detached ──> resumed ──> detached ...
//	    └────> migrated ────────┘              └──> ended
type State uint8

// The states.
const (
	StateConnected State = 1 // on the carrier that it was opened on
	StateDetached  State = 2 // without a carrier, and waiting for another
	StateResumed   State = 3 // on another carrier, after it was detached
	StateMigrated  State = 4 // on another carrier, to which it moved from a live one
	StateEnded     State = 5 // ended; Session.Err says why
)

var stateNames = [...]string{StateConnected: "connected", StateDetached: "detached", StateResumed: "resumed",
	StateMigrated: "migrated", StateEnded: "ended"}

// String returns "connected", "detached", "resumed", "migrated" or "ended".
func (s State) String() string {
	if int(s) < len(stateNames) && s > 0 {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// A StateChange reports one step of a session.
type StateChange struct {
	State State
	At    time.Time
	Conn  net.Conn // the carrier that the session is on now, or was on last
	Err   error    // StateDetached: why the carrier was lost; StateEnded: why the session ended
}

// setState records a step, which tell reports. s.mu is held.
func (s *Session) setState(state State, err error) {
	now := time.Now()
	switch state {
	case StateResumed:
		s.stats.resumes++
	case StateMigrated:
		s.stats.migrations++
	}
	s.state, s.stateSince = state, now
	s.stirLocked()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	if s.cfg.OnState != nil {
		s.changes = append(s.changes, StateChange{State: state, At: now, Conn: s.Conn(), Err: err})
	}
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
	return s.state, s.stateSince
}

// awaitChange returns a channel that is closed at the next step. s.mu is held.
func (s *Session) awaitChange() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// tell makes OnState be called for the unreported steps. s.mu is not held.
func (s *Session) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.telling && len(s.changes) > 0 {
		s.telling = true
		go s.tellAll()
	}
}

// tellAll calls OnState for one step after the other. It runs in its own goroutine, so that the hook may call the session, and ends when
// all steps are reported.
func (s *Session) tellAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.told()
	for len(s.changes) > 0 {
		change := s.changes[0]
		s.changes = s.changes[1:]
		s.tellOne(change)
	}
}

// tellOne calls OnState. s.mu is held, and released meanwhile.
func (s *Session) tellOne(change StateChange) {
	s.mu.Unlock()
	defer s.mu.Lock()
	s.cfg.OnState(s, change)
}

// told ends tellAll, or starts another goroutine for the rest if OnState has ended this one. s.mu is held.
func (s *Session) told() {
	if s.telling = len(s.changes) > 0; s.telling {
		go s.tellAll()
	}
}
