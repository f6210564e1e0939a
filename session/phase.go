package session

import "github.com/peerlane/peerlane/frame"

// A phase is how far one side of a session has come on the way to its end (spec 5.9). It only grows.
//
//	open ──Drain──> draining ──idle──┐
//	  └─────────Close────────────────┴──> closing ──all settled, or given up──> over
type phase uint8

const (
	phaseOpen     phase = iota // takes new work
	phaseDraining              // GOAWAY: no new work; what is in flight runs to its end
	phaseClosing               // GOAWAY with CodeClosed: as above, and the session ends once it has been settled
	phaseOver                  // END, or GOAWAY from or to a peer that does not exchange ends: the last thing it says
)

// isParted reports whether the two sides have nothing more to say to each other, so that the end of the carrier is that of the
// session. s.mu is held.
func (s *Session) isParted() bool {
	switch {
	case s.leaving == nil:
		return false
	case s.exchangesEnds():
		return s.peerPhase == phaseOver && (s.phase == phaseOver || s.impatient)
	}
	return s.peerPhase == phaseOver || s.phase == phaseOver
}

// exchangesEnds reports whether both sides settle what is in flight before a session ends, and say so.
func (s *Session) exchangesEnds() bool { return s.caps&frame.CapEnds != 0 }
