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
	case s == 0:
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
