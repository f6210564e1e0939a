package b3tree

import (
	"fmt"
	"slices"
)

// Hasher hashes a file of known size from its beginning to its end. It is an [io.Writer], of writes of any length; one goroutine
// at a time uses it. NewHasher makes one.
type Hasher struct {
	shape   Shape
	layer   []CV
	written int64
	room    int // how many bytes the piece that is being written still needs
	branch  branch
}

// NewHasher returns a Hasher for a file of that shape.
func NewHasher(shape Shape) *Hasher {
	h := &Hasher{}
	h.Reset(shape)
	return h
}

// Reset makes h what NewHasher returns, in the memory that it has: slices that Layer has returned are written over.
func (h *Hasher) Reset(shape Shape) {
	h.shape, h.written = shape, 0
	h.layer = slices.Grow(h.layer[:0], shape.LayerLen())
	h.begin(0)
}

// Write hashes p, of any length. It fails with ErrSize, and has taken nothing, if the file would be larger than its shape says.
func (h *Hasher) Write(p []byte) (int, error) {
	if int64(len(p)) > h.shape.Size()-h.written {
		return 0, fmt.Errorf("%w: %d bytes and more, want %d", ErrSize, h.written+int64(len(p)), h.shape.Size())
	}
	for rest := p; len(rest) > 0; {
		n := min(len(rest), h.room)
		h.branch.write(rest[:n])
		rest = rest[n:]
		h.room -= n
		if h.room == 0 && h.shape.layered() {
			h.layer = append(h.layer, cvOf(h.branch.node()))
			h.begin(len(h.layer))
		}
	}
	h.written += int64(len(p))
	return len(p), nil
}

// begin makes h ready for a piece, or for no more bytes if that is none.
func (h *Hasher) begin(index int) {
	off, n := h.shape.Span(index)
	h.branch.begin(off)
	h.room = n
}

// Layer returns the chaining values of the pieces whose last byte has been written. They are h's, until Reset, and not to be changed.
func (h *Hasher) Layer() []CV { return slices.Clip(h.layer) }

// Root returns the file's root. It fails with ErrSize if fewer bytes have been written than its shape says.
func (h *Hasher) Root() (Root, error) {
	if h.written != h.shape.Size() {
		return Root{}, fmt.Errorf("%w: %d bytes, want %d", ErrSize, h.written, h.shape.Size())
	}
	if !h.shape.layered() {
		return rootOf(h.branch.node()), nil
	}
	return h.shape.Fold(h.layer)
}
