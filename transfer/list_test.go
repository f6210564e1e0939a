package transfer

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestListsThatWaitForAnAnswerAreBounded(t *testing.T) {
	v, err := NewService(nil)
	require.NoError(t, err)
	large, other := heldList{v: v}, heldList{v: v}
	for range (mostLists + smallList) >> 16 {
		require.NoError(t, large.hold(1<<16))
	}
	require.Equal(t, CodeBusy, CodeOf(large.hold(1)))
	require.NoError(t, other.hold(smallList), "a small one has room always")
	err = other.hold(1)
	require.Equal(t, CodeBusy, CodeOf(err))
	require.Equal(t, "too many large transfers wait for an answer: try again later", whyOf(err).Text)
	large.release()
	require.NoError(t, other.hold(1))
	other.release()
	require.Zero(t, v.lists)
}
