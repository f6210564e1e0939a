package b3tree

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3/guts"
	"pgregory.net/rapid"
)

// recursive returns the root of a layer as BLAKE3's paper says it, from the top.
func recursive(layer []CV) Root {
	var node func(layer []CV) guts.Node
	value := func(layer []CV) [8]uint32 {
		if len(layer) == 1 {
			return layer[0].words()
		}
		return guts.ChainingValue(node(layer))
	}
	node = func(layer []CV) guts.Node {
		half := 1
		for half*2 < len(layer) {
			half *= 2
		}
		return guts.ParentNode(value(layer[:half]), value(layer[half:]), &guts.IV, 0)
	}
	return rootOf(node(layer))
}

func treeOf(t testing.TB, s Shape, data []byte) *Tree {
	t.Helper()
	tree, err := NewTree(s, Sum(data), layerOf(t, s, data))
	require.NoError(t, err, "%d bytes", len(data))
	return tree
}

func TestTreeVerifiesEveryPieceInAnyOrder(t *testing.T) {
	for _, n := range boundaries() {
		s, data := shapeOf(t, n), random(n)
		tree := treeOf(t, s, data)
		require.Equal(t, s, tree.Shape())
		require.Equal(t, Sum(data), tree.Root())
		require.Len(t, tree.Layer(), s.LayerLen())
		for i := s.Pieces() - 1; i >= 0; i-- {
			require.NoError(t, tree.Verify(i, piece(s, data, i)), "piece %d of %d bytes", i, n)
		}
		for _, index := range []int{-1, s.Pieces(), math.MaxInt} {
			require.ErrorIs(t, tree.Verify(index, nil), ErrPiece, "piece %d of %d bytes", index, n)
			require.ErrorIs(t, tree.VerifyZeros(index), ErrPiece, "piece %d of %d bytes", index, n)
		}
	}
}

func TestTreeRefusesRootsAndLayersThatAreNotTheFiles(t *testing.T) {
	data := random(3000)
	s := tiny(3000, 10)
	layer := layerOf(t, s, data)
	_, err := NewTree(s, Sum(data[1:]), layer)
	require.ErrorIs(t, err, ErrRoot)
	_, err = NewTree(tiny(3073, 10), Sum(data), layer)
	require.ErrorIs(t, err, ErrLayer)
	_, err = NewTree(s, Sum(data), layer[:2])
	require.ErrorIs(t, err, ErrLayer)
	_, err = NewTree(s, Sum(data), nil)
	require.ErrorIs(t, err, ErrLayer)
	_, err = NewTree(shapeOf(t, 100), Sum(data[:100]), layer[:1])
	require.ErrorIs(t, err, ErrLayer, "a file of one piece has no layer")
	_, err = NewTree(Shape{}, Sum(data), nil)
	require.ErrorIs(t, err, ErrRoot, "no piece of it would ever be verified")
	_, err = NewTree(Shape{}, Sum(nil), nil)
	require.NoError(t, err)
}

func TestTreeSeesEveryFlippedBit(t *testing.T) {
	for _, test := range []struct {
		shape Shape
		step  int
	}{
		{tiny(2*1024+300, 10), 1}, // every bit
		{tiny(300, 10), 1},
		{tiny(3*blockSize+100, 15), 1009},
		{shapeOf(t, 2*MinPieceSize+5000), 40_009},
	} {
		s := test.shape
		data := random(int(s.Size()))
		tree := treeOf(t, s, data)
		for bit := 0; bit < len(data)*8; bit += test.step {
			index := bit / 8 / s.PieceSize()
			data[bit/8] ^= 1 << (bit % 8)
			err := tree.Verify(index, piece(s, data, index))
			data[bit/8] ^= 1 << (bit % 8)
			if err == nil {
				require.FailNow(t, "flipped bit not seen", "bit %d of %d bytes", bit, len(data))
			}
			var wrong *PieceError
			require.ErrorAs(t, err, &wrong)
			require.Equal(t, index, wrong.Index)
		}
	}
}

func TestTreeSeesSwappedAndEqualPieces(t *testing.T) {
	const n = 4 * MinPieceSize
	s := shapeOf(t, n)
	for name, data := range map[string][]byte{"different": random(n), "equal": bytes.Repeat(random(MinPieceSize), 4)} {
		layer := layerOf(t, s, data)
		tree := treeOf(t, s, data)
		for i := range layer {
			for j := range i {
				swapped := append([]CV(nil), layer...)
				swapped[i], swapped[j] = swapped[j], swapped[i]
				_, err := NewTree(s, tree.Root(), swapped)
				require.ErrorIs(t, err, ErrRoot, "%s: values %d and %d", name, i, j)
				if name == "different" {
					require.ErrorIs(t, tree.Verify(i, piece(s, data, j)), ErrPiece, "piece %d for %d", j, i)
				}
			}
		}
	}
}

func TestTreeVerifiesZeros(t *testing.T) {
	for _, n := range []int{1, 1000, blockSize, MinPieceSize, MinPieceSize + 1, 3*MinPieceSize + 9} {
		s := shapeOf(t, n)
		tree := treeOf(t, s, make([]byte, n))
		data := make([]byte, n)
		data[n-1] = 1
		other := treeOf(t, s, data)
		for i := range s.Pieces() {
			require.NoError(t, tree.VerifyZeros(i), "piece %d of %d bytes", i, n)
		}
		require.ErrorIs(t, other.VerifyZeros(s.Pieces()-1), ErrPiece, "%d bytes", n)
	}
}

func TestTreeTakesPiecesOfItsFileAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := rapid.IntRange(10, 15).Draw(t, "log")
		data := rapid.SliceOfN(rapid.Byte(), 1, 6000).Draw(t, "data")
		data = bytes.Repeat(data, rapid.IntRange(1, 8).Draw(t, "times"))
		s := tiny(len(data), log)
		h := NewHasher(s)
		_, err := h.Write(data)
		require.NoError(t, err)
		tree, err := NewTree(s, Sum(data), h.Layer())
		require.NoError(t, err)
		i := rapid.IntRange(0, s.Pieces()-1).Draw(t, "index")
		given := bytes.Clone(piece(s, data, rapid.IntRange(0, s.Pieces()-1).Draw(t, "given")))
		given[rapid.IntRange(0, len(given)-1).Draw(t, "at")] ^= rapid.Byte().Draw(t, "xor")
		require.Equal(t, bytes.Equal(given, piece(s, data, i)), tree.Verify(i, given) == nil)
	})
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	s := shapeOf(t, 2*MinPieceSize)
	tree := treeOf(t, s, make([]byte, 2*MinPieceSize))
	require.EqualError(t, tree.Verify(2, nil), "b3tree: piece 2: the file has 2")
	require.EqualError(t, tree.Verify(1, []byte("x")), fmt.Sprintf("b3tree: piece 1: 1 bytes, want %d", MinPieceSize))
	require.EqualError(t, tree.Verify(1, random(MinPieceSize)), "b3tree: piece 1: its bytes are others")
	_, err := s.Fold(nil)
	require.EqualError(t, err, "b3tree: wrong layer: 0 chaining values, the file has 2")
	_, err = ShapeOf(-1)
	require.EqualError(t, err, "b3tree: wrong size: -1 bytes, want 0 to 281474976710656")
}
