package source

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/fault"
)

func openCache(t testing.TB, dir string, most int64) *Cache {
	t.Helper()
	c, err := OpenCache(dir, most)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// namesIn returns what is in a directory.
func namesIn(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func needsChangeTimes(t testing.TB) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("there is no time of change, and so no cache")
	}
}

// someKey returns the key of the n-th of many files, and its layer.
func someKey(t testing.TB, n, pieces int) (fileKey, []b3tree.CV, b3tree.Root) {
	t.Helper()
	k := fileKey{dev: 1, ino: uint64(n), size: int64(pieces) * b3tree.MinPieceSize, mtime: 2, changeTime: math.MinInt64}
	layer := make([]b3tree.CV, pieces)
	for i := range layer {
		layer[i][0], layer[i][31] = byte(n), byte(i)
	}
	shape, err := b3tree.ShapeOf(k.size)
	require.NoError(t, err)
	root, err := shape.Fold(layer)
	require.NoError(t, err)
	return k, layer, root
}

// Claim: source.Options.Cache
func TestTheCacheSparesTheReading(t *testing.T) {
	needsChangeTimes(t)
	content := random(3*b3tree.MinPieceSize + 1)
	root := write(t, map[string]string{"d/large": content, "d/small": "small"})
	dir := filepath.Join(t.TempDir(), "made", "by us")
	c := openCache(t, dir, 0)
	later := func() time.Time { return time.Now().Add(time.Hour) }
	c.now = later
	tree := walk(t, &Options{Cache: c}, filepath.Join(root, "d"))
	require.NoError(t, tree.Hash(context.Background(), nil))
	names := namesIn(t, dir)
	require.Len(t, names, 1, "small files are not kept")

	// What is in the cache is believed: it says something else now.
	f, err := tree.openEntry(idOf(t, tree, "d/large"))
	require.NoError(t, err)
	key, ok := keyOf(f.info, later())
	require.True(t, ok)
	require.NoError(t, f.Close())
	wantLayer, want := layerOf(t, content)
	layer, got, ok := c.get(key)
	require.True(t, ok)
	require.Equal(t, want, got)
	require.Equal(t, wantLayer, layer)
	layer[0][0]++
	c.put(key, layer)
	layer2, other, err := walk(t, &Options{Cache: c}, filepath.Join(root, "d")).layer(context.Background(), idOf(t, tree, "d/large"))
	require.NoError(t, err)
	require.Equal(t, layer, layer2)
	require.NotEqual(t, want, other)

	// Another process has what this one has kept; a file that has changed since has nothing.
	again := openCache(t, dir, 0)
	_, _, ok = again.get(key)
	require.True(t, ok)
	for _, change := range []func(*fileKey){
		func(k *fileKey) { k.size++ }, func(k *fileKey) { k.mtime++ }, func(k *fileKey) { k.changeTime++ },
	} {
		k := key
		change(&k)
		again.put(key, layer)
		_, _, ok = again.get(k)
		require.False(t, ok)
		require.Empty(t, namesIn(t, dir), "what is of no use is removed")
	}
	require.Zero(t, again.bytes)
}

func TestAFileThatHasJustChangedIsNotKept(t *testing.T) {
	root := write(t, map[string]string{"large": random(2 * b3tree.MinPieceSize)})
	c := openCache(t, t.TempDir(), 0)
	tree := walk(t, &Options{Cache: c}, root)
	_, _, err := tree.layer(context.Background(), 1)
	require.NoError(t, err)
	require.Empty(t, c.files)

	fi, err := os.Stat(filepath.Join(root, "large"))
	require.NoError(t, err)
	_, ok := keyOf(fi, time.Unix(0, past.UnixNano()))
	require.False(t, ok, "it is from the future")
}

