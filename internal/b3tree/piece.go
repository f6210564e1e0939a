package b3tree

import "fmt"

// PieceCV returns the chaining value of a piece. It fails with a [PieceError] if the file has no such piece, or data is not as long
// as it, and with ErrLayer if the file has no layer: its root is [Sum] of its bytes. Goroutines may call it at once.
func (s Shape) PieceCV(index int, data []byte) (CV, error) {
	var b branch
	if err := s.begin(&b, index, len(data)); err != nil {
		return CV{}, err
	}
	b.write(data)
	return cvOf(b.node()), nil
}

// ZeroCV returns PieceCV of a piece of zeros, such as a hole in a file, and fails as that does. It reads no memory of the caller's.
func (s Shape) ZeroCV(index int) (CV, error) {
	var b branch
	_, n := s.Span(index)
	if err := s.begin(&b, index, n); err != nil {
		return CV{}, err
	}
	b.zeros(n)
	return cvOf(b.node()), nil
}

// begin makes b the branch of a piece whose bytes are n.
func (s Shape) begin(b *branch, index, n int) error {
	off, err := s.check(index, n)
	if err != nil {
		return err
	}
	if !s.layered() {
		return fmt.Errorf("%w: a file of one piece has none", ErrLayer)
	}
	b.begin(off)
	return nil
}

// check returns where a piece begins, or a PieceError if there is none, or it does not have n bytes.
func (s Shape) check(index, n int) (int64, error) {
	off, want := s.Span(index)
	if want == 0 {
		return 0, &PieceError{index, fmt.Sprintf("the file has %d", s.Pieces())}
	}
	if n != want {
		return 0, &PieceError{index, fmt.Sprintf("%d bytes, want %d", n, want)}
	}
	return off, nil
}
