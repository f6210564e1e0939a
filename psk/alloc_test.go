//go:build !race

// The race detector makes sync.Pool drop buffers at random, so these counts hold without it only.

package psk

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Row: N2
func TestWriteDoesNotAllocate(t *testing.T) {
	for _, size := range []int{1, 64, 2000, maxChunk, 64 << 10, maxBatch, maxBatch + 1} {
		c := writing(func(b []byte) (int, error) { return len(b), nil })
		p := make([]byte, size)
		allocs := testing.AllocsPerRun(200, func() { _, _ = c.Write(p) })
		require.Zero(t, allocs, "%d bytes", size)
	}
}

// Row: N2
func TestReadDoesNotAllocate(t *testing.T) {
	for _, size := range []int{1, 64, 2000, maxChunk} {
		for _, room := range []int{size, 1 + size/2} { // straight into the caller's buffer, and by way of ours
			a, b := memoryPair()
			p, got := make([]byte, size), make([]byte, room)
			allocs := testing.AllocsPerRun(200, func() {
				_, _ = a.Write(p)
				for left := size; left > 0; {
					n, _ := b.Read(got)
					left -= n
				}
			})
			require.Zero(t, allocs, "records of %d bytes, reads of %d", size, room)
		}
	}
}

// Time cannot be asserted; that a refusal for an unknown id takes the same steps as one for a wrong key shows in what they
// allocate, which changes with any step left out. BenchmarkRespond has the times.
//
// Row: N1
func TestRefusalsTakeTheSameSteps(t *testing.T) {
	key, other := testKey(t, "one secret"), testKey(t, "another secret")
	ring := testRing(t, key)
	i, err := testRing(t, other).Initiate(nil)
	require.NoError(t, err)
	steps := func(id KeyID) float64 {
		return testing.AllocsPerRun(100, func() {
			r, err := ring.Respond(nil, id, i.Message())
			if err == nil || r != nil {
				t.Errorf("admitted %s", id)
			}
		})
	}
	require.Equal(t, steps(key.ID()), steps(other.ID()))
}
