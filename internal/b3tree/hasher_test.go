package b3tree

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3"
	"pgregory.net/rapid"
)

func TestHasherIsBlake3WithALayer(t *testing.T) {
	h := NewHasher(Shape{})
	for _, n := range boundaries() {
		s, data := shapeOf(t, n), random(n)
		h.Reset(s)
		_, err := h.Write(data)
		require.NoError(t, err, "%d bytes", n)
		root, err := h.Root()
		require.NoError(t, err, "%d bytes", n)
		require.Equal(t, Root(blake3.Sum256(data)), root, "%d bytes", n)
		again, err := h.Root()
		require.NoError(t, err)
		require.Equal(t, root, again, "Root changes nothing")
		_, layer := baoLayer(s, data)
		require.Len(t, h.Layer(), len(layer))
		for i := range layer {
			require.Equal(t, layer[i], h.Layer()[i], "piece %d of %d bytes", i, n)
		}
	}
}

func TestHasherTakesWritesOfAnyLength(t *testing.T) {
	data := random(1 << 20)
	h := NewHasher(Shape{})
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, len(data)).Draw(t, "bytes")
		s := tiny(n, rapid.SampledFrom([]int{10, 12, 14, 15, 18}).Draw(t, "log"))
		longest := rapid.SampledFrom([]int{100, 2000, 20_000, 300_000}).Draw(t, "longest")
		h.Reset(s)
		for rest := data[:n]; len(rest) > 0; {
			size := min(len(rest), rapid.IntRange(0, longest).Draw(t, "write")+len(rest)/100)
			got, err := h.Write(rest[:size])
			require.NoError(t, err)
			require.Equal(t, size, got)
			rest = rest[size:]
			if s.layered() && len(rest) > 0 {
				require.Len(t, h.Layer(), (n-len(rest))/s.PieceSize(), "a piece's value is there when its last byte is")
			}
		}
		root, err := h.Root()
		require.NoError(t, err)
		require.Equal(t, Root(blake3.Sum256(data[:n])), root)
		_, layer := baoLayer(s, data[:n])
		require.True(t, len(layer) == len(h.Layer()))
		for i := range layer {
			require.Equal(t, layer[i], h.Layer()[i], "piece %d", i)
		}
	})
}

func TestHasherRefusesFilesOfAnotherSize(t *testing.T) {
	for _, n := range []int{0, 1, 1000, MinPieceSize, MinPieceSize + 1, 2 * MinPieceSize} {
		h, data := NewHasher(shapeOf(t, n)), random(n+1)
		if n > 0 {
			_, err := h.Write(data[:n-1])
			require.NoError(t, err)
			_, err = h.Root()
			require.ErrorIs(t, err, ErrSize, "%d of %d bytes", n-1, n)
			got, err := h.Write(data[n-1:])
			require.ErrorIs(t, err, ErrSize, "%d bytes for %d", n+1, n)
			require.Zero(t, got)
			_, err = h.Write(data[n-1 : n])
			require.NoError(t, err, "what was refused has left no trace")
		}
		root, err := h.Root()
		require.NoError(t, err)
		require.Equal(t, Sum(data[:n]), root, "%d bytes", n)
		_, err = h.Write(data[:1])
		require.ErrorIs(t, err, ErrSize)
		_, err = h.Write(nil)
		require.NoError(t, err)
	}
}

func TestHasherIsAWriter(t *testing.T) {
	data := random(3*MinPieceSize + 77)
	h := NewHasher(shapeOf(t, len(data)))
	n, err := io.Copy(h, io.LimitReader(bytes.NewReader(data), int64(len(data))))
	require.NoError(t, err)
	require.Equal(t, int64(len(data)), n)
	root, err := h.Root()
	require.NoError(t, err)
	require.Equal(t, Sum(data), root)
}

func TestHasherLayerIsSafeToAppendTo(t *testing.T) {
	data := random(3 * MinPieceSize)
	h := NewHasher(shapeOf(t, len(data)))
	_, err := h.Write(data[:MinPieceSize])
	require.NoError(t, err)
	_ = append(h.Layer(), CV{1})
	_, err = h.Write(data[MinPieceSize:])
	require.NoError(t, err)
	root, err := h.Root()
	require.NoError(t, err)
	require.Equal(t, Sum(data), root)
}

func TestHashingAllocatesNothing(t *testing.T) {
	const n = 2*MinPieceSize + 5000
	s, data := shapeOf(t, n), random(n)
	h := NewHasher(s)
	tree, holes := treeOf(t, s, data), treeOf(t, s, make([]byte, n))
	wire := AppendLayer(nil, tree.Layer())
	layer := make([]CV, 0, s.LayerLen())
	for name, f := range map[string]func(){
		"Hasher": func() {
			h.Reset(s)
			for rest := data; len(rest) > 0; rest = rest[min(len(rest), 10_000):] {
				_, _ = h.Write(rest[:min(len(rest), 10_000)])
			}
			_, _ = h.Root()
		},
		"PieceCV":      func() { _, _ = s.PieceCV(1, data[MinPieceSize:2*MinPieceSize]) },
		"ZeroCV":       func() { _, _ = s.ZeroCV(2) },
		"Sum":          func() { Sum(data[:5000]) },
		"Verify":       func() { _ = tree.Verify(0, data[:MinPieceSize]) },
		"VerifyZeros":  func() { _ = holes.VerifyZeros(1) },
		"Fold":         func() { _, _ = s.Fold(tree.Layer()) },
		"AppendLayer":  func() { wire = AppendLayer(wire[:0], tree.Layer()) },
		"ConsumeLayer": func() { layer, _ = s.ConsumeLayer(layer[:0], wire) },
	} {
		require.Zero(t, testing.AllocsPerRun(5, f), name)
	}
}
