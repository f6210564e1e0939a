package transfer_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/peerlane/peerlane/transfer"
)

// extents returns where a file has data, with a hash of each.
func extents(t testing.TB, name string) (blocks int64, has []string) {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	require.NoError(t, err)
	for off := int64(0); off < info.Size(); {
		from, err := f.Seek(off, unix.SEEK_DATA)
		if err != nil {
			break // there is none behind
		}
		to, err := f.Seek(from, unix.SEEK_HOLE)
		require.NoError(t, err)
		b := make([]byte, to-from)
		_, err = f.ReadAt(b, from)
		require.NoError(t, err)
		has = append(has, fmt.Sprintf("%d-%d %x", from, to, sha256.Sum256(b)))
		off = to
	}
	return info.Sys().(*syscall.Stat_t).Blocks, has
}

func TestASparseFileStaysSparse(t *testing.T) {
	const size = 1 << 30
	from, to := write(t, content{"beside": 17}), t.TempDir()
	at := filepath.Join(from, "sparse")
	f, err := os.Create(at)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(size))
	for _, off := range []int64{0, 1 << 28, 3<<27 + 12345, size - 4096} {
		b := make([]byte, 4096)
		fill(b, uint64(off>>20))
		_, err = f.WriteAt(b, off)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	result, err := ways["push"](t, walk(t, from), to, transfer.ReceiveOptions{})
	require.NoError(t, err)
	require.Equal(t, int64(size+17), result.Progress.Durable)
	was, want := extents(t, at)
	blocks, got := extents(t, filepath.Join(to, "tree/sparse"))
	require.Len(t, want, 4)
	require.LessOrEqual(t, blocks, was+4*256<<10/512, "at most a piece for each extent")
	pieces := dataOf(t, at, want)
	require.Equal(t, pieces, dataOf(t, filepath.Join(to, "tree/sparse"), want))
	require.NotEmpty(t, got)
}

// dataOf returns what a file has where another one has its extents.
func dataOf(t testing.TB, name string, where []string) (all []string) {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	for _, w := range where {
		var from, to int64
		_, err := fmt.Sscanf(w, "%d-%d", &from, &to)
		require.NoError(t, err)
		b := make([]byte, to-from)
		_, err = f.ReadAt(b, from)
		require.NoError(t, err)
		all = append(all, string(b))
	}
	return all
}
