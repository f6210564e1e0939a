package source

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// past is the time of what write makes: long enough ago for the cache.
var past = time.Unix(1_600_000_000, 123_456_789)

// write makes files, by their content, and folders, whose names end with a slash, below a folder of the test's.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if name[len(name)-1] == '/' {
			require.NoError(t, os.MkdirAll(path, 0o755))
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		rewrite(t, path, content)
	}
	return root
}

func rewrite(t testing.TB, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	require.NoError(t, os.Chtimes(path, past, past))
}

// walk returns the tree of the paths, which is closed at the end of the test.
func walk(t testing.TB, o *Options, paths ...string) *Tree {
	t.Helper()
	tree, err := Walk(context.Background(), paths, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tree.Close()) })
	c, err := manifest.NewChecker(manifest.Rules{Symlinks: true})
	require.NoError(t, err)
	files, bytes := 0, int64(0)
	for i, e := range tree.Entries() {
		if err := c.Add(e); err != nil || int(e.ID) != i { // not by require, which takes longer than the walk
			require.Fail(t, "a wrong entry", "the %d-th is %+v: %v", i, e, err)
		}
		if e.Kind == manifest.KindFile {
			files++
			bytes += e.Size
		}
	}
	require.Equal(t, files, tree.Files())
	require.Equal(t, bytes, tree.Bytes())
	return tree
}

// pathsOf returns the paths of the entries, folders with a slash, and symlinks with an arrow and what they lead to.
func pathsOf(t *Tree) []string {
	var paths []string
	for _, e := range t.Entries() {
		switch e.Kind {
		case manifest.KindDir:
			e.Path += "/"
		case manifest.KindSymlink:
			e.Path += "->" + e.Target
		}
		paths = append(paths, e.Path)
	}
	return paths
}

// idOf returns the number of the entry with a path.
func idOf(t testing.TB, tree *Tree, path string) uint32 {
	t.Helper()
	for _, e := range tree.Entries() {
		if e.Path == path {
			return e.ID
		}
	}
	require.Fail(t, "no such entry", "%q in %q", path, pathsOf(tree))
	return 0
}

// read returns all of a file, by ReadFile and by ReadAt.
func read(t testing.TB, tree *Tree, path string) string {
	t.Helper()
	id := idOf(t, tree, path)
	whole, err := tree.readEntry("read", id, []byte("before"))
	require.NoError(t, err)
	f, err := tree.openEntry(id)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	got := make([]byte, f.entry.Size)
	n, err := f.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, len(got), n)
	require.Equal(t, "before"+string(got), string(whole))
	require.NoError(t, f.Check())
	return string(got)
}

// requireCode sees that err is an *Error with the code, of a path.
func requireCode(t testing.TB, code fault.Code, path string, err error, msg ...any) {
	t.Helper()
	var e *fault.Error
	require.ErrorAs(t, err, &e, msg...)
	require.Equal(t, code, e.Code, append([]any{err}, msg...)...)
	require.Equal(t, path, e.Path, append([]any{err}, msg...)...)
}
