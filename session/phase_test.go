package session

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// atPhases returns a session that is at a pair of phases.
func atPhases(ours, theirs phase, caps frame.Caps) *Session {
	s := &Session{caps: caps}
	s.end.ours, s.end.theirs = ours, theirs
	if ours > phaseOpen {
		s.end.leaving = &Error{Op: "session", Code: codes.Closed, Err: ErrClosed}
	}
	return s
}

func TestEachPairOfPhasesHasItsStage(t *testing.T) {
	for ours := range phase(phases) {
		for theirs := range phase(phases) {
			s := atPhases(ours, theirs, frame.CapEnds)
			over := ours >= phaseOver && theirs >= phaseOver
			switch at := s.end.stage(); {
			case ours == phaseOpen && theirs == phaseOpen:
				require.Equal(t, stageOpen, at)
				require.Nil(t, s.refusalLocked("send", "x"))
			case ours < phaseClosing:
				require.Contains(t, []stage{stageDraining, stageParted}, at, "%d, %d", ours, theirs)
				require.Equal(t, codes.GoingAway, s.refusalLocked("send", "x").Code, "%d, %d", ours, theirs)
			default:
				require.Equal(t, codes.Closed, s.refusalLocked("send", "x").Code, "%d, %d", ours, theirs)
				require.Equal(t, over || theirs == phaseGaveUp, at == stageParted, "%d, %d", ours, theirs)
			}
			require.Equal(t, s.end.leaving != nil && (over || theirs == phaseGaveUp), s.isPartedLocked(), "%d, %d", ours, theirs)
		}
	}
}

// A stage never goes back while phases grow, or the end of a session could be undone.
func TestNoPhaseLeadsToAnEarlierStage(t *testing.T) {
	for ours := range phase(phases) {
		for theirs := range phase(phases) {
			if ours+1 < phases {
				require.LessOrEqual(t, stages[ours][theirs], stages[ours+1][theirs], "%d, %d", ours, theirs)
			}
			if theirs+1 < phases {
				require.LessOrEqual(t, stages[ours][theirs], stages[ours][theirs+1], "%d, %d", ours, theirs)
			}
		}
	}
}

func TestAPeerThatExchangesNoEndsHasPartedWithItsLastFrame(t *testing.T) {
	for ours := range phase(phases) {
		for theirs := range phase(phases) {
			s := atPhases(ours, theirs, 0)
			require.Equal(t, ours > phaseOpen && (ours >= phaseOver || theirs >= phaseOver), s.isPartedLocked(), "%d, %d", ours, theirs)
		}
	}
}

func TestAnAbortWaitsForNoMoreThanThePeersLastFrame(t *testing.T) {
	s := atPhases(phaseClosing, phaseOver, frame.CapEnds)
	require.False(t, s.isPartedLocked())
	s.end.ask(demandAbort)
	s.end.ask(demandClose)
	require.Equal(t, demandAbort, s.end.demand, "a demand has shrunk")
	require.True(t, s.isPartedLocked())
	require.True(t, s.end.isCutShort())
}

// An aborted session ends its streams with itself, and never in order: the peer would take what it has for all of it.
func TestAnAbortEndsNoStreamInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetStream("x", func(st *Stream) { <-st.Session().Done() })
		for _, o := range []*StreamOptions{nil, {Dedicated: true}} {
			_, err := p.dialer.OpenStream(t.Context(), "x", o)
			require.NoError(t, err)
		}
		s := p.dialer
		s.mu.Lock()
		s.beginClosingLocked(&Error{Op: "session", Code: codes.Closed, Err: ErrClosed})
		s.end.ask(demandAbort)
		s.onClosing(&Error{Op: "session", Remote: true, Code: codes.Closed, Err: ErrSessionLost}) // the peer closes meanwhile
		inOrder := s.end.closings
		for _, st := range s.shared.open {
			if st.finAsked {
				inOrder++
			}
		}
		s.mu.Unlock()
		s.Abort()
		require.Zero(t, inOrder)
	})
}