func TestADamagedFileOfTheCacheIsRemoved(t *testing.T) {
	k, layer, _ := someKey(t, 1, 5)
	good := encodeLayer(k, layer)
	require.EqualValues(t, len(good), encodedLayerSize(k.size))
	dir := t.TempDir()
	c := openCache(t, dir, 0)
	path := filepath.Join(dir, k.name())
	for name, bad := range map[string][]byte{
		"empty": {}, "short": good[:len(good)-1], "long": append(good[:len(good):len(good)], 0), "zeros": make([]byte, len(good)),
	} {
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		_, _, ok := c.get(k)
		require.False(t, ok, name)
		require.NoFileExists(t, path, name)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		_, _, ok := c.get(k)
		require.False(t, ok, "byte %d", i)
		require.NoFileExists(t, path, "byte %d", i)
	}
	require.NoError(t, os.WriteFile(path, good, 0o600))
	_, _, ok := c.get(k)
	require.True(t, ok)
}

func TestTheCacheForgetsWhatWasNotUsedForLongest(t *testing.T) {
	k, layer, _ := someKey(t, 0, 10)
	each := int64(len(encodeLayer(k, layer)))
	dir := t.TempDir()
	c := openCache(t, dir, 8*each)
	for n := range 8 {
		k, layer, _ := someKey(t, n, 10)
		c.put(k, layer)
	}
	require.Len(t, c.files, 8)
	first, _, root := someKey(t, 0, 10)
	_, got, ok := c.get(first)
	require.True(t, ok)
	require.Equal(t, root, got)
	k, layer, _ = someKey(t, 8, 10)
	c.put(k, layer)
	require.Len(t, namesIn(t, dir), 7)
	require.Equal(t, 7*each, c.bytes)
	for n, want := range []bool{true, false, false, true, true, true, true, true, true} {
		k, _, _ := someKey(t, n, 10)
		_, _, ok := c.get(k)
		require.Equal(t, want, ok, n)
	}

	smaller := openCache(t, dir, 2*each)
	require.Len(t, namesIn(t, dir), 1)
	require.Equal(t, each, smaller.bytes)
	k, layer, _ = someKey(t, 9, 100)
	smaller.put(k, layer)
	require.Len(t, namesIn(t, dir), 1, "what is larger than the cache is not kept")
}

func TestTheCacheKeepsOutOfTheWay(t *testing.T) {
	dir := t.TempDir()
	stale, fresh := filepath.Join(dir, "1-1.tmp"), filepath.Join(dir, "1-2.tmp")
	other := filepath.Join(dir, "README")
	for _, path := range []string{stale, fresh, other} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	require.NoError(t, os.Chtimes(stale, past, past))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder.layer"), 0o700))
	c := openCache(t, dir, 0)
	require.NoFileExists(t, stale)
	require.FileExists(t, fresh)
	require.FileExists(t, other)

	k, layer, _ := someKey(t, 1, 2)
	require.NoError(t, os.RemoveAll(dir))
	c.put(k, layer)
	_, _, ok := c.get(k)
	require.False(t, ok, "there is no place to keep it")

	var none *Cache
	none.put(k, layer)
	_, _, ok = none.get(k)
	require.False(t, ok)
	require.NoError(t, none.Close())

	_, err := OpenCache(dir, -1)
	require.Error(t, err)
	require.NoError(t, os.WriteFile(dir, nil, 0o600))
	_, err = OpenCache(dir, 0)
	requireCode(t, fault.CodeIO, dir, err)
}

func FuzzLayer(f *testing.F) {
	for _, pieces := range []int{2, 3, 9} {
		k, layer, _ := someKey(f, pieces, pieces)
		b := encodeLayer(k, layer)
		f.Add(b[:len(b)-crcSize])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)) // which no fuzzer would find
		k, layer, err := decodeLayer(b)
		if err != nil {
			return
		}
		require.Equal(t, b, encodeLayer(k, layer))
	})
}

func BenchmarkCacheGet(b *testing.B) {
	c := openCache(b, b.TempDir(), 0)
	for _, pieces := range []int{4, 4096, 1 << 18} {
		b.Run(fmt.Sprintf("pieces=%d", pieces), func(b *testing.B) {
			k, layer, _ := someKey(b, pieces, pieces)
			c.put(k, layer)
			for b.Loop() {
				if _, _, ok := c.get(k); !ok {
					b.Fatal("it is not there")
				}
			}
		})
	}
}
