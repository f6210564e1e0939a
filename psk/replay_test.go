package psk

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/heap"
)

func ephemeral(i int) (e [dhSize]byte) {
	binary.BigEndian.PutUint64(e[:], uint64(i))
	return e
}

func TestReplayCacheKnowsTheLastGeneration(t *testing.T) {
	const limit = 8
	cache := replayCache{limit: limit}
	for i := range 10 * limit {
		require.True(t, cache.add(ephemeral(i)), "%d is new", i)
		for back := range min(i, limit) {
			require.False(t, cache.add(ephemeral(i-back)), "%d after %d", i-back, i)
		}
		require.LessOrEqual(t, len(cache.young)+len(cache.elderly), 2*limit)
	}
	require.True(t, cache.add(ephemeral(0)), "two generations on, it is forgotten")
}

// The figure of the package doc.
func TestReplayCacheMemoryIsBounded(t *testing.T) {
	const limit = 700 << 10
	cache := replayCache{limit: replayGeneration}
	before := heap.InUse()
	for i := range 10 * replayGeneration {
		cache.add(ephemeral(i))
	}
	grown := heap.InUse() - before
	t.Logf("%d bytes for %d entries", grown, len(cache.young)+len(cache.elderly))
	require.LessOrEqual(t, grown, int64(limit))
	runtime.KeepAlive(&cache)
}
