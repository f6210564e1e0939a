package manifest

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/edges"
)

func TestNoRulesAndNoCallAreAPanic(t *testing.T) {
	edges.Each(nil, func(r Rules, what string) {
		c, err := NewChecker(r)
		if err != nil {
			require.Nil(t, c, what)
			return
		}
		_, _, _ = c.Add(Entry{Kind: KindFile, Path: "a"}), c.Room(), c.Entries()
	})
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		c, err := NewChecker(Rules{Portable: seed%2 == 0, Symlinks: seed%3 == 0})
		require.NoError(t, err)
		var h Hasher
		for range 20 {
			e := edges.Some[Entry](nil, rng)
			_, _, _ = c.Add(e), h.Add(&e), e.EncodedSize()
			if b, err := AppendEntry(nil, &e); err == nil {
				back, n, err := ConsumeEntry(b)
				require.NoError(t, err)
				require.Equal(t, len(b), n)
				require.Equal(t, e, back)
			}
			_, _ = Root([]Entry{e, e})
			_, n, err := AppendBatch(nil, []Entry{e})
			require.Equal(t, err == nil, n == 1, "who sends all of them in batches comes to an end: %+v", e)
		}
		edges.Func(nil, rng, 10, "CheckPath", CheckPath)
		edges.Func(nil, rng, 10, "CheckTarget", CheckTarget)
		edges.Func(nil, rng, 10, "Compare", Compare)
		edges.Func(nil, rng, 10, "ConsumeBatch", ConsumeBatch)
		edges.Func(nil, rng, 10, "ConsumeEntry", ConsumeEntry)
		edges.Func(nil, rng, 5, "AppendBatch", AppendBatch)
	}
	_, err := AppendEntry(nil, nil)
	require.Error(t, err)
	require.Error(t, new(Hasher).Add(nil))
	var none Checker
	require.NotPanics(t, func() { _ = none.Add(Entry{Kind: KindFile, Path: "a/b"}) })
}
