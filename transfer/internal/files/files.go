// Package files is what a sender reads of the files of a tree: source.Tree has the files of a disk.
package files

import (
	"context"
	"io"

	"github.com/peerlane/peerlane/internal/b3tree"
)

// A Reader reads the files of a tree by the ids of their entries. Goroutines may use it concurrently. Its errors are *fault.Errors, with
// CodeSourceChanged for a file that is not as it was found.
type Reader interface {
	// Open opens a file.
	Open(id uint32) (File, error)
	// ReadFile appends all bytes of a file of at most 16 MiB to buf, and returns the result; with an error, it returns buf unchanged. It fails
	// like Open and the methods of File.
	ReadFile(id uint32, buf []byte) ([]byte, error)
	// Layer returns the layer and the root of a file. A file of at most one piece has no layer. Layer may have to read all of the file.
	Layer(ctx context.Context, id uint32) ([]b3tree.CV, b3tree.Root, error)
}

// A File is an open file of a tree. Goroutines may use it concurrently.
type File interface {
	io.ReaderAt
	io.Closer
	// Check returns nil if the file is as it was found, so that all data read belongs to one file.
	Check() error
	// Hole returns the end of the hole at off or, with hole false, of the data. A hole contains only zeros and need not be read.
	Hole(off int64) (end int64, hole bool)
}
