package source

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/manifest"
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

func BenchmarkReadFile(b *testing.B) {
	root, err := os.MkdirTemp("/dev/shm", "source")
	if err != nil {
		root = b.TempDir()
	}
	defer os.RemoveAll(root)
	data := make([]byte, 4096)
	for d := range 10 {
		dir := filepath.Join(root, "d", string(rune('a'+d)))
		require.NoError(b, os.MkdirAll(dir, 0o755))
		for i := range 1000 {
			require.NoError(b, os.WriteFile(filepath.Join(dir, "file"+string(rune('a'+i/100))+string(rune('a'+i/10%10))+string(rune('a'+i%10))), data, 0o644))
		}
	}
	tree, err := Walk(context.Background(), []string{filepath.Join(root, "d")}, nil)
	require.NoError(b, err)
	defer tree.Close()
	require.Equal(b, 10_000, tree.Files())
	b.ReportAllocs()
	var buf []byte
	n := 0
	for b.Loop() {
		for _, e := range tree.Entries() {
			if e.Kind == manifest.KindFile {
				if buf, err = tree.ReadFile(e.ID, buf[:0]); err != nil {
					b.Fatal(err)
				}
				n++
			}
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "files/s")
}
