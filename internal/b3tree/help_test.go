package b3tree

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3/bao"
)

// boundaries are sizes around what the tree is cut at: chunks, blocks, pieces, and numbers of pieces that are powers of two or not.
func boundaries() []int {
	sizes := []int{0, 1, 2, 63, 64, 65, 100_000}
	for _, at := range []int{
		1 << 10, 2 << 10, 3 << 10, 8 << 10, 15 << 10, 16 << 10, 17 << 10, 32 << 10, 48 << 10, 128 << 10,
		1 * MinPieceSize, 2 * MinPieceSize, 3 * MinPieceSize, 4 * MinPieceSize, 5 * MinPieceSize, 7 * MinPieceSize, 8 * MinPieceSize,
	} {
		sizes = append(sizes, at-1, at, at+1)
	}
	return append(sizes, 5*MinPieceSize+12_345, 8*MinPieceSize+1025)
}

// random returns n bytes that differ from place to place, and are the same in every run.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// official returns the input of BLAKE3's published test vectors.
func official(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func shapeOf(t testing.TB, size int) Shape {
	t.Helper()
	s, err := ShapeOf(int64(size))
	require.NoError(t, err, "%d bytes", size)
	return s
}

// tiny returns a shape with pieces of 1<<log bytes, so that many pieces are few bytes.
func tiny(size, log int) Shape {
	return Shape{size: int64(size), doubled: int8(log - minPieceLog)}
}

func piece(s Shape, data []byte, index int) []byte {
	off, n := s.Span(index)
	return data[off : off+int64(n)]
}

// layerOf returns the layer of data, piece by piece.
func layerOf(t testing.TB, s Shape, data []byte) []CV {
	t.Helper()
	layer := make([]CV, s.LayerLen())
	for i := range layer {
		var err error
		layer[i], err = s.PieceCV(i, piece(s, data, i))
		require.NoError(t, err, "piece %d of %d bytes", i, len(data))
	}
	return layer
}

// baoLayer returns the root and the layer of data by another implementation: the leaves of an outboard encoding whose groups are pieces.
func baoLayer(s Shape, data []byte) (Root, []CV) {
	outboard, root := bao.EncodeBuf(data, s.log()-10, true)
	rest := outboard[8:]
	var leaves func(n int) []CV
	leaves = func(n int) []CV {
		left, right := CV(rest[:HashSize]), CV(rest[HashSize:2*HashSize])
		rest = rest[2*HashSize:]
		half := 1 << (bits.Len(uint(n-1)) - 1)
		var out []CV
		for _, side := range []struct {
			n  int
			cv CV
		}{{half, left}, {n - half, right}} {
			if side.n == 1 {
				out = append(out, side.cv)
				continue
			}
			out = append(out, leaves(side.n)...)
		}
		return out
	}
	if s.Pieces() < 2 {
		return Root(root), nil
	}
	layer := leaves(s.Pieces())
	if len(rest) > 0 {
		panic(fmt.Sprintf("%d bytes of the outboard are left", len(rest)))
	}
	return Root(root), layer
}
