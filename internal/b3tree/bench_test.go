package b3tree

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"lukechampine.com/blake3/guts"
)

// coldSize is more than the caches of a processor hold.
const coldSize = 512 << 20

// pieces calls f with pieces, hot or cold.
func pieces(b *testing.B, f func(index int, data []byte)) {
	for _, of := range []struct {
		name string
		size int
	}{{"hot", MinPieceSize}, {"cold", coldSize}} {
		b.Run(of.name, func(b *testing.B) {
			data := make([]byte, of.size)
			for i := 0; i < len(data); i += 512 {
				data[i] = byte(i >> 9) // every page is there
			}
			b.SetBytes(MinPieceSize)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				f(i, data[i*MinPieceSize:(i+1)*MinPieceSize])
				i = (i + 1) % (of.size / MinPieceSize)
			}
		})
	}
}

func BenchmarkPiece(b *testing.B) {
	s := shapeOf(b, coldSize)
	pieces(b, func(i int, data []byte) { _, _ = s.PieceCV(i, data) })
}

// BenchmarkNoCopy is BenchmarkPiece without the copy to a buffer: what the copy is measured against.
func BenchmarkNoCopy(b *testing.B) {
	pieces(b, func(i int, data []byte) {
		var p spine
		chunk := uint64(i) * MinPieceSize / guts.ChunkSize
		for ; len(data) > blockSize; data = data[blockSize:] {
			p.push(guts.ChainingValue(guts.CompressBuffer((*[blockSize]byte)(data), blockSize, &guts.IV, chunk, 0)))
			chunk += blockChunks
		}
		cvOf(p.node(guts.ChainingValue(guts.CompressBuffer((*[blockSize]byte)(data), blockSize, &guts.IV, chunk, 0))))
	})
}

func BenchmarkSHA256(b *testing.B) {
	pieces(b, func(_ int, data []byte) { sha256.Sum256(data) })
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
