package b3tree

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3"
	"pgregory.net/rapid"
)

func TestLayerIsACutThroughTheTreeOfBlake3(t *testing.T) {
	for _, n := range boundaries() {
		s, data := shapeOf(t, n), random(n)
		root, layer := baoLayer(s, data)
		require.Equal(t, Root(blake3.Sum256(data)), root, "%d bytes", n)
		if s.LayerLen() == 0 {
			continue
		}
		got := layerOf(t, s, data)
		require.Equal(t, layer, got, "%d bytes", n)
		folded, err := s.Fold(got)
		require.NoError(t, err, "%d bytes", n)
		require.Equal(t, root, folded, "%d bytes", n)
	}
}

// Any number of pieces of any size: the pieces are of 1 to 64 KiB, so that there are many.
func TestLayerOfManyPiecesIsThatOfBao(t *testing.T) {
	data := random(1 << 20)
	rapid.Check(t, func(t *rapid.T) {
		log := rapid.IntRange(10, 16).Draw(t, "log")
		n := rapid.IntRange(1<<log+1, len(data)).Draw(t, "bytes")
		if rapid.Bool().Draw(t, "few pieces") {
			n = rapid.IntRange(1<<log+1, min(len(data), 20<<log)).Draw(t, "bytes")
		}
		s := tiny(n, log)
		root, layer := baoLayer(s, data[:n])
		for i, want := range layer {
			got, err := s.PieceCV(i, piece(s, data, i))
			require.NoError(t, err)
			require.Equal(t, want, got, "piece %d", i)
		}
		got, err := s.Fold(layer)
		require.NoError(t, err)
		require.Equal(t, root, got)
	})
}

func TestPieceCVCoversThePlace(t *testing.T) {
	const n = 9 * MinPieceSize
	s := shapeOf(t, n)
	seen := map[CV]int{}
	data := random(MinPieceSize)
	for i := range s.Pieces() {
		cv, err := s.PieceCV(i, data)
		require.NoError(t, err)
		require.NotContains(t, seen, cv, "piece %d", i)
		seen[cv] = i
	}
	require.NotContains(t, seen, CV(Sum(data)), "a chaining value is not the hash of a file")
}

func TestPieceCVRefusesWhatIsNoPiece(t *testing.T) {
	s := shapeOf(t, 2*MinPieceSize+100)
	whole := make([]byte, MinPieceSize+1)
	for _, test := range []struct{ index, n int }{
		{-1, MinPieceSize}, {3, MinPieceSize}, {3, 0}, {math.MaxInt, 1}, {math.MinInt, 1},
		{0, 0}, {0, MinPieceSize - 1}, {0, MinPieceSize + 1}, {0, 100}, {2, 99}, {2, 101}, {2, MinPieceSize},
	} {
		_, err := s.PieceCV(test.index, whole[:test.n])
		var wrong *PieceError
		require.ErrorAs(t, err, &wrong, "%+v", test)
		require.ErrorIs(t, err, ErrPiece, "%+v", test)
		require.Equal(t, test.index, wrong.Index)
	}
	for _, n := range []int{1, MinPieceSize} {
		_, err := shapeOf(t, n).PieceCV(0, whole[:n])
		require.ErrorIs(t, err, ErrLayer, "a file of %d bytes has no layer", n)
		_, err = shapeOf(t, n).ZeroCV(0)
		require.ErrorIs(t, err, ErrLayer, "a file of %d bytes has no layer", n)
	}
}

func TestZeroCVIsPieceCVOfZeros(t *testing.T) {
	for _, n := range boundaries() {
		s := shapeOf(t, n)
		for i := range s.LayerLen() {
			_, size := s.Span(i)
			want, err := s.PieceCV(i, make([]byte, size))
			require.NoError(t, err)
			got, err := s.ZeroCV(i)
			require.NoError(t, err)
			require.Equal(t, want, got, "piece %d of %d bytes", i, n)
		}
	}
	s := shapeOf(t, 3*MinPieceSize)
	for _, index := range []int{-1, 3, math.MaxInt} {
		_, err := s.ZeroCV(index)
		require.ErrorIs(t, err, ErrPiece, "piece %d", index)
	}
}

// A file of more than 4 TiB, of which three pieces exist.
func TestPieceCVAtTheEndOfTheLargestFile(t *testing.T) {
	s, err := ShapeOf(5<<40 + 3)
	require.NoError(t, err)
	last := s.Pieces() - 1
	cv, err := s.PieceCV(last, []byte("end"))
	require.NoError(t, err)
	require.Equal(t, cvOf(scalar([]byte("end"), 5<<30)), cv)
	other, err := s.ZeroCV(last)
	require.NoError(t, err)
	require.Equal(t, cvOf(scalar(make([]byte, 3), 5<<30)), other)
	require.False(t, slices.Equal(cv[:], other[:]))
}
