//go:build unix

package staging

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// benchDisk returns a destination in memory, where the system has one.
func benchDisk(b *testing.B) FS {
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		dir = ""
	}
	dest, err := os.MkdirTemp(dir, "staging")
	require.NoError(b, err)
	disk, err := OpenRoot(dest)
	require.NoError(b, err)
	b.Cleanup(func() {
		require.NoError(b, disk.Close())
		require.NoError(b, os.RemoveAll(dest))
	})
	return disk
}

// manySmall returns n files of 4 KiB, a thousand in each folder.
func manySmall(n int) []manifest.Entry {
	var entries []manifest.Entry
	for i := range n {
		entries = append(entries, file(uint32(i+1), fmt.Sprintf("d%03d/s/f%06d", i/1000, i), 4096))
	}
	return entries
}

// BenchmarkSmallFiles makes, writes and publishes 10000 files of 4 KiB, from one goroutine, or from several with a batch each.
func BenchmarkSmallFiles(b *testing.B) {
	const n = 10_000
	entries := manySmall(n)
	for _, run := range []struct{ lanes, batch int }{{1, 1}, {1, 250}, {1, 1000}, {4, 250}} {
		b.Run(fmt.Sprintf("lanes=%d/batch=%d", run.lanes, run.batch), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				b.StopTimer()
				disk := benchDisk(b)
				b.StartTimer()
				s, err := Create(disk, testID, entries, nil)
				require.NoError(b, err)
				share := n / run.lanes
				inParallel(run.lanes, func(lane int) {
					for at := lane * share; at < (lane+1)*share; at += run.batch {
						writeAndPublish(b, s, entries[at:at+run.batch])
					}
				})
				require.NoError(b, s.Finish())
			}
			b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func writeAndPublish(b *testing.B, s *Staging, entries []manifest.Entry) {
	data := make([]byte, 4096)
	ids := make([]uint32, 0, len(entries))
	for i := range entries {
		if err := s.WriteFile(entries[i].ID, data); err != nil {
			b.Error(err)
		}
		ids = append(ids, entries[i].ID)
	}
	for _, failed := range s.Publish(ids) {
		b.Error(failed.Err)
	}
}

// BenchmarkWriteAt writes pieces of one file and syncs at each 64 MiB, from one goroutine or from as many as there are processors.
func BenchmarkWriteAt(b *testing.B) {
	const size, pieces = 256 << 10, 1024
	data := make([]byte, size)
	for _, lanes := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprintf("lanes=%d", lanes), func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			s, err := Create(benchDisk(b), testID, []manifest.Entry{file(1, "f", size*pieces)}, nil)
			require.NoError(b, err)
			for done := 0; done < b.N; done += pieces {
				require.NoError(b, s.Reset(1))
				inParallel(lanes, func(lane int) {
					for i := lane; i < min(pieces, b.N-done); i += lanes {
						if err := s.WriteAt(1, data, int64(i)*size); err != nil {
							b.Error(err)
							return
						}
						if lane == 0 && s.Dirty() >= 64<<20 {
							if err := s.Sync(); err != nil {
								b.Error(err)
								return
							}
						}
					}
				})
			}
			require.NoError(b, s.Abort())
		})
	}
}

// BenchmarkExisting asks for 100000 files, of which none is there.
func BenchmarkExisting(b *testing.B) {
	entries := manySmall(100_000)
	for range b.N {
		b.StopTimer()
		s, err := Create(benchDisk(b), testID, entries, nil)
		require.NoError(b, err)
		b.StartTimer()
		for i := range entries {
			if same, err := s.Existing(entries[i].ID); same || err != nil {
				b.Fatal(same, err)
			}
		}
		b.StopTimer()
		require.NoError(b, s.Abort())
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "files/s")
}

// BenchmarkOpenOfALargeFile goes on with a file of 100 GB of which each second piece of 256 KiB is had.
func BenchmarkOpenOfALargeFile(b *testing.B) {
	disk := benchDisk(b)
	makeAlternating(b, disk)
	for b.Loop() {
		s, err := Open(disk, testID, nil)
		require.NoError(b, err)
		require.NoError(b, s.Close())
	}
}

const (
	largeSize  = 100 << 30
	largePiece = 256 << 10
)

// makeAlternating leaves a transfer whose journal has each second piece of a large file, the last first.
func makeAlternating(t testing.TB, disk FS) {
	s, err := Create(disk, testID, []manifest.Entry{file(1, "large", largeSize)}, nil)
	require.NoError(t, err)
	require.NoError(t, s.WriteAt(1, []byte("x"), largeSize-1))
	require.NoError(t, s.SetLayer(1, 0, make([]byte, cvSize*largeSize/(1<<20))))
	require.NoError(t, s.Sync())
	var records []record
	for at := int64(largeSize) - 2*largePiece; at >= 0; at -= 512 * largePiece {
		var have ranges
		for i := max(0, at-510*largePiece); i <= at; i += 2 * largePiece {
			have = append(have, Range{i, i + largePiece})
		}
		records = append(records, record{kind: recordRanges, id: 1, have: have})
	}
	require.NoError(t, s.appendJournal(records))
	require.NoError(t, s.Close())
}

func TestALargeFileIsGoneOnWithAtOnce(t *testing.T) {
	disk, _ := realDisk(t)
	makeAlternating(t, disk)
	start := time.Now()
	s, err := Open(disk, testID, nil)
	took := time.Since(start)
	require.NoError(t, err)
	require.Less(t, took, 10*300*time.Millisecond, "also on a busy machine with the race detector; 20 ms alone")
	require.Len(t, s.Have(1), largeSize/largePiece/2+1)
	require.NoError(t, s.WriteAt(1, make([]byte, largePiece), largePiece))
	require.NoError(t, s.Abort())
}

func TestAnEntryTakesLittleMemory(t *testing.T) {
	entries := manySmall(100_000)
	disk, _ := realDisk(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := create(t, disk, nil, entries...)
	for i := range entries {
		require.NoError(t, s.SetRoot(entries[i].ID, [32]byte{1}))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(entries)
	runtime.KeepAlive(s)
	each := int64(after.HeapAlloc-before.HeapAlloc) / int64(len(entries))
	t.Logf("%d bytes for each entry, with the %d that it has itself", each, unsafe.Sizeof(manifest.Entry{}))
	require.Less(t, each, int64(250+unsafe.Sizeof(manifest.Entry{})))
}
