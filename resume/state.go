package resume

// State is what a [Conn] has come to.
//
//	connected ──> detached ──> resumed ──> detached ...
//	    any of them ──> closed | lost
type State string

// The states of a Conn.
const (
	// StateConnected: the Conn exists, and has its first carrier.
	StateConnected State = "connected"
	// StateDetached: the carrier has failed. Err says why.
	StateDetached State = "detached"
	// StateResumed: there is a new carrier, after a loss or after Reconnect.
	StateResumed State = "resumed"
	// StateLost: the Conn has ended for another reason than a Close. Err, which is what Read and Write return, says why.
	StateLost State = "lost"
	// StateClosed: the Conn has ended by its own Close or the other side's. Err is nil, or matches ErrLost if this side has
	// closed and cannot tell that everything was delivered.
	StateClosed State = "closed"
)

// over reports whether nothing follows s.
func (s State) over() bool { return s == StateLost || s == StateClosed }

// StateChange is for Options.OnState. When it tells of StateLost or StateClosed, everything of the Conn is freed but what
// has been received and not read.
type StateChange struct {
	Conn  *Conn
	State State
	Err   error
}
