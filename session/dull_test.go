package session

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/frame"
)

// Row: P21
func TestDullBodiesAreTriedLessOftenAndLargeOnesAlways(t *testing.T) {
	var d dull
	random := make([]byte, 8<<10)
	_, _ = rand.Read(random)
	tried := 0
	for range 200 {
		before := d.failed.Load()
		_, ok := d.compress(random, nil)
		require.False(t, ok)
		if d.failed.Load() > before {
			tried++
		}
	}
	require.Less(t, tried, 20)
	require.Positive(t, d.skip.Load())

	_, ok := d.compress(make([]byte, neverDull), nil)
	require.True(t, ok, "a large body is tried whatever came before")
	small, ok := d.compress(make([]byte, frame.MinCompress), nil)
	require.True(t, ok, "one that shrinks ends the suspicion")
	require.Less(t, len(small), 100)

	_, _ = d.compress(random, nil)
	zeros := make([]byte, 8<<10)
	for i := range maxDull + 2 {
		if _, ok := d.compress(zeros, nil); ok {
			require.LessOrEqual(t, i, maxDull)
			return
		}
	}
	t.Fatal("a change of what is sent was never noticed")
}
