package b3tree

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestShapeDoublesPiecesUntilTheyAreFewEnough(t *testing.T) {
	const gib, tib = 1 << 30, 1 << 40
	for _, test := range []struct {
		size     int64
		piece    int
		pieces   int
		layerLen int
	}{
		{0, MinPieceSize, 0, 0},
		{1, MinPieceSize, 1, 0},
		{MinPieceSize, MinPieceSize, 1, 0},
		{MinPieceSize + 1, MinPieceSize, 2, 2},
		{gib, MinPieceSize, 4096, 4096},
		{64*gib - 1, MinPieceSize, MaxPieces, MaxPieces},
		{64 * gib, MinPieceSize, MaxPieces, MaxPieces},
		{64*gib + 1, 512 << 10, MaxPieces/2 + 1, MaxPieces/2 + 1},
		{128 * gib, 512 << 10, MaxPieces, MaxPieces},
		{tib, 4 << 20, MaxPieces, MaxPieces},
		{MaxSize - 1, gib, MaxPieces, MaxPieces},
		{MaxSize, gib, MaxPieces, MaxPieces},
	} {
		s, err := ShapeOf(test.size)
		require.NoError(t, err, "%d bytes", test.size)
		require.Equal(t, test.size, s.Size())
		require.Equal(t, test.piece, s.PieceSize(), "%d bytes", test.size)
		require.Equal(t, test.pieces, s.Pieces(), "%d bytes", test.size)
		require.Equal(t, test.layerLen, s.LayerLen(), "%d bytes", test.size)
	}
}

func TestShapeRefusesSizesOfNoFile(t *testing.T) {
	for _, size := range []int64{-1, math.MinInt64, MaxSize + 1, math.MaxInt64} {
		_, err := ShapeOf(size)
		require.ErrorIs(t, err, ErrSize, "%d bytes", size)
	}
}

func TestShapeZeroIsThatOfNoBytes(t *testing.T) {
	require.Equal(t, Shape{}, shapeOf(t, 0))
}

func TestSpansCoverTheFileOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, MaxSize).Draw(t, "size")
		if rapid.Bool().Draw(t, "smaller") {
			size %= 10 * MinPieceSize
		}
		s, err := ShapeOf(size)
		require.NoError(t, err)
		require.LessOrEqual(t, s.Pieces(), MaxPieces)
		if s.PieceSize() > MinPieceSize {
			require.Greater(t, s.Pieces(), MaxPieces/2, "pieces are no larger than they need be")
		}
		var end int64
		for i := range min(s.Pieces(), 100) {
			off, n := s.Span(i)
			require.Equal(t, end, off)
			require.Positive(t, n)
			end += int64(n)
		}
		if s.Pieces() > 0 {
			off, n := s.Span(s.Pieces() - 1)
			require.Equal(t, size, off+int64(n))
			require.LessOrEqual(t, n, s.PieceSize())
		}
		for _, index := range []int{-1, math.MinInt, s.Pieces(), s.Pieces() + 1, math.MaxInt} {
			_, n := s.Span(index)
			require.Zero(t, n, "piece %d", index)
		}
	})
}
