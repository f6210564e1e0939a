package transfer_test

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/source"
)

// withLinks are rules that take symlinks.
var withLinks = manifest.Rules{Symlinks: true}

// names are components that have gone wrong somewhere.
var names = []string{
	"a", "b", "with space", " lead", "trail ", "-rf", "ä", "a\u0308", "日本語", "🙂", "CON", "a.", "name:stream", "q?*", "x-" + strings.Repeat("l", 253),
	strings.Repeat("é", 127), "%41", "$(id)", "'quoted\"", "~", "a.part",
}

// sizes are those around which files are treated in another way.
var sizes = []int{0, 1, 4096, 65536, 65537, 262143, 262144, 262145, 524288, 524289, 1 << 20}

// drawTree makes a random tree below root.
func drawTree(t *rapid.T, root string) {
	require.NoError(t, os.MkdirAll(root, 0o755))
	folders := []string{root}
	var files []string
	for range rapid.IntRange(0, 12).Draw(t, "entries") {
		in := rapid.SampledFrom(folders).Draw(t, "folder")
		at := filepath.Join(in, rapid.SampledFrom(names).Draw(t, "name"))
		if _, err := os.Lstat(at); err == nil {
			continue
		}
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0, 1:
			require.NoError(t, os.Mkdir(at, 0o755))
			folders = append(folders, at)
		case 2:
			if len(files) > 0 {
				to, err := filepath.Rel(in, rapid.SampledFrom(files).Draw(t, "target"))
				require.NoError(t, err)
				require.NoError(t, os.Symlink(to, at))
			}
		case 3:
			drawSparse(t, at)
		default:
			data := make([]byte, rapid.SampledFrom(sizes).Draw(t, "size"))
			if seed := rapid.Uint64Range(0, 3).Draw(t, "seed"); seed > 0 { // equal files, and zeros, are likely
				fill(data, seed)
			}
			require.NoError(t, os.WriteFile(at, data, 0o600))
			files = append(files, at)
		}
	}
	drawModes(t, files, folders)
}

func drawSparse(t *rapid.T, at string) {
	f, err := os.Create(at)
	require.NoError(t, err)
	size := int64(rapid.IntRange(1, 8<<20).Draw(t, "apparent"))
	require.NoError(t, f.Truncate(size))
	for range rapid.IntRange(0, 3).Draw(t, "extents") {
		off := rapid.Int64Range(0, size-1).Draw(t, "extent")
		_, err := f.WriteAt([]byte("data")[:min(4, size-off)], off)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
}

func drawModes(t *rapid.T, files, folders []string) {
	for _, file := range files {
		perm := rapid.SampledFrom([]fs.FileMode{0o400, 0o600, 0o640, 0o644, 0o755, 0o500}).Draw(t, "perm")
		require.NoError(t, os.Chmod(file, perm))
		require.NoError(t, os.Chtimes(file, time.Time{}, time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "time"), rapid.Int64Range(0, 999999999).Draw(t, "ns"))))
	}
	for i := len(folders) - 1; i >= 0; i-- { // what is in a folder changes its time
		perm := rapid.SampledFrom([]fs.FileMode{0o700, 0o755, 0o750}).Draw(t, "folder's perm")
		require.NoError(t, os.Chmod(folders[i], perm))
		require.NoError(t, os.Chtimes(folders[i], time.Time{}, time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "folder's time"), 5000)))
	}
}

// fill makes bytes that only seed decides.
func fill(b []byte, seed uint64) {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = r.Read(b) // never fails
}

// ways are how a tree gets to the other side.
var ways = map[string]func(t testing.TB, tree *source.Tree, to string, o transfer.ReceiveOptions) (transfer.Result, error){
	"push": func(t testing.TB, tree *source.Tree, to string, o transfer.ReceiveOptions) (transfer.Result, error) {
		p := newPair(t)
		service(t, p, into(to, o))
		return transfer.Push(t.Context(), always(p.Alice), tree, nil).Wait()
	},
	"fetch":        fetchOnce,
	"fetch hashed": fetchOnce,
}

func fetchOnce(t testing.TB, tree *source.Tree, to string, o transfer.ReceiveOptions) (transfer.Result, error) {
	p := newPair(t)
	share, err := service(t, p, nil).Share(tree, nil)
	require.NoError(t, err)
	defer share.Close()
	return transfer.Fetch(t.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, &o).Wait()
}

// Claim: transfer.Progress.Files, transfer.ReceiveOptions.Rules
func TestAnyTreeArrivesAsItWas(t *testing.T) {
	t.Parallel() // beside one that waits for processes
	rapid.Check(t, func(r *rapid.T) {
		base, err := os.MkdirTemp(t.TempDir(), "")
		require.NoError(r, err)
		from, to := filepath.Join(base, "tree"), filepath.Join(base, "to")
		require.NoError(r, os.Mkdir(to, 0o755))
		drawTree(r, from)
		tree, err := source.Walk(t.Context(), []string{from}, &source.Options{Rules: withLinks})
		require.NoError(r, err)
		defer func() { require.NoError(r, tree.Close()) }()
		way := rapid.SampledFrom([]string{"push", "fetch", "fetch hashed"}).Draw(r, "way")
		if way == "fetch hashed" {
			require.NoError(r, tree.Hash(t.Context(), nil))
		}
		result, err := ways[way](t, tree, to, transfer.ReceiveOptions{Rules: &withLinks, Sync: staging.SyncNone})
		require.NoError(r, err)
		same(r, from, filepath.Join(to, "tree"))
		require.Equal(r, result.Progress.Files, result.Progress.FilesDone)
		require.Equal(r, result.Progress.Bytes, result.Progress.Durable)
		left, err := os.ReadDir(to)
		require.NoError(r, err)
		require.Len(r, left, 1)
	})
}

func TestATreeThatIsThereAlreadyIsNotSentAgain(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			from, to := write(t, every), t.TempDir()
			tree := walk(t, from)
			if name == "fetch hashed" {
				require.NoError(t, tree.Hash(t.Context(), nil))
			}
			_, err := way(t, tree, to, transfer.ReceiveOptions{})
			require.NoError(t, err)
			for range 10 { // it is over before, or after, the sender is attached
				result, err := way(t, tree, to, transfer.ReceiveOptions{})
				require.NoError(t, err)
				require.Equal(t, result.Progress.Bytes, result.Progress.Durable)
				require.Equal(t, 10, result.Progress.FilesDone)
				if name != "push" { // a sender is not told how much was there
					require.Equal(t, result.Progress.Bytes, result.Progress.Resumed)
				}
			}
			same(t, from, filepath.Join(to, "tree"))
		})
	}
}

func TestFoldersAloneArrive(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			from, to := write(t, content{"a/b/c": -1, "d": -1}), t.TempDir()
			result, err := way(t, walk(t, from), to, transfer.ReceiveOptions{})
			require.NoError(t, err)
			require.Zero(t, result.Progress.Files)
			same(t, from, filepath.Join(to, "tree"))
		})
	}
}
