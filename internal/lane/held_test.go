package lane

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type limited struct{ left int }

func (l *limited) Take(n int) bool {
	if n > l.left {
		return false
	}
	l.left -= n
	return true
}

func (l *limited) Give(n int) { l.left += n }

func TestHeldGivesBackWhatItTook(t *testing.T) {
	b := &limited{left: 10}
	h := In(b)
	require.True(t, h.Take(4))
	require.False(t, h.Take(7))
	require.True(t, h.UpTo(9))
	require.False(t, h.UpTo(11))
	require.Equal(t, 1, b.left)
	require.True(t, h.UpTo(2))
	h.Give(1)
	require.Equal(t, 9, b.left)
	require.True(t, h.AtLeast(1))
	require.True(t, h.AtLeast(3))
	require.False(t, h.AtLeast(11))
	require.Equal(t, 7, b.left)
	h.End()
	h.Give(1)
	require.True(t, h.Take(100))
	require.Equal(t, 10, b.left)
	none := In(nil)
	require.True(t, none.Take(math.MaxInt))
	none.End()
}

func TestRetriesBecomeRare(t *testing.T) {
	var r Retry
	require.Equal(t, firstRetry, r.Next())
	require.Equal(t, 2*firstRetry, r.Next())
	for range 10 {
		require.LessOrEqual(t, r.Next(), 2*time.Second)
	}
	require.Equal(t, lastRetry, r.Next())
}
