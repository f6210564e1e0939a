package transfer

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Claim: transfer.Options.OnEvent, transfer.Event.Kind
func TestEventsThatNobodyTakesAreBoundedAndNoFailureIsLost(t *testing.T) {
	const many, failures = 10000, 700
	var told []Event
	stuck, free := make(chan struct{}), make(chan struct{})
	tr, _ := newTransfer(receives, "b", Options{OnEvent: func(e Event) {
		if len(told) == 0 {
			close(stuck)
			<-free
		}
		told = append(told, e)
	}}.withDefaults())
	tr.tell(Event{Kind: EventLost, Path: "the one that hangs"})
	<-stuck
	for i := range many {
		tr.tell(Event{Kind: EventBadPiece, Path: fmt.Sprint(i)})
		if i%(many/failures) == 0 {
			tr.fileFailed(&Error{Code: CodeSourceChanged, Path: fmt.Sprint(i)})
		}
		require.LessOrEqual(t, len(tr.untold), len(tr.failed)+2*mostUntold)
	}
	tr.tell(Event{Kind: EventSourceDropped})
	close(free)
	tr.end(nil)
	failed, last := 0, -1
	var passed []int
	for _, e := range told[1:] {
		n := last
		if e.Kind != EventSourceDropped {
			_, err := fmt.Sscan(e.Path, &n)
			require.NoError(t, err)
		}
		require.GreaterOrEqual(t, n, last, "they are told in order")
		last = n
		switch e.Kind {
		case EventFileFailed:
			failed++
		case EventBadPiece:
			passed = append(passed, n)
		}
	}
	require.Equal(t, len(tr.failed), failed)
	require.Greater(t, failed, mostUntold)
	require.Equal(t, EventSourceDropped, told[len(told)-1].Kind)
	for i := range mostUntold / 2 {
		require.Equal(t, i, passed[i], "the first")
		require.Equal(t, many-1-i, passed[len(passed)-1-i], "and the last")
	}
}
