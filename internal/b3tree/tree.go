package b3tree

import "fmt"

// Tree is a file's root and a layer that folds to it: what pieces from anywhere are checked against. It does not change, and
// goroutines may use it at once.
type Tree struct {
	shape Shape
	root  Root
	layer []CV
}

// NewTree returns the tree of a file, or an error that wraps ErrLayer if the layer is not as long as LayerLen, and ErrRoot if it does
// not fold to root; of a file without bytes, root is checked as well. The tree keeps the layer, which its giver changes no more.
func NewTree(shape Shape, root Root, layer []CV) (*Tree, error) {
	t := &Tree{shape: shape, root: root, layer: layer}
	if len(layer) != shape.LayerLen() {
		return nil, fmt.Errorf("%w: %d chaining values, the file has %d", ErrLayer, len(layer), shape.LayerLen())
	}
	got := root // that of a file of one piece is checked with the piece
	switch {
	case shape.layered():
		got, _ = shape.Fold(layer) // its length has been checked
	case shape.Size() == 0:
		got = Sum(nil)
	}
	if got != root {
		return nil, fmt.Errorf("%w: %v, want %v", ErrRoot, got, root)
	}
	return t, nil
}

// Shape returns how the file is divided.
func (t *Tree) Shape() Shape { return t.shape }

// Root returns the file's root.
func (t *Tree) Root() Root { return t.root }

// Layer returns the file's layer, which is empty if it has one piece or none. It is the tree's and not to be changed.
func (t *Tree) Layer() []CV { return t.layer }

// Verify returns nil if data is the piece at index, and a [PieceError] otherwise.
func (t *Tree) Verify(index int, data []byte) error {
	var b branch
	off, err := t.shape.check(index, len(data))
	if err != nil {
		return err
	}
	b.begin(off)
	b.write(data)
	return t.compare(index, &b)
}

// VerifyZeros is Verify of a piece of zeros: a source says that there is a hole. It reads no memory of the caller's.
func (t *Tree) VerifyZeros(index int) error {
	var b branch
	_, n := t.shape.Span(index)
	off, err := t.shape.check(index, n)
	if err != nil {
		return err
	}
	b.begin(off)
	b.zeros(n)
	return t.compare(index, &b)
}

func (t *Tree) compare(index int, b *branch) error {
	if t.shape.layered() && cvOf(b.node()) == t.layer[index] || !t.shape.layered() && rootOf(b.node()) == t.root {
		return nil
	}
	return &PieceError{index, "its bytes are others"}
}
