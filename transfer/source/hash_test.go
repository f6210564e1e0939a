package source

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// random returns n bytes that are the same in every run.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return string(b)
}

// layerOf returns what package b3tree makes of content.
func layerOf(t testing.TB, content string) ([]b3tree.CV, b3tree.Root) {
	t.Helper()
	shape, err := b3tree.ShapeOf(int64(len(content)))
	require.NoError(t, err)
	h := b3tree.NewHasher(shape)
	_, err = h.Write([]byte(content))
	require.NoError(t, err)
	root, err := h.Root()
	require.NoError(t, err)
	if len(h.Layer()) == 0 {
		return nil, root
	}
	return h.Layer(), root
}

// Claim: source.HashOptions.OnProgress, source.HashOptions.Workers
func TestHashGivesEveryFileItsRoot(t *testing.T) {
	const piece = b3tree.MinPieceSize
	contents := map[string]string{"d/link/": ""}
	for i, size := range []int{0, 1, 1024, piece - 1, piece, piece + 1, 2 * piece, 5*piece + 17, 9 * piece} {
		contents["d/"+string(rune('a'+i))] = random(size)
	}
	root := write(t, contents)
	for _, workers := range []int{0, 1, 2, 7} {
		tree := walk(t, nil, filepath.Join(root, "d"))
		before := tree.Entries()
		files, bytes := 0, int64(0)
		require.NoError(t, tree.Hash(context.Background(), &HashOptions{Workers: workers, OnProgress: func(f int, b int64) {
			require.GreaterOrEqual(t, f, files)
			require.GreaterOrEqual(t, b, bytes)
			files, bytes = f, b
		}}))
		require.Equal(t, tree.Files(), files)
		require.Equal(t, tree.Bytes(), bytes)
		for i, e := range tree.Entries() {
			require.Zero(t, before[i].Flags, "what was returned does not change")
			if e.Kind != manifest.KindFile {
				require.Zero(t, e.Flags)
				continue
			}
			wantLayer, want := layerOf(t, contents[e.Path])
			require.Equal(t, manifest.FlagHashed, e.Flags)
			require.EqualValues(t, want, e.Hash, e.Path)
			layer, got, err := tree.layer(context.Background(), e.ID)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Equal(t, wantLayer, layer)
		}
		hashed := tree.Entries()
		require.NoError(t, tree.Hash(context.Background(), nil), "once is enough")
		require.Same(t, &hashed[0], &tree.Entries()[0])
	}
}

func TestHashFailsWhenAFileHasChanged(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "large": 2 * b3tree.MinPieceSize} {
		root := write(t, map[string]string{"d/a": "unchanged", "d/b": random(size), "d/c": random(size)})
		tree := walk(t, nil, filepath.Join(root, "d"))
		rewrite(t, filepath.Join(root, "d", "b"), random(size+1))
		requireCode(t, fault.CodeSourceChanged, "d/b", tree.Hash(context.Background(), nil), name)
		_, _, err := tree.layer(context.Background(), idOf(t, tree, "d/b"))
		requireCode(t, fault.CodeSourceChanged, "d/b", err, name)
		require.Zero(t, tree.Entries()[1].Flags)
	}
}

func TestHashFailsWhenAFileChangesMeanwhile(t *testing.T) {
	for name, change := range changes {
		if name == "gone" || name == "replaced" || strings.HasPrefix(name, "a ") {
			needsUnix(t)
		}
		root := write(t, map[string]string{"d/sub/a": random(3 * b3tree.MinPieceSize)})
		cache := openCache(t, t.TempDir(), 0)
		cache.now = func() time.Time { return time.Now().Add(time.Hour) }
		tree := walk(t, &Options{Cache: cache}, filepath.Join(root, "d"))
		h := newHashing(tree, 0, len(tree.Entries()), func(uint32, b3tree.Root, []b3tree.CV) { t.Error("it has changed") })
		var err error
		for piece := range 3 {
			_, large, got := h.take()
			require.Equal(t, piece, got)
			if _, err = h.hashPiece(large, piece, nil); piece < 2 {
				require.NoError(t, err)
			}
			if piece == 1 {
				change(t, root)
			}
			if piece == 2 {
				requireCode(t, fault.CodeSourceChanged, "d/sub/a", err, name)
				_ = large.f.Close()
			}
		}
		require.Empty(t, cache.files, "what has changed is not kept")
	}
}

