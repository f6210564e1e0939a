package source

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// hashing is one run over some of the files, in order: jobs are given out, a job being a small file or a piece of a large one, and the
// pieces of one file are all given out before the next file is.
type hashing struct {
	tree *Tree
	done func(id uint32, root b3tree.Root, layer []b3tree.CV) // called by many goroutines, once for each file

	mu    sync.Mutex
	next  int        // the entry that is given out next
	end   int        // and where they end
	large *largeFile // whose pieces are given out, or nil
	piece int        // the next
	open  map[*largeFile]bool
	err   error // the first

	files  atomic.Int64
	bytes  atomic.Int64
	notice chan struct{} // there is progress
}

// largeFile is a file of several pieces while it is hashed.
type largeFile struct {
	id    uint32
	entry *manifest.Entry
	shape b3tree.Shape
	left  atomic.Int64 // pieces that are not done

	once   sync.Once // opens it
	err    error
	f      *file
	key    fileKey
	keep   bool // key is one for the cache
	cached bool // layer is from the cache, and so is root
	layer  []b3tree.CV
	root   b3tree.Root
}

func newHashing(t *Tree, from, to int, done func(uint32, b3tree.Root, []b3tree.CV)) *hashing {
	return &hashing{tree: t, next: from, end: to, done: done, open: make(map[*largeFile]bool), notice: make(chan struct{}, 1)}
}

// run hashes, and returns when every goroutine has ended.
func (h *hashing) run(ctx context.Context, workers int, progress func(int, int64)) error {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			if err := h.work(ctx); err != nil {
				h.fail(err)
				cancel()
			}
		})
	}
	ended := make(chan struct{})
	go func() { // ends when the workers have, which is seen to below
		running.Wait()
		close(ended)
	}()
	for more := true; more; {
		select {
		case <-h.notice:
		case <-ended:
			more = false
		}
		if progress != nil {
			progress(int(h.files.Load()), h.bytes.Load())
		}
	}
	for large := range h.open { // those that were given up
		_ = large.f.Close() // it was only read
	}
	return h.err
}

// work does jobs until there are no more, with a buffer of its own. It returns the first error, or ctx's.
func (h *hashing) work(ctx context.Context) error {
	var buf []byte
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		id, large, piece := h.take()
		var err error
		switch {
		case large != nil:
			buf, err = h.hashPiece(large, piece, buf)
		case id < h.end:
			buf, err = h.hashSmall(uint32(id), buf)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fail notes the error that the run ends with: the first one.
func (h *hashing) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
	}
}

// take gives out the next job: a piece of a large file, or the entry of a small one, which is end when there are no more.
func (h *hashing) take() (id int, large *largeFile, piece int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.large != nil {
		return h.takePieceLocked()
	}
	for h.next < h.end {
		id := h.next
		h.next++
		e := &h.tree.found[id]
		if e.Kind != manifest.KindFile {
			continue
		}
		shape, err := b3tree.ShapeOf(e.Size)
		if err != nil || shape.LayerLen() == 0 {
			return id, nil, 0
		}
		h.large, h.piece = &largeFile{id: uint32(id), entry: e, shape: shape}, 0
		h.large.left.Store(int64(shape.Pieces()))
		return h.takePieceLocked()
	}
	return h.end, nil, 0
}

func (h *hashing) takePieceLocked() (id int, large *largeFile, piece int) {
	large, piece = h.large, h.piece
	if h.piece++; h.piece == large.shape.Pieces() {
		h.large = nil
	}
	return 0, large, piece
}

func (h *hashing) hashSmall(id uint32, buf []byte) ([]byte, error) {
	buf, err := h.tree.readEntry("hash", id, buf[:0])
	if err != nil {
		return buf, err
	}
	h.done(id, b3tree.Sum(buf), nil)
	h.files.Add(1)
	h.tell(int64(len(buf)))
	return buf, nil
}

// hashPiece hashes one piece, and opens and finishes the file if it is the first or last to be done.
func (h *hashing) hashPiece(large *largeFile, piece int, buf []byte) ([]byte, error) {
	large.once.Do(func() { large.err = h.begin(large) })
	if large.err != nil {
		return buf, large.err
	}
	off, n := large.shape.Span(piece)
	if !large.cached {
		var err error
		if buf, err = large.hash(piece, off, n, buf); err != nil {
			return buf, err
		}
	}
	if large.left.Add(-1) == 0 {
		if err := h.finish(large); err != nil {
			return buf, err
		}
	}
	h.tell(int64(n))
	return buf, nil
}

// begin opens a large file, and asks the cache for it.
func (h *hashing) begin(large *largeFile) error {
	var err error
	if large.f, err = h.tree.open("hash", large.id); err != nil {
		return err
	}
	h.mu.Lock()
	h.open[large] = true
	h.mu.Unlock()
	if cache := h.tree.cache; cache != nil {
		large.key, large.keep = keyOf(large.f.info, cache.now())
	}
	if large.keep {
		large.layer, large.root, large.cached = h.tree.cache.get(large.key)
	}
	if !large.cached {
		large.layer = make([]b3tree.CV, large.shape.LayerLen())
	}
	return nil
}

// hash reads a piece, unless it is in a hole, and puts its chaining value in its place.
func (l *largeFile) hash(piece int, off int64, n int, buf []byte) ([]byte, error) {
	var err error
	if l.entry.Flags&manifest.FlagSparse != 0 {
		if end, hole := l.f.Hole(off); hole && end >= off+int64(n) {
			l.layer[piece], err = l.shape.ZeroCV(piece)
			return buf, err
		}
	}
	buf = slices.Grow(buf[:0], n)[:n]
	if _, err = l.f.ReadAt(buf, off); err != nil {
		return buf, err
	}
	l.layer[piece], err = l.shape.PieceCV(piece, buf)
	return buf, err
}

// finish makes the root of a file all of whose pieces are done, if it is still what it was.
func (h *hashing) finish(large *largeFile) error {
	h.mu.Lock()
	delete(h.open, large)
	h.mu.Unlock()
	defer func() { _ = large.f.Close() }() // it was only read
	if err := large.f.check("hash"); err != nil {
		return err
	}
	if !large.cached {
		var err error
		if large.root, err = large.shape.Fold(large.layer); err != nil {
			return wrap("hash", large.entry.Path, err)
		}
		if fi, err := large.f.f.Stat(); large.keep && err == nil {
			if key, _ := keyOf(fi, h.tree.cache.now()); key == large.key {
				h.tree.cache.put(key, large.layer)
			}
		}
	}
	h.done(large.id, large.root, large.layer)
	h.files.Add(1)
	return nil
}

// tell notes bytes that have been hashed.
func (h *hashing) tell(bytes int64) {
	h.bytes.Add(bytes)
	select {
	case h.notice <- struct{}{}:
	default: // there is a notice that nobody has looked at
	}
}
