// Package cause says whose doing an end or a refusal was.
package cause

import (
	"errors"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// The sides that an error may come from, as the snapshots of package diagnostics name them.
const (
	Local   = "local"   // this side
	Peer    = "peer"    // the peer, which gave a reason
	Network = "network" // neither: a connection broke, fell silent, or could not be opened
)

// Of returns the side that err comes from, and its code, which is codes.OK if it has none.
func Of(err error) (by string, code codes.Code) {
	by, code = Network, codes.OK
	for next := err; next != nil; {
		e, ok := errors.AsType[*session.Error](next)
		if !ok {
			break
		}
		if code == codes.OK && e.Code != codes.OK {
			by, code = Local, e.Code
		}
		if e.Remote {
			by = Peer
			break
		}
		next = e.Err
	}
	if by == Network && errors.Is(err, session.ErrClosed) {
		by = Local
	}
	return by, code
}
