package transfer

import (
	"sync"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// maxItems bounds what a receiver may want at a time (spec 5.1).
const maxItems = 4 * wire.MaxWants

// Bounds of one job of a lane.
const (
	packFile  = 64 << 10  // a larger file goes alone
	packBytes = 256 << 10 // of files in one PACK
	packFiles = 256
	jobPieces = 16 // of a file, so that several lanes share a large one
)

// wantQueue is what a receiver wants and no lane has taken. It is safe for concurrent use.
type wantQueue struct {
	entries []manifest.Entry

	mu     sync.Mutex
	moved  sync.Cond   // items or closed have changed, or a lane is over
	items  []wire.Want // from head on
	head   int
	back   []job  // what lanes have taken and given back, at most one job for each
	files  uint64 // sum of the items' Files
	turn   int    // how often all was forgotten: a lane that is older may be one that is lost, and gets nothing more (spec 5.2)
	closed bool
	buf    []wire.Want
}

// job is what a lane does next: pieces of one file, or whole small ones.
type job struct {
	file          uint32
	first, pieces int
	pack          []uint32 // if not empty, these instead
}

func newWantQueue(entries []manifest.Entry) *wantQueue {
	q := &wantQueue{entries: entries}
	q.moved.L = &q.mu
	return q
}

// add takes a WANT.
func (q *wantQueue) add(f wire.Frame) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	var err error
	if q.buf, err = wire.ConsumeWants(q.buf[:0], f.Body); err != nil {
		return err
	}
	if f.Flag {
		q.items, q.head, q.files, q.back = q.items[:0], 0, 0, nil
		q.turn++
	}
	if len(q.items)-q.head+len(q.buf) > maxItems {
		return wire.Breachf("more than %d items are wanted at once", maxItems)
	}
	if q.head > 0 {
		q.items, q.head = append(q.items[:0], q.items[q.head:]...), 0
	}
	for _, w := range q.buf {
		if w, err = q.check(w); err != nil {
			return err
		}
		q.items = append(q.items, w)
		q.files += uint64(w.Files)
	}
	if q.files > 2*uint64(len(q.entries))+maxItems { // one by one they cost time, also those that bring nothing
		return wire.Breachf("%d files are wanted at once, of %d", q.files, len(q.entries))
	}
	q.moved.Broadcast()
	return nil
}

// check returns the item with its pieces counted, if there are such files and pieces.
func (q *wantQueue) check(w wire.Want) (wire.Want, error) {
	if uint64(w.File)+uint64(w.Files) > uint64(len(q.entries)) {
		return w, wire.Breachf("files %d to %d are wanted, of %d", w.File, uint64(w.File)+uint64(w.Files), len(q.entries))
	}
	if w.Files > 1 {
		return w, nil
	}
	e := &q.entries[w.File]
	shape, err := b3tree.ShapeOf(e.Size)
	pieces := uint64(shape.Pieces())
	if err != nil || e.Kind != manifest.KindFile || uint64(w.Piece)+max(1, uint64(w.Pieces)) > pieces {
		return w, wire.Breachf("%d pieces from %d are wanted, of %v %d with %d", w.Pieces, w.Piece, e.Kind, w.File, pieces)
	}
	if w.Pieces == 0 {
		w.Pieces = uint32(pieces) - w.Piece
	}
	return w, nil
}

// begin returns the turn that a lane is of which begins now.
func (q *wantQueue) begin() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.turn
}

// next returns the next job for a lane of a turn, when there is one, or false when the queue is closed, the turn is past, or over says so.
func (q *wantQueue) next(turn int, over func() bool) (job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.closed || q.turn != turn || over() {
			return job{}, false
		}
		if n := len(q.back); n > 0 {
			j := q.back[n-1]
			q.back = q.back[:n-1]
			return j, true
		}
		if q.head < len(q.items) {
			if j := q.cutLocked(); j.pieces > 0 || len(j.pack) > 0 {
				return j, true
			}
			continue // nothing but folders was wanted
		}
		q.moved.Wait()
	}
}

// giveBack makes another lane of the turn do a job, or the rest of one.
func (q *wantQueue) giveBack(turn int, j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.turn == turn { // otherwise all was forgotten meanwhile
		q.back = append(q.back, j)
		q.moved.Broadcast()
	}
}

// cutLocked takes a job off the first items.
func (q *wantQueue) cutLocked() job {
	var j job
	for bytes := int64(0); q.head < len(q.items); {
		w := &q.items[q.head]
		e := &q.entries[w.File]
		switch {
		case e.Kind != manifest.KindFile || e.Size == 0:
		case e.Size <= packFile:
			if len(j.pack) == packFiles || bytes+e.Size > packBytes {
				return j
			}
			j.pack = append(j.pack, w.File)
			bytes += e.Size
		case len(j.pack) > 0:
			return j
		default:
			return q.piecesLocked(w, e)
		}
		q.stepLocked(w)
	}
	return j
}

// stepLocked goes on to the next file of an item.
func (q *wantQueue) stepLocked(w *wire.Want) {
	q.files--
	if w.Files == 1 {
		q.head++
		return
	}
	w.File++
	w.Files--
	w.Piece, w.Pieces = 0, 0
}

// piecesLocked takes a job off an item that begins with a large file.
func (q *wantQueue) piecesLocked(w *wire.Want, e *manifest.Entry) job {
	if w.Pieces == 0 {
		shape, _ := b3tree.ShapeOf(e.Size) // the tree has checked it
		w.Pieces = uint32(shape.Pieces())
	}
	n := min(w.Pieces, jobPieces)
	if e.Flags&manifest.FlagSparse != 0 {
		n = w.Pieces // most of them are holes
	}
	j := job{file: w.File, first: int(w.Piece), pieces: int(n)}
	w.Piece += n
	if w.Pieces -= n; w.Pieces == 0 {
		q.stepLocked(w)
	}
	return j
}

// wake has those who wait look again.
func (q *wantQueue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.moved.Broadcast()
}

// close has next return false from now on.
func (q *wantQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.moved.Broadcast()
}
