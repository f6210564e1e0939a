package b3tree

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"lukechampine.com/blake3/guts"
)

// coldSize is more than the caches of a processor hold.
const coldSize = 512 << 20

// BenchmarkPiece takes turns between a piece's chaining value, the same without the copy to a buffer, and SHA-256, from the cache and
// from memory. It reports the median of each and how many times as fast as SHA-256 the first is, which hold on a busy machine too:
// a turn is shorter than a slice of the scheduler's.
func BenchmarkPiece(b *testing.B) {
	cold := shapeOf(b, coldSize)
	for name, size := range map[string]int{"hot": MinPieceSize, "cold": coldSize} {
		b.Run(name, func(b *testing.B) {
			data := random(size)
			contenders := []struct {
				name  string
				hash  func(index int, data []byte)
				times []time.Duration
			}{
				{name: "b3tree", hash: func(i int, data []byte) { _, _ = cold.PieceCV(i, data) }},
				{name: "nocopy", hash: noCopy},
				{name: "sha256", hash: func(_ int, data []byte) { sha256.Sum256(data) }},
			}
			at := 0
			for b.Loop() {
				for i := range contenders {
					c := &contenders[i]
					start := time.Now()
					c.hash(at, data[at*MinPieceSize:(at+1)*MinPieceSize])
					c.times = append(c.times, time.Since(start))
					at = (at + 1) % (size / MinPieceSize)
				}
			}
			for _, c := range contenders {
				b.ReportMetric(MinPieceSize*1e3/float64(median(c.times)), c.name+"-MB/s")
			}
			b.ReportMetric(float64(median(contenders[2].times))/float64(median(contenders[0].times)), "x-sha256")
		})
	}
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// noCopy is PieceCV without the copy to a buffer.
func noCopy(index int, data []byte) {
	var p spine
	chunk := uint64(index) * MinPieceSize / guts.ChunkSize
	for ; len(data) > blockSize; data = data[blockSize:] {
		p.push(guts.ChainingValue(guts.CompressBuffer((*[blockSize]byte)(data), blockSize, &guts.IV, chunk, 0)))
		chunk += blockChunks
	}
	cvOf(p.node(guts.ChainingValue(guts.CompressBuffer((*[blockSize]byte)(data), blockSize, &guts.IV, chunk, 0))))
}

func BenchmarkZeroCV(b *testing.B) {
	s := shapeOf(b, coldSize)
	b.SetBytes(MinPieceSize)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = s.ZeroCV(7)
	}
}

func BenchmarkHasher(b *testing.B) {
	s, data := shapeOf(b, 4*MinPieceSize), random(4*MinPieceSize)
	h := NewHasher(s)
	for _, size := range []int{1 << 10, 4 << 10, 32 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("write=%d", size), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				h.Reset(s)
				for off := 0; off < len(data); off += size {
					_, _ = h.Write(data[off : off+size])
				}
				_, _ = h.Root()
			}
		})
	}
}

func BenchmarkSum(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 4 << 10, 16 << 10, 64 << 10} {
		data := random(size)
		b.Run(fmt.Sprintf("b3tree/size=%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				Sum(data)
			}
		})
		b.Run(fmt.Sprintf("sha256/size=%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				sha256.Sum256(data)
			}
		})
	}
}

func BenchmarkFold(b *testing.B) {
	for _, n := range []int{4096, MaxPieces} {
		s, _ := ShapeOf(int64(n) * MinPieceSize)
		layer := make([]CV, n)
		b.Run(fmt.Sprintf("pieces=%d", n), func(b *testing.B) {
			b.SetBytes(int64(n * HashSize))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Fold(layer)
			}
		})
	}
}
