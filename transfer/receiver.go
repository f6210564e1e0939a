package transfer

import (
	"cmp"
	"context"
	"errors"
	"sync"

	"golang.org/x/time/rate"

	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/manifest"
	"github.com/peerlane/peerlane/transfer/staging"
)

// The way of a file into a receiver:
//
//	plan ── WANT ──> origin ── lane ──> lane's reader ── work ──> writers: verify, stage ──> settle: sync, name ──> finish
//
// A receiver takes one tree from one origin or several. It outlives them: what one has not brought, another one is asked for.
type receiver struct {
	t     *Transfer
	o     ReceiveOptions
	disk  staging.FS
	limit *rate.Limiter
	ctx   context.Context // ends with the receiver; its cause says why
	fail  context.CancelCauseFunc
	work  chan *delivery // pieces that have come
	ready chan struct{}  // closed when begin has returned nil
	ended chan struct{}  // closed when all is in its place

	several   bool       // there may be more than one origin at a time
	beginning sync.Mutex // one begin after the other
	broken    error      // what the last one has failed with

	// What begin sets, constant after ready.
	st      *staging.Staging
	entries []manifest.Entry
	hashed  bool
	root    [32]byte

	empty  []uint32      // files without bytes, for settle
	settle chan struct{} // there is something to settle

	mu          sync.Mutex
	files       []fileState
	active      map[uint32]*active  // files of several pieces that are fileActive
	fetched     []*active           // of those, what plan takes pieces from, in order
	cursor      uint32              // the first entry that plan has not come to
	again       []key               // what was wanted and is not any more: to be wanted first
	aside       map[uint32]struct{} // files that no attached origin has: not planned until another one is attached
	unsure      map[uint32]*unsure  // files that are fileUnsure
	unasked     []uint32            // of those, whose root no origin is asked for
	whole       []uint32            // to be named
	left        int                 // files that are neither in their place nor failed
	origins     map[*origin]struct{}
	sourcesLeft int           // that may still bring something, now or after another connection
	synced      chan struct{} // closed after the next settling
	stuck       []error       // why files that are here could not be named
	over        bool          // left is 0 and all is settled: nothing more is wanted
	sum         wire.Summary  // when over: what became of it
}

// openRoot opens the disk below a destination. Tests have one that breaks.
var openRoot = staging.OpenRoot

// maxPiece bounds the pieces that are taken: a handful of them is in memory.
const maxPiece = 16 << 20

// writers is how many goroutines verify and write.
const writers = 3

func newReceiver(ctx context.Context, t *Transfer, o ReceiveOptions, disk staging.FS) *receiver {
	r := &receiver{
		t: t, o: o, disk: disk, limit: newLimiter(o.Rate), work: make(chan *delivery, 2), ready: make(chan struct{}),
		sourcesLeft: 1, synced: make(chan struct{}), ended: make(chan struct{}), settle: make(chan struct{}, 1), active: make(map[uint32]*active), origins: make(map[*origin]struct{}),
		aside: make(map[uint32]struct{}), unsure: make(map[uint32]*unsure),
	}
	r.ctx, r.fail = context.WithCancelCause(ctx)
	return r
}

// errOver is the cause of a receiver's ctx when it is done.
var errOver = errors.New("the transfer is over")

// run owns the receiver's goroutines. It returns when all is in its place, with nil, or with why it is not going to be; then nothing
// of the receiver runs any more, and its state is closed. Origins come and go meanwhile.
func (r *receiver) run() error {
	var side sync.WaitGroup
	select {
	case <-r.ready:
	case <-r.ctx.Done():
		return r.close(context.Cause(r.ctx))
	}
	r.t.receivesFrom(r.sources)
	defer r.t.receivesFrom(nil)
	for range writers {
		side.Go(r.write)
	}
	side.Go(r.watch)
	err := r.settleAll()
	r.fail(cmp.Or(err, errOver)) // the origins are told why
	side.Wait()
	return r.close(err)
}

// close closes the state, and returns why the receiver has ended: err, or that this fails. A state in which nothing has come is deleted.
func (r *receiver) close(err error) error {
	r.beginning.Lock()
	defer r.beginning.Unlock()
	if r.st != nil {
		end := r.st.Close
		if err != nil && r.st.IsEmpty() {
			end = r.st.Abort
		}
		closed := end()
		if err == nil && closed != nil {
			err = closed
		}
	}
	return err
}

// kick has settle look whether there is something to do.
func (r *receiver) kick() {
	select {
	case r.settle <- struct{}{}:
	default:
	}
}
