package b3tree

import (
	"fmt"
	"slices"
)

// Fold returns the root of the file whose layer this is. It fails with ErrLayer if the layer is not as long as LayerLen, or the
// file has none.
func (s Shape) Fold(layer []CV) (Root, error) {
	if !s.layered() || len(layer) != s.LayerLen() {
		return Root{}, fmt.Errorf("%w: %d chaining values, the file has %d", ErrLayer, len(layer), s.LayerLen())
	}
	var p spine
	last := len(layer) - 1
	for i := range last {
		p.push(layer[i].words())
	}
	return rootOf(p.node(layer[last].words())), nil
}

// AppendLayer appends the bytes of a layer, or of a part of one: 32 for each chaining value, and nothing else.
func AppendLayer(b []byte, layer []CV) []byte {
	b = slices.Grow(b, len(layer)*HashSize)
	for i := range layer {
		b = append(b, layer[i][:]...)
	}
	return b
}

// ConsumeLayer appends to layer, which is what there is of the file's, the part that b is. It fails with ErrLayer, and layer is as it
// was, if b does not end where a chaining value does, or the layer would be longer than LayerLen. It keeps nothing of b.
func (s Shape) ConsumeLayer(layer []CV, b []byte) ([]CV, error) {
	n := len(b) / HashSize
	if len(b)%HashSize != 0 || n > s.LayerLen()-len(layer) {
		return layer, fmt.Errorf("%w: %d bytes after %d chaining values, the file has %d", ErrLayer, len(b), len(layer), s.LayerLen())
	}
	layer = slices.Grow(layer, n)
	for chunk := range slices.Chunk(b, HashSize) {
		layer = append(layer, CV(chunk))
	}
	return layer, nil
}
