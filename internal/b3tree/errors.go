package b3tree

import (
	"errors"
	"fmt"
)

var (
	// ErrSize is wrapped by every error about a file's size: one that no file has, or bytes that are more or fewer than it.
	ErrSize = errors.New("b3tree: wrong size")

	// ErrLayer is wrapped by every error about a layer: one of the wrong length, or that does not fold to the root.
	ErrLayer = errors.New("b3tree: wrong layer")

	// ErrRoot is wrapped by the errors of [ParseRoot], and by those of a root that is not that of its file.
	ErrRoot = errors.New("b3tree: wrong root")

	// ErrPiece is matched by every [PieceError].
	ErrPiece = errors.New("b3tree: wrong piece")
)

// PieceError says that bytes are not those of a piece.
type PieceError struct {
	Index  int
	Reason string
}

func (e *PieceError) Error() string { return fmt.Sprintf("b3tree: piece %d: %s", e.Index, e.Reason) }

// Unwrap returns ErrPiece.
func (e *PieceError) Unwrap() error { return ErrPiece }
