package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheStatesThatFollowWhatHappensToTheCarrier(t *testing.T) {
	attached := []State{StateConnected, StateResumed, StateMigrated}
	for _, s := range attached {
		require.Equal(t, []State{StateDetached}, s.after(eventLost), s)
		require.Equal(t, []State{StateDetached, StateResumed}, s.after(eventReplaced), s)
		require.Equal(t, []State{StateMigrated}, s.after(eventMoved), s)
		require.Equal(t, []State{StateEnded}, s.after(eventEnded), s)
	}
	require.Equal(t, []State{StateConnected}, State("").after(eventOpened))
	require.Empty(t, StateDetached.after(eventLost), "a session that has no carrier loses none")
	require.Equal(t, []State{StateResumed}, StateDetached.after(eventReplaced))
	require.Equal(t, []State{StateResumed}, StateDetached.after(eventMoved))
	require.Equal(t, []State{StateEnded}, StateDetached.after(eventEnded))
	for _, e := range []event{eventOpened, eventLost, eventReplaced, eventMoved, eventEnded} {
		require.Empty(t, StateEnded.after(e), "an ended session has taken a step")
	}
}
