package transfer

import (
	"cmp"
	"context"
	"errors"
	"sync"

	"golang.org/x/time/rate"

	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// How a receiver receives a file:
//
//	schedule ── WANT ──> origin ── lane ──> lane's reader ── work ──> writers: verify, stage ──> settle: sync, name ──> finish
//
// A receiver receives one tree from one or several origins. It outlives them: data that one did not deliver is requested from another.
type receiver struct {
	t     *Transfer
	o     ReceiveOptions
	disk  staging.FS // begin may replace it; constant after ready
	limit *rate.Limiter
	ctx   context.Context // ends with the receiver; its cause says why
	fail  context.CancelCauseFunc
	work  chan *delivery // received pieces
	ready chan struct{}  // closed when begin has returned nil
	ended chan struct{}  // closed when every file is in its place

	several   bool       // there may be several origins at a time
	beginning sync.Mutex // held by one begin at a time
	broken    error      // the error of the last one

	// What begin sets, constant after ready, as are entries and hashed of the schedule.
	st   *staging.Staging
	root [32]byte

	empty  []uint32      // files without bytes, for settle
	settle chan struct{} // signals that there is something to settle

	mu sync.Mutex
	schedule
	origins map[*supplier]*origin // those that are attached
	synced  chan struct{}         // closed after the next settling
	stuck   []error               // why complete files could not be named
	sum     wire.Summary          // when over: the result
}

// openRoot opens the disk below a destination. Tests use one that fails.
var openRoot = staging.OpenRoot

// maxPiece bounds the size of accepted pieces: several of them are in memory.
const maxPiece = 16 << 20

// writers is how many goroutines verify and write.
const writers = 3

func newReceiver(ctx context.Context, t *Transfer, o ReceiveOptions, disk staging.FS) *receiver {
	r := &receiver{
		t: t, o: o, disk: disk, limit: newLimiter(o.Rate), work: make(chan *delivery, 2), ready: make(chan struct{}),
		synced: make(chan struct{}), ended: make(chan struct{}), settle: make(chan struct{}, 1), schedule: newSchedule(),
		origins: make(map[*supplier]*origin),
	}
	r.ctx, r.fail = context.WithCancelCause(ctx)
	return r
}

// errOver is the cause of a receiver's ctx when it is done.
var errOver = errors.New("the transfer is over")

// run owns the receiver's goroutines. It returns nil once every file is in its place, or the reason why that is impossible. By then no
// goroutine of the receiver runs, and its state is closed. Origins come and go meanwhile.
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
	r.fail(cmp.Or(err, errOver)) // the origins receive the reason
	side.Wait()
	return r.close(err)
}

// close closes the state, and returns why the receiver has ended: err, or the error of closing. It deletes a state without data.
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

// dropWork frees the pieces that nobody writes any more. The receiver and all lanes have ended.
func (r *receiver) dropWork() {
	for len(r.work) > 0 {
		(<-r.work).free()
	}
}

// kick makes settle check whether there is something to do.
func (r *receiver) kick() {
	select {
	case r.settle <- struct{}{}:
	default:
	}
}
