package resume

import "fmt"

// State is what a [Conn] has come to.
//
//	connected ──> detached ──> resumed ──> detached ...
//	    any of them ──> closed | lost
type State int

// The states of a Conn.
const (
	// StateConnected: the Conn exists, and has its first carrier.
	StateConnected State = 1
	// StateDetached: the carrier has failed. Err says why.
	StateDetached State = 2
	// StateResumed: there is a new carrier, after a loss or after Reconnect.
	StateResumed State = 3
	// StateLost: the Conn has ended for another reason than a Close. Err, which is what Read and Write return, says why.
	StateLost State = 4
	// StateClosed: the Conn has ended by its own Close or the other side's. Err is nil, or matches ErrLost if this side has
	// closed and cannot tell that everything was delivered.
	StateClosed State = 5
)

// String returns the state as one word.
func (s State) String() string {
	switch s {
	case StateConnected:
		return "connected"
	case StateDetached:
		return "detached"
	case StateResumed:
		return "resumed"
	case StateLost:
		return "lost"
	case StateClosed:
		return "closed"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// over reports whether nothing follows s.
func (s State) over() bool { return s == StateLost || s == StateClosed }

// StateChange is for Options.OnState. When it tells of StateLost or StateClosed, everything of the Conn is freed but what
// has been received and not read.
type StateChange struct {
	Conn  *Conn
	State State
	Err   error
}
