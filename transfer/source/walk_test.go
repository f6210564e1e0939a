package source

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

func TestATreeIsWalkedInTheOrderOfTheManifest(t *testing.T) {
	root := write(t, map[string]string{
		"docs/a/b":            "1",
		"docs/a b":            "22",
		"docs/a-b/c":          "333",
		"docs/a.b":            "",
		"docs/empty/":         "",
		"docs/空 folder/naïve": "4444",
		"single":              "55555",
	})
	tree := walk(t, nil, filepath.Join(root, "single"), filepath.Join(root, "docs")+"/")
	require.Equal(t, []string{
		"docs/", "docs/a/", "docs/a/b", "docs/a b", "docs/a-b/", "docs/a-b/c", "docs/a.b", "docs/empty/", "docs/空 folder/", "docs/空 folder/naïve", "single",
	}, pathsOf(tree))
	require.Equal(t, "2 items", tree.Name())
	require.EqualValues(t, 15, tree.Bytes())
	require.Equal(t, 6, tree.Files())
	for path, content := range map[string]string{"docs/a/b": "1", "docs/a.b": "", "docs/空 folder/naïve": "4444", "single": "55555"} {
		require.Equal(t, content, read(t, tree, path))
	}
	e := tree.Entries()[idOf(t, tree, "docs/a b")]
	require.Equal(t, manifest.Entry{ID: 3, Kind: manifest.KindFile, Perm: e.Perm, Size: 2, ModTime: past.UnixNano(), Path: "docs/a b"}, e)
}

// Claim: source.Options.Rules
func TestTheWalkKeepsToTheLimits(t *testing.T) {
	root := write(t, map[string]string{"d/a": "12345", "d/b": "67890", "d/s/": ""})
	for _, test := range []struct {
		rules manifest.Rules
		path  string
	}{
		{manifest.Rules{Entries: 3}, "d/s"}, {manifest.Rules{Bytes: 9}, "d/b"}, {manifest.Rules{ManifestBytes: 80}, "d/b"},
	} {
		_, err := Walk(context.Background(), []string{filepath.Join(root, "d")}, &Options{Rules: test.rules})
		requireCode(t, fault.CodeTooLarge, test.path, err)
	}
	walk(t, &Options{Rules: manifest.Rules{Entries: 4, Bytes: 10}}, filepath.Join(root, "d"))
}

func TestAFolderThatIsTooDeepIsLeftOutAndTold(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "d"+strings.Repeat("/d", 299))
	require.NoError(t, os.MkdirAll(path, 0o755))
	left := 0
	tree := walk(t, &Options{OnLeftOut: func(path string, err error) {
		requireCode(t, fault.CodeTooLarge, path, err)
		left++
	}}, filepath.Join(root, "d"))
	require.Equal(t, 1, left)
	require.Len(t, tree.Entries(), manifest.MaxDepth)
	rewrite(t, filepath.Join(root, "d"+strings.Repeat("/d", 253)+"/f"), "deep")
	tree = walk(t, &Options{OnLeftOut: func(string, error) {}}, filepath.Join(root, "d"))
	require.Equal(t, "deep", read(t, tree, "d"+strings.Repeat("/d", 253)+"/f"))
}

// Claim: source.Options.OnFound
func TestTheWalkStopsWithItsContext(t *testing.T) {
	root := t.TempDir()
	for i := range 3 {
		names(t, filepath.Join(root, "d", strconv.Itoa(i)), 1000)
	}
	ctx, cancel := context.WithCancel(context.Background())
	found := 0
	_, err := Walk(ctx, []string{root}, &Options{OnFound: func(entries int, _ int64) {
		found = entries
		cancel()
	}})
	require.Equal(t, context.Canceled, err)
	require.Equal(t, tellEvery, found)
	_, err = Walk(ctx, []string{root}, nil)
	require.Equal(t, context.Canceled, err)

	var told []int
	tree := walk(t, &Options{OnFound: func(entries int, _ int64) { told = append(told, entries) }}, root)
	require.Equal(t, []int{1000, 2000, 3000, 3005}, told)
	require.Equal(t, 3000, tree.Files())
}

// names makes a folder of n names. Up to 1000 are of one file, which takes a fraction of the time that as many files do.
func names(t *testing.T, dir string, n int) {
	require.NoError(t, os.MkdirAll(dir, 0o755))
	first := ""
	for i := range n {
		path := filepath.Join(dir, strconv.Itoa(i))
		if i%1000 == 0 {
			first = path
			require.NoError(t, os.WriteFile(first, nil, 0o644))
			continue
		}
		require.NoError(t, os.Link(first, path))
	}
}

func TestAFolderOfManyFiles(t *testing.T) {
	n := 6000
	if testing.Short() {
		n = listBatch + 1
	}
	dir := filepath.Join(t.TempDir(), "d")
	names(t, dir, n)
	require.Equal(t, n, walk(t, nil, dir).Files())
	o := &Options{Rules: manifest.Rules{Entries: n - 1}}
	_, err := Walk(context.Background(), []string{dir}, o)
	var e *fault.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, fault.CodeTooLarge, e.Code)
}