func TestHashesMayMakeTheManifestTooLarge(t *testing.T) {
	root := write(t, map[string]string{"a": "1"})
	for most, ok := range map[int64]bool{28 + 1 + 31: false, 28 + 1 + 32: true} {
		tree := walk(t, &Options{Rules: manifest.Rules{ManifestBytes: most}}, filepath.Join(root, "a"))
		err := tree.Hash(context.Background(), nil)
		require.Equal(t, ok, tree.hashed())
		if ok {
			require.NoError(t, err)
			continue
		}
		requireCode(t, fault.CodeTooLarge, "a", err)
	}
}

func TestHashStopsWithItsContext(t *testing.T) {
	root := write(t, map[string]string{"d/a": random(64 * b3tree.MinPieceSize), "d/b": "b"})
	tree := walk(t, nil, filepath.Join(root, "d"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Equal(t, context.Canceled, tree.Hash(ctx, nil))
	_, _, err := tree.layer(ctx, 1)
	require.Equal(t, context.Canceled, err)
	require.False(t, tree.hashed())

	ctx, cancel = context.WithCancel(context.Background())
	err = tree.Hash(ctx, &HashOptions{Workers: 1, OnProgress: func(int, int64) { cancel() }})
	if err != nil {
		require.Equal(t, context.Canceled, err)
	}
}

func TestOnlyFilesHaveLayers(t *testing.T) {
	tree := walk(t, nil, write(t, map[string]string{"a": "1"}))
	_, _, err := tree.layer(context.Background(), 0)
	requireCode(t, fault.CodeProtocol, tree.Name(), err)
	_, _, err = tree.layer(context.Background(), 2)
	requireCode(t, fault.CodeProtocol, "", err)
	require.NoError(t, walk(t, nil, t.TempDir()).Hash(context.Background(), nil), "no files")
}

func TestATreeIsForManyGoroutines(t *testing.T) {
	contents := map[string]string{}
	for i := range 300 { // in more folders than are kept open
		contents["d/"+string(rune('a'+i%26))+"/"+string(rune('a'+i/26))+"/f"] = random(i * 10)
	}
	contents["d/large"] = random(3 * b3tree.MinPieceSize)
	cache, err := OpenCache(t.TempDir(), 0)
	require.NoError(t, err)
	defer cache.Close()
	tree := walk(t, &Options{Cache: cache}, filepath.Join(write(t, contents), "d"))
	large := idOf(t, tree, "d/large")
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range tree.Entries() {
				e := &tree.Entries()[(i*7+g*100)%len(tree.Entries())]
				if e.Kind != manifest.KindFile {
					continue
				}
				got, err := tree.readEntry("read", e.ID, nil)
				if err != nil || string(got) != contents[e.Path] {
					t.Errorf("%s: %d bytes, %v", e.Path, len(got), err)
				}
			}
		})
		all.Go(func() {
			if err := tree.Hash(context.Background(), nil); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, _, err := tree.layer(context.Background(), large); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, len(tree.folders.open), maxFolders)
	for path, d := range tree.folders.open {
		require.Equal(t, 1, d.refs, path)
	}
}

func TestATreeMayBeClosedWhileItIsUsed(t *testing.T) {
	contents := make(map[string]string)
	for i := range 100 {
		contents["d/"+string(rune('a'+i%26))+"/"+string(rune('a'+i/26))] = "1"
	}
	root := filepath.Join(write(t, contents), "d")
	for range 10 {
		tree := walk(t, nil, root)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for i := range tree.Entries() {
					if tree.Entries()[i].Kind != manifest.KindFile {
						continue
					}
					if _, err := tree.readEntry("read", uint32(i), nil); err != nil && !errors.Is(err, fs.ErrClosed) {
						t.Error(err)
					}
				}
			})
		}
		all.Go(func() { _ = tree.Close() })
		all.Wait()
	}
}

func TestALayerIsReadOnce(t *testing.T) {
	root := write(t, map[string]string{"large": random(3*b3tree.MinPieceSize + 1)})
	for name, first := range map[string]func(*Tree) error{
		"by Hash":  func(tree *Tree) error { return tree.Hash(t.Context(), &HashOptions{Workers: 1}) },
		"by Layer": func(tree *Tree) error { _, _, err := tree.layer(t.Context(), 0); return err },
	} {
		tree := walk(t, nil, filepath.Join(root, "large"))
		require.NoError(t, first(tree), name)
		want, wantRoot := layerOf(t, string(mustRead(t, filepath.Join(root, "large"))))
		moved := filepath.Join(root, "moved")
		require.NoError(t, os.Rename(filepath.Join(root, "large"), moved))
		layer, got, err := tree.layer(t.Context(), 0)
		require.NoError(t, err, name)
		require.Equal(t, want, layer, name)
		require.Equal(t, wantRoot, got, name)
		require.NoError(t, os.Rename(moved, filepath.Join(root, "large")))
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}
