package session

import (
	"net"
	"time"
)

// A State is the relation of a session to its carrier.
//
//	connected ──> detached ──> resumed ──> detached ...
//	    └────> migrated ────────┘              └──> ended
type State string

// The states.
const (
	StateConnected State = "connected" // on the carrier that it was opened on
	StateDetached  State = "detached"  // without a carrier, and waiting for another
	StateResumed   State = "resumed"   // on another carrier, after it was detached
	StateMigrated  State = "migrated"  // on another carrier, to which it moved from a live one
	StateEnded     State = "ended"     // ended; Session.Err says why
)

// A StateChange reports one step of a session.
type StateChange struct {
	State State
	At    time.Time
	Conn  net.Conn // the carrier that the session is on now, or was on last
	Err   error    // StateDetached: why the carrier was lost; StateEnded: why the session ended
}

// An event is what happens to the carrier of a session.
type event uint8

const (
	eventOpened   event = iota // the hello of the first carrier is complete
	eventLost                  // the carrier has ended, and this was not agreed on
	eventReplaced              // another carrier has taken the place of a lost one
	eventMoved                 // another carrier has taken over from a live one
	eventEnded                 // the session has ended
)

// after returns the states that a session in state s passes through when e happens, in order. There are none if it stays in s.
func (s State) after(e event) []State {
	switch {
	case s == StateEnded:
		return nil
	case e == eventEnded:
		return []State{StateEnded}
	case s == "":
		return []State{StateConnected}
	case s == StateDetached && (e == eventReplaced || e == eventMoved):
		return []State{StateResumed}
	case s == StateDetached:
		return nil
	}
	switch e {
	case eventLost:
		return []State{StateDetached}
	case eventReplaced: // before this side had noticed the loss
		return []State{StateDetached, StateResumed}
	case eventMoved:
		return []State{StateMigrated}
	}
	return nil
}
