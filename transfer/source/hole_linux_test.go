package source

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// sparse makes a file of holes, but for a MiB of data at each place, and skips where the disk has no holes.
func sparse(t testing.TB, path string, size int64, at ...int64) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(size))
	for _, off := range at {
		_, err := f.WriteAt([]byte(random(1<<20)), off)
		require.NoError(t, err)
	}
	if !hasHole(f, size) {
		t.Skip("no holes on this disk")
	}
	require.NoError(t, f.Close())
	require.NoError(t, os.Chtimes(path, past, past))
}

func TestHolesAreFound(t *testing.T) {
	const size = 100 << 30
	root := t.TempDir()
	sparse(t, filepath.Join(root, "sparse"), size, 1<<30, 50<<30, size-1<<20)
	sparse(t, filepath.Join(root, "hole"), size)
	rewrite(t, filepath.Join(root, "dense"), random(1<<20))
	rewrite(t, filepath.Join(root, "empty"), "")
	tree := walk(t, nil, root)
	name := filepath.Base(root)
	type extent struct {
		end  int64
		hole bool
	}
	for path, want := range map[string][]extent{
		"sparse": {{1 << 30, true}, {1<<30 + 1<<20, false}, {50 << 30, true}, {50<<30 + 1<<20, false}, {size - 1<<20, true}, {size, false}},
		"hole":   {{size, true}},
		"dense":  {{1 << 20, false}},
		"empty":  nil,
	} {
		id := idOf(t, tree, name+"/"+path)
		require.Equal(t, len(want) > 0 && want[0].hole, tree.Entries()[id].Flags&manifest.FlagSparse != 0, path)
		f, err := tree.openEntry(id)
		require.NoError(t, err)
		start := time.Now()
		var got []extent
		for off := int64(0); off < f.entry.Size; {
			end, hole := f.Hole(off)
			require.Greater(t, end, off)
			got = append(got, extent{end, hole})
			off = end
		}
		require.Less(t, time.Since(start), time.Second)
		require.Equal(t, want, got, path)
		for _, off := range []int64{-1, f.entry.Size, f.entry.Size + 1} {
			end, hole := f.Hole(off)
			require.Equal(t, f.entry.Size, end)
			require.False(t, hole)
		}
		require.NoError(t, f.Close())
	}
}

func TestHolesAreHashedWithoutReading(t *testing.T) {
	const size = 3<<20 + 5
	root := t.TempDir()
	path := filepath.Join(root, "sparse")
	sparse(t, path, size, 1<<20)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	wantLayer, want := layerOf(t, string(content))
	tree := walk(t, nil, path)
	require.Equal(t, manifest.FlagSparse, tree.Entries()[0].Flags)
	layer, got, err := tree.layer(context.Background(), 0)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, wantLayer, layer)
	require.NoError(t, tree.Hash(context.Background(), nil))
	e := tree.Entries()[0]
	require.Equal(t, manifest.FlagSparse|manifest.FlagHashed, e.Flags)
	require.Equal(t, want, b3tree.Root(e.Hash))
}
