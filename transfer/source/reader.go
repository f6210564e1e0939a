package source

import (
	"context"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/files"
)

// Reader returns what package transfer reads the files with.
func (t *Tree) Reader() files.Reader { return reader{t} }

// reader implements files.Reader for a Tree.
type reader struct{ t *Tree }

func (r reader) Open(id uint32) (files.File, error) {
	f, err := r.t.openEntry(id)
	if err != nil {
		return nil, err // and no File that is a nil *file
	}
	return f, nil
}

func (r reader) ReadFile(id uint32, buf []byte) ([]byte, error) {
	return r.t.readEntry("read", id, buf)
}

func (r reader) Layer(ctx context.Context, id uint32) ([]b3tree.CV, b3tree.Root, error) {
	return r.t.layer(ctx, id)
}
