package transfer

import (
	"context"
	"sync"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// hashBook stores the chaining values of sent pieces until the root of their file is requested.
type hashBook struct {
	mu    sync.Mutex
	files map[uint32]*bookPage
}

// bookPage stores the hashes of one file.
type bookPage struct {
	cvs   []b3tree.CV
	known []bool
}

// note stores the chaining value of a piece.
func (h *hashBook) note(id uint32, shape b3tree.Shape, i int, cv b3tree.CV) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.files[id]
	if p == nil {
		if h.files == nil {
			h.files = make(map[uint32]*bookPage)
		}
		p = &bookPage{make([]b3tree.CV, shape.Pieces()), make([]bool, shape.Pieces())}
		h.files[id] = p
	}
	p.cvs[i], p.known[i] = cv, true
}

// take removes and returns the hashes of a file.
func (h *hashBook) take(id uint32, shape b3tree.Shape) *bookPage {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.files[id]
	if p == nil {
		p = &bookPage{make([]b3tree.CV, shape.Pieces()), make([]bool, shape.Pieces())}
	}
	delete(h.files, id)
	return p
}

// ask is a layer or a root that the receiver has requested.
type ask struct {
	kind wire.Kind
	file uint32
}

// askQueue holds the requests that are not answered. It is safe for concurrent use.
type askQueue struct {
	mu     sync.Mutex
	moved  sync.Cond
	asks   []ask
	known  map[ask]bool
	closed bool
}

func newAskQueue() *askQueue {
	q := &askQueue{known: make(map[ask]bool)}
	q.moved.L = &q.mu
	return q
}

// add adds a request. A request that is already waiting is not added again, so that there are at most two for each file.
func (q *askQueue) add(a ask) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.known[a] {
		q.known[a] = true
		q.asks = append(q.asks, a)
		q.moved.Broadcast()
	}
}

// next waits for a request, and returns false when the queue is closed.
func (q *askQueue) next() (ask, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.asks) == 0 && !q.closed {
		q.moved.Wait()
	}
	if q.closed {
		return ask{}, false
	}
	a := q.asks[0]
	q.asks = q.asks[1:]
	delete(q.known, a)
	return a, true
}

func (q *askQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.moved.Broadcast()
}

// ask handles WANT_LAYER and WANT_ROOT.
func (s *sender) ask(f wire.Frame) error {
	file := wire.ConsumeFile(f.Body)
	if int64(file) >= int64(len(s.entries)) || s.entries[file].Kind != manifest.KindFile {
		return wire.Breachf("%v of %d", f.Kind, file)
	}
	shape, err := b3tree.ShapeOf(s.entries[file].Size)
	least := 1
	if f.Kind == wire.KindWantLayer {
		least = 2
	}
	if err != nil || shape.Pieces() < least || s.hashed != (f.Kind == wire.KindWantLayer) {
		return wire.Breachf("%v of file %d", f.Kind, file)
	}
	s.asks.add(ask{f.Kind, file})
	return nil
}

// answer answers asks. It ends when they are closed, and returns the error that ends the transfer.
func (s *sender) answer(ctx context.Context) error {
	for {
		a, ok := s.asks.next()
		if !ok {
			return nil
		}
		if s.isGone(a.file) {
			continue
		}
		var err error
		if a.kind == wire.KindWantRoot {
			err = s.sendRoot(ctx, a.file)
		} else {
			err = s.sendLayer(ctx, a.file)
		}
		if err != nil {
			return err
		}
	}
}

// sendLayer answers WANT_LAYER.
func (s *sender) sendLayer(ctx context.Context, file uint32) error {
	cvs, root, err := s.files.Layer(ctx, file)
	if err == nil && root != b3tree.Root(s.entries[file].Hash) {
		err = &Error{Code: CodeSourceChanged, Text: "its content is not what was listed"}
	}
	if ctx.Err() != nil {
		return nil // run returns the reason
	}
	if err != nil {
		return s.ourFailure(file, err)
	}
	for first := 0; first < len(cvs) && err == nil; first += wire.MaxCVs {
		part := cvs[first:min(first+wire.MaxCVs, len(cvs))]
		err = s.ctl.sendSlow(wire.KindLayer, false, func(b []byte) []byte {
			return b3tree.AppendLayer(wire.Layer{File: file, First: uint32(first)}.Append(b), part)
		})
	}
	return err
}

// sendRoot answers WANT_ROOT from the hashes of sent pieces, and from pieces that it reads now (spec 5.5).
func (s *sender) sendRoot(ctx context.Context, file uint32) error {
	shape, err := b3tree.ShapeOf(s.entries[file].Size)
	if err != nil {
		return s.ourFailure(file, err)
	}
	var root b3tree.Root
	if shape.Pieces() > 1 {
		root, err = s.rootOf(ctx, file, shape, s.book.take(file, shape))
	} else {
		root, err = s.rootOfSmall(file)
	}
	if ctx.Err() != nil {
		return nil // run returns the reason
	}
	if err != nil {
		return s.ourFailure(file, err)
	}
	return s.ctl.sendSlow(wire.KindRoot, false, wire.Root{File: file, Root: root}.Append)
}

// rootOfSmall returns the root of a file of at most one piece.
func (s *sender) rootOfSmall(file uint32) (b3tree.Root, error) {
	data, err := s.files.ReadFile(file, nil)
	return b3tree.Sum(data), err
}

// rootOf returns the root of a file of several pieces. page has some of its hashes.
func (s *sender) rootOf(ctx context.Context, file uint32, shape b3tree.Shape, page *bookPage) (b3tree.Root, error) {
	f, err := s.files.Open(file)
	if err != nil {
		return b3tree.Root{}, err
	}
	defer func() { _ = f.Close() }() // opened for reading
	buf := make([]byte, 0, shape.PieceSize())
	for i := range page.cvs {
		if page.known[i] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return b3tree.Root{}, err
		}
		off, n := shape.Span(i)
		if end, hole := f.Hole(off); hole && off+int64(n) <= end {
			page.cvs[i], err = shape.ZeroCV(i)
		} else if _, err = f.ReadAt(buf[:n], off); err == nil {
			page.cvs[i], err = shape.PieceCV(i, buf[:n])
		}
		if err != nil {
			return b3tree.Root{}, err
		}
	}
	if err := f.Check(); err != nil {
		return b3tree.Root{}, err
	}
	return shape.Fold(page.cvs)
}
