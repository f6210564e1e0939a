package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// memory returns a folder that is in memory where there is one.
func memory(b *testing.B) string {
	b.Helper()
	root, err := os.MkdirTemp("/dev/shm", "source")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { _ = os.RemoveAll(root) })
	return root
}

// fill makes n files of size bytes, 100 in a folder.
func fill(b *testing.B, n, size int) string {
	b.Helper()
	root := filepath.Join(memory(b), "d")
	data := make([]byte, size)
	for i := range n {
		dir := filepath.Join(root, fmt.Sprintf("folder %05d", i/100))
		if i%100 == 0 {
			require.NoError(b, os.MkdirAll(dir, 0o755))
		}
		require.NoError(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("image %04d.jpg", i%100)), data, 0o644))
	}
	return root
}

func walkOnce(b *testing.B, root string) *Tree {
	tree, err := Walk(context.Background(), []string{root}, nil)
	if err != nil {
		b.Fatal(err)
	}
	return tree
}

func BenchmarkWalk(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("files=%d", n), func(b *testing.B) {
			root := fill(b, n, 0)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			tree := walkOnce(b, root)
			runtime.GC()
			runtime.ReadMemStats(&after)
			entries := float64(len(tree.Entries()))
			held := float64(after.HeapAlloc-before.HeapAlloc) / entries
			_ = tree.Close()
			b.ReportAllocs()
			for b.Loop() {
				_ = walkOnce(b, root).Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
			b.ReportMetric(held, "held-B/entry")
		})
	}
}

func BenchmarkReadFile(b *testing.B) {
	for _, goroutines := range []int{1, 2} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			tree := walkOnce(b, fill(b, 10_000, 4096))
			defer tree.Close()
			b.ReportAllocs()
			b.SetBytes(4096)
			b.SetParallelism(1)
			if goroutines == 1 {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			}
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				var buf []byte
				for i := 0; pb.Next(); i++ {
					e := &tree.Entries()[i%len(tree.Entries())]
					if e.Kind != manifest.KindFile {
						continue
					}
					var err error
					if buf, err = tree.readEntry("read", e.ID, buf[:0]); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func BenchmarkOpenCheckClose(b *testing.B) {
	tree := walkOnce(b, fill(b, 1000, 4096))
	defer tree.Close()
	b.ReportAllocs()
	for b.Loop() {
		f, err := tree.openEntry(2)
		if err == nil {
			err = f.Check()
		}
		if err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
}

func BenchmarkHash(b *testing.B) {
	for _, test := range []struct{ files, size int }{{10_000, 4096}, {100, 1 << 20}, {1, 256 << 20}} {
		root := fill(b, test.files, test.size)
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("files=%d/size=%d/workers=%d", test.files, test.size, workers), func(b *testing.B) {
				b.SetBytes(int64(test.files * test.size))
				for b.Loop() {
					tree := walkOnce(b, root)
					if err := tree.Hash(context.Background(), &HashOptions{Workers: workers}); err != nil {
						b.Fatal(err)
					}
					_ = tree.Close()
				}
			})
		}
	}
}

func BenchmarkHoles(b *testing.B) {
	path := filepath.Join(memory(b), "sparse")
	require.NoError(b, os.WriteFile(path, nil, 0o644))
	require.NoError(b, os.Truncate(path, 100<<30))
	tree := walkOnce(b, path)
	defer tree.Close()
	f, err := tree.openEntry(0)
	require.NoError(b, err)
	defer f.Close()
	for b.Loop() {
		for off := int64(0); off < f.entry.Size; {
			off, _ = f.Hole(off)
		}
	}
}
