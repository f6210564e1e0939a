package session

import "github.com/peerlane/peerlane/internal/frame"

// A phase is the progress of one side of a session toward its end (spec 5.9). It only grows.
//
//	open ──Drain──> draining ──idle──┐
//	  └─────────Close────────────────┴──> closing ──all settled, or given up──> over
type phase uint8

const (
	phaseOpen     phase = iota // takes new work
	phaseDraining              // GOAWAY: no new work; work in flight continues to its end
	phaseClosing               // GOAWAY with codes.Closed: as above, and the session ends once everything is settled
	phaseOver                  // END, or GOAWAY from or to a peer that does not exchange ends: this side's last frame
)

// isParted reports whether the two sides have no more frames to exchange, so that the end of the carrier is the end of the session. s.mu
// is held.
func (s *Session) isParted() bool {
	switch {
	case s.leaving == nil:
		return false
	case s.exchangesEnds():
		return s.peerPhase == phaseOver && (s.phase == phaseOver || s.impatient)
	}
	return s.peerPhase == phaseOver || s.phase == phaseOver
}

// exchangesEnds reports whether both sides settle the work in flight before a session ends, and send END.
func (s *Session) exchangesEnds() bool { return s.caps&frame.CapEnds != 0 }
