package b3tree

import "fmt"

const (
	// MinPieceSize is how many bytes a piece has in a file of up to 64 GiB; the last piece of a file may have fewer.
	MinPieceSize = 1 << minPieceLog

	// MaxPieces is how many pieces a file has at most: pieces are doubled until they are no more.
	MaxPieces = 1 << 18

	// MaxSize is how many bytes a file has at most: MaxPieces pieces of 1 GiB.
	MaxSize = 1 << 48

	minPieceLog = 18
)

// Shape is how a file is divided into pieces, which follows from its size alone. The zero Shape is that of a file without bytes.
type Shape struct {
	size    int64
	doubled int8 // how often pieces have been doubled; below zero in tests alone, which have many pieces of few bytes
}

// ShapeOf returns the shape of a file of size bytes, or an error that wraps ErrSize if that is below 0 or above MaxSize.
func ShapeOf(size int64) (Shape, error) {
	if size < 0 || size > MaxSize {
		return Shape{}, fmt.Errorf("%w: %d bytes, want 0 to %d", ErrSize, size, int64(MaxSize))
	}
	s := Shape{size: size}
	for s.count() > MaxPieces {
		s.doubled++
	}
	return s, nil
}

// Size returns how many bytes the file has.
func (s Shape) Size() int64 { return s.size }

// PieceSize returns how many bytes every piece but the last has: a power of two from MinPieceSize to 1 GiB.
func (s Shape) PieceSize() int { return 1 << s.log() }

// Pieces returns how many pieces the file has: 0 if it has no bytes, and MaxPieces at most.
func (s Shape) Pieces() int { return int(s.count()) }

// LayerLen returns how many chaining values the file's layer has: one for each piece, or 0 if there is one piece or none.
func (s Shape) LayerLen() int {
	if !s.layered() {
		return 0
	}
	return s.Pieces()
}

// Span returns where in the file a piece begins and how many bytes it has. n is 0 if the file has no such piece.
func (s Shape) Span(index int) (off int64, n int) {
	if index < 0 || int64(index) >= s.count() {
		return 0, 0
	}
	off = int64(index) << s.log()
	return off, int(min(s.size-off, 1<<s.log()))
}

func (s Shape) log() int      { return minPieceLog + int(s.doubled) }
func (s Shape) count() int64  { return (s.size + 1<<s.log() - 1) >> s.log() }
func (s Shape) layered() bool { return s.count() > 1 }
