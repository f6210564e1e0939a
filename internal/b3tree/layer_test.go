package b3tree

import (
	"bytes"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFoldRefusesLayersOfAnotherLength(t *testing.T) {
	s := shapeOf(t, 5*MinPieceSize)
	for _, n := range []int{0, 1, 4, 6} {
		_, err := s.Fold(make([]CV, n))
		require.ErrorIs(t, err, ErrLayer, "%d chaining values", n)
	}
	for _, size := range []int{0, 1, MinPieceSize} {
		for n := range 3 {
			_, err := shapeOf(t, size).Fold(make([]CV, n))
			require.ErrorIs(t, err, ErrLayer, "%d chaining values of %d bytes", n, size)
		}
	}
}

func TestFoldSeesEveryBitAndEveryPlace(t *testing.T) {
	s := tiny(11*1024+5, 10)
	layer := layerOf(t, s, random(11*1024+5))
	root, err := s.Fold(layer)
	require.NoError(t, err)
	for i := range layer {
		for bit := range HashSize * 8 {
			wrong := slices.Clone(layer)
			wrong[i][bit/8] ^= 1 << (bit % 8)
			got, err := s.Fold(wrong)
			require.NoError(t, err)
			require.NotEqual(t, root, got, "bit %d of value %d", bit, i)
		}
		for j := range i {
			wrong := slices.Clone(layer)
			wrong[i], wrong[j] = wrong[j], wrong[i]
			got, err := s.Fold(wrong)
			require.NoError(t, err)
			require.NotEqual(t, root, got, "values %d and %d swapped", i, j)
		}
	}
}

func TestLayerBytesAreItsValues(t *testing.T) {
	s := tiny(3000, 10)
	layer := layerOf(t, s, random(3000))
	wire := AppendLayer([]byte("head"), layer)
	require.Equal(t, slices.Concat([]byte("head"), layer[0][:], layer[1][:], layer[2][:]), wire)
	wire = wire[4:]
	for cut := range wire {
		got, err := s.ConsumeLayer(nil, wire[:cut])
		if cut%HashSize != 0 {
			require.ErrorIs(t, err, ErrLayer, "%d bytes", cut)
			require.Empty(t, got)
			continue
		}
		require.NoError(t, err, "%d bytes", cut)
		got, err = s.ConsumeLayer(got, wire[cut:])
		require.NoError(t, err, "%d bytes, then the others", cut)
		require.Equal(t, layer, got)
	}
}

func TestConsumeLayerTakesNoMoreThanTheFileHas(t *testing.T) {
	s := tiny(3000, 10)
	one := make([]byte, HashSize)
	for have, ok := range map[int]bool{0: true, 2: true, 3: false, 4: false} {
		got, err := s.ConsumeLayer(make([]CV, have), one)
		if ok {
			require.NoError(t, err, "%d before", have)
			require.Len(t, got, have+1)
			continue
		}
		require.ErrorIs(t, err, ErrLayer, "%d before", have)
		require.Len(t, got, have)
	}
	_, err := shapeOf(t, 100).ConsumeLayer(nil, one)
	require.ErrorIs(t, err, ErrLayer, "a file of one piece has no layer")
	none, err := shapeOf(t, 100).ConsumeLayer(nil, nil)
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestConsumeLayerKeepsNothingOfItsInput(t *testing.T) {
	s := tiny(2000, 10)
	wire := AppendLayer(nil, layerOf(t, s, random(2000)))
	got, err := s.ConsumeLayer(nil, wire)
	require.NoError(t, err)
	want := slices.Clone(got)
	clear(wire)
	require.Equal(t, want, got)
}

func FuzzLayer(f *testing.F) {
	for _, n := range []int{0, 1, 1025, 2048, 5000} {
		s := tiny(n, 10)
		data := random(n)
		layer := make([]CV, s.LayerLen())
		for i := range layer {
			layer[i], _ = s.PieceCV(i, piece(s, data, i))
		}
		f.Add(int64(n), AppendLayer(nil, layer), 32)
	}
	f.Add(int64(-1), []byte{}, 0)
	f.Add(int64(MaxSize), make([]byte, 64), 64)
	f.Fuzz(func(t *testing.T, size int64, wire []byte, cut int) {
		s := tiny(int(uint64(size)%(64<<10)), 10)
		if large, err := ShapeOf(size); err == nil && size > 1<<20 {
			s = large
		}
		cut = int(uint(cut) % uint(len(wire)+1)) // every layer may come in parts
		layer, err := s.ConsumeLayer(nil, wire[:cut])
		if err == nil {
			layer, err = s.ConsumeLayer(layer, wire[cut:])
		}
		require.LessOrEqual(t, len(layer), s.LayerLen())
		if err != nil {
			require.ErrorIs(t, err, ErrLayer)
			return
		}
		require.True(t, bytes.Equal(wire, AppendLayer(nil, layer)))
		root, err := s.Fold(layer)
		if err != nil {
			require.ErrorIs(t, err, ErrLayer)
			require.True(t, len(layer) != s.LayerLen() || s.LayerLen() == 0)
			return
		}
		tree, err := NewTree(s, root, layer)
		require.NoError(t, err)
		require.Equal(t, recursive(layer), tree.Root())
		layer[len(layer)-1][0]++
		_, err = NewTree(s, root, layer)
		require.ErrorIs(t, err, ErrRoot)
	})
}
