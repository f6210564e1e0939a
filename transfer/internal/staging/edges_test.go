package staging

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/edges"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestNoOptionsAndNoCallAreAPanic(t *testing.T) {
	given := edges.As[FS](edges.Of((*manifest.Rules)(nil), &manifest.Rules{}, &manifest.Rules{Entries: -1}, testRules))
	edges.Each(given, func(o Options, what string) {
		t.Log(what)
		s, err := Create(newTestDisk(1, false), testID, tree(), &o)
		if err != nil {
			require.NotEmpty(t, codeOf(err), "%v", err)
			return
		}
		for _, e := range tree() {
			if e.Kind == manifest.KindFile {
				_ = s.WriteAt(e.ID, content(e.ID, e.Size), 0)
			}
		}
		_, _, _ = s.Sync(), s.Publish([]uint32{2, 3, 4}), s.Finish()
		_ = s.Close()
	})
	for seed := range uint64(80) {
		t.Log("seed", seed)
		rng := rand.New(rand.NewPCG(seed, 6))
		disk := newTestDisk(seed, false)
		s := createMem(t, disk, Options{Sync: SyncPolicy(seed % 3)})
		g := edges.As[FS](edges.Of((*manifest.Rules)(nil), testRules, testID, "", "x", "0000", uint32(0), uint32(1), uint32(2), uint32(3),
			uint32(4), uint32(5), uint32(1<<31), uint32(1<<32-1)), disk)
		edges.Methods(g, rng, 200, s, "Close", "Abort", "Finish")
		edges.Methods(g, rng, 30, s)
		edges.Func(g, rng, 3, "Create", Create)
		edges.Func(g, rng, 3, "Open", Open)
		edges.Func(g, rng, 3, "Discard", Discard)
		edges.Func(g, rng, 3, "Cleanup", Cleanup)
		edges.Func(g, rng, 3, "Free", Free)
		_ = s.Close()
	}
}
