package transfer_test

import (
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/internal/staging"
)

var resumeSize = flag.Int64("resume.size", 8<<30, "bytes of the sparse file of BenchmarkResume")

// BenchmarkResume measures the time from Fetch to the first piece that was missing, of a sparse file of which half is here, in
// alternating stretches of 64 MiB. The transfer is stopped then: the rest is no resumption.
func BenchmarkResume(b *testing.B) {
	root := filepath.Join(fast(b), "tree")
	require.NoError(b, os.Mkdir(root, 0o755))
	sparse(b, filepath.Join(root, "disk.img"), *resumeSize)
	tree := walk(b, root)
	p := newPair(b)
	v := service(b, p, nil)
	share, err := v.Share(tree, nil)
	require.NoError(b, err)
	to := fast(b)
	stage(b, to, share.Ref(), tree.Entries()[1].Size, func(disk staging.FS) *staging.Staging {
		s, err := staging.Create(disk, share.Ref().ID(), tree.Entries(), nil)
		require.NoError(b, err)
		return s
	})
	for b.Loop() {
		t := transfer.Fetch(b.Context(), []transfer.Dialer{always(p.Alice)}, share.Ref(), to, nil)
		for at := range t.Watch(b.Context(), time.Millisecond) {
			if at.Resumed > 0 && at.Verified > at.Resumed {
				break
			}
		}
		b.StopTimer()
		t.Cancel()
		_, err := t.Wait()
		require.Equal(b, transfer.CodeCanceled, transfer.CodeOf(err), "%v", err)
		b.StartTimer()
	}
}

// sparse makes a file of holes, with a few bytes at its beginning and its end.
func sparse(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(size))
	for _, off := range []int64{0, size - 4096} {
		_, err := f.WriteAt([]byte("not a hole"), off)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
}

// stage leaves what a run that was killed leaves of a file of holes: every second 64 MiB.
func stage(t testing.TB, dir string, ref transfer.Ref, size int64, create func(staging.FS) *staging.Staging) {
	t.Helper()
	disk, err := staging.OpenRoot(dir)
	require.NoError(t, err)
	s := create(disk)
	shape, err := b3tree.ShapeOf(size)
	require.NoError(t, err)
	stretch := 64 << 20 / shape.PieceSize()
	var hashing sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		hashing.Go(func() {
			for i := w; i < shape.Pieces(); i += runtime.GOMAXPROCS(0) {
				if i/stretch%2 == 0 {
					continue
				}
				cv, err := shape.ZeroCV(i)
				require.NoError(t, err)
				require.NoError(t, s.SetLayer(1, i, cv[:]))
				off, n := shape.Span(i)
				require.NoError(t, s.WriteZeros(1, off, int64(n)))
			}
		})
	}
	hashing.Wait()
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
	require.NoError(t, disk.Close())
}
