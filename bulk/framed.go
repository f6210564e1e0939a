package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/internal/lively"
	"github.com/peerlane/peerlane/session"
)

// strand is one stream of a lane: a *session.Stream.
type strand interface {
	net.Conn
	CloseWrite() error
	CloseRead() error
	Reset(codes.Code) error
}

// laneOf returns what a strand that is a stream of a session is to a lane, or nil if it is none.
func laneOf(st strand) lane.Stream {
	if st, ok := st.(interface{ ForLane() lane.Stream }); ok {
		return st.ForLane()
	}
	return nil
}

// framed is a lane whose bytes go in numbered blocks, over one strand or several (spec 4):
//
//	Write ── blocks ── queue ──┬─> send (strand 0) ══ receive ──┬── in turn ── current ── Read
//	                           └─> send (strand 1) ══ receive ──┘
//
// A block has a number from when a strand takes it. Who receives one that is not due holds it until it is.
type framed struct {
	zstd  bool
	limit int           // strands that were agreed on
	done  chan struct{} // closed when nothing of the lane runs any more

	kept, arrived lane.Budget // of what is to be sent, and of what has come; nil: none

	mu      sync.Mutex
	changed sync.Cond // anything below
	strands []strand
	joined  uint32        // a bit for each strand's number
	coming  bool          // further strands may join
	late    *time.Timer   // ends that; nil: nobody does by time
	running int           // goroutines of the strands, and their reset
	senders int           // of them, those that send
	err     error         // why the lane has ended; nil while it has not
	dead    bool          // err is set, and what has come is not read any more either
	reset   *strandsReset // for unlock to do; nil: none
	closed  bool          // Close or Reset
	over    bool          // nothing runs, and nothing will

	queue    []*buffer // blocks that no strand has taken
	turn     bool      // a Write has its turn
	number   uint64    // of the next block that a strand takes
	sending  []uint64  // numbers of the blocks that strands have taken and not sent, in order
	ended    bool      // CloseWrite
	saidEnd  bool      // END is sent, or being sent
	endOn    strand    // that which has sent END; nil: none has
	outErr   error     // why nothing more can leave, though the lane has not ended: the peer reads no more
	dropped  int       // blocks that were written and will not leave
	writeDue deadline.Deadline

	current  *buffer  // the block that Read takes from; nil: none
	taken    uint64   // bytes that Read has returned
	next     uint64   // number of the block that is due after it
	held     []uint64 // numbers of the blocks that wait for their turn, one of a strand
	fin      bool     // END has come, and all before it
	open     int      // strands that the peer has not ended
	deaf     bool     // CloseRead, or Close
	unwanted bool     // a block has come after Close
	readDue  deadline.Deadline

	raw, wire uint64 // bytes of blocks sent: before compression, and after
}

func newFramed(zstd bool, strands int) *framed {
	f := &framed{zstd: zstd, limit: strands, coming: strands > 1, done: make(chan struct{})}
	f.changed.L = &f.mu
	return f
}

// join adds strand n, and reports whether the lane still takes it. The strand's two goroutines are counted in running.
func (f *framed) join(n int, st strand) bool {
	joined, deaf := f.add(n, st)
	if deaf {
		_ = st.CloseRead() // it is new
	}
	return joined
}

// add is join, but for what CloseRead has to do with the strand: deaf says that it has been called.
func (f *framed) add(n int, st strand) (joined, deaf bool) {
	f.mu.Lock()
	defer f.unlock()
	if f.err != nil || f.over || n >= f.limit || f.joined&(1<<n) != 0 || n > 0 && !f.coming {
		return false, false
	}
	f.joined |= 1 << n
	f.strands = append(f.strands, st)
	f.open++
	f.running += 2
	f.senders++
	go f.send(st)
	go f.receive(st)
	if len(f.strands) == f.limit {
		f.settleLocked()
	}
	return true, f.deaf
}

// settle says that no further strands join, after d.
func (f *framed) settle(d time.Duration) {
	f.mu.Lock()
	defer f.unlock()
	switch {
	case !f.coming || f.over:
	case d <= 0:
		f.settleLocked()
	default:
		f.late = time.AfterFunc(d, func() { f.settle(0) })
	}
}

func (f *framed) settleLocked() {
	f.coming = false
	f.checkLocked()
	f.endLocked()
}

// checkLocked ends the lane when what is due can come no more.
func (f *framed) checkLocked() {
	switch {
	case f.coming || f.err != nil || f.fin || f.deaf:
	case f.open == 0:
		f.failLocked(io.ErrUnexpectedEOF, codes.Protocol)
	case len(f.held) == f.open && !slices.Contains(f.held, f.next):
		f.failLocked(protocolErrorf("block %d is due, and every strand has a later one", f.next), codes.Protocol)
	}
}

// isReadLocked reports whether a lane that has failed has no block left to read: its writer may have been told that the peer has those that
// have come.
func (f *framed) isReadLocked() bool {
	f.dead = f.dead || f.err != nil && f.current == nil && len(f.held) == f.open && !slices.Contains(f.held, f.next)
	return f.dead
}

// leave ends a goroutine of a strand, or their reset.
func (f *framed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	f.endLocked()
}

// endLocked says that the lane is over, if it is.
func (f *framed) endLocked() {
	if f.over || f.running > 0 || f.coming && f.err == nil && !f.fin && !f.deaf {
		return
	}
	f.over = true
	f.writeDue.Stop()
	f.readDue.Stop()
	if f.late != nil {
		f.late.Stop()
	}
	f.dropQueue()
	close(f.done)
}

func (f *framed) dropQueue() {
	f.dropped += len(f.queue)
	for _, b := range f.queue {
		b.free()
	}
	f.queue = nil
	f.changed.Broadcast()
}

// fail ends the lane for a reason, and its strands with it.
func (f *framed) fail(err error, code codes.Code) {
	f.mu.Lock()
	defer f.unlock()
	f.failLocked(err, code)
}

// failLocked is fail for who holds mu: unlock resets the strands.
func (f *framed) failLocked(err error, code codes.Code) {
	if f.err != nil {
		return
	}
	f.err = err
	f.dead = f.closed || errors.Is(err, errProtocol)
	f.changed.Broadcast()
	if !errors.Is(err, session.ErrClosed) { // otherwise the session ends its streams in order, and flush has been called
		f.reset = &strandsReset{f.strands, code}
		f.running++ // done waits for it
	}
	f.endLocked()
}

// strandsReset is a reset of strands that is due.
type strandsReset struct {
	strands []strand
	code    codes.Code
}

// unlock gives up mu, and resets the strands if the lane has failed meanwhile: that is I/O. It is for who may have called failLocked.
func (f *framed) unlock() {
	due := f.reset
	f.reset = nil
	f.mu.Unlock()
	if due == nil {
		return
	}
	for _, st := range due.strands {
		_ = st.Reset(due.code) // the reason is what counts
	}
	f.leave()
}

// CloseWrite implements strand.
func (f *framed) CloseWrite() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	f.ended = true
	f.changed.Broadcast()
	return nil
}

// CloseRead implements strand.
func (f *framed) CloseRead() error {
	f.mu.Lock()
	var strands []strand
	if !f.deaf {
		f.deaf = true
		f.dropCurrent()
		strands = f.strands
		f.endLocked()
	}
	f.changed.Broadcast()
	f.mu.Unlock()
	for _, st := range strands {
		_ = st.CloseRead() // one that has ended may say so
	}
	return nil
}

// Close implements net.Conn: it waits until what was written has left, and the strands have closed, which wait for the peer.
func (f *framed) Close() error {
	f.mu.Lock()
	first := !f.closed
	f.closed, f.ended, f.deaf = true, true, true
	f.dropCurrent()
	f.changed.Broadcast()
	f.endLocked()
	f.mu.Unlock()
	if !first {
		return nil
	}
	f.awaitSent()
	f.awaitEnd()
	errs := f.closeStrands()
	<-f.done
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.number == 0 && f.dropped == 0:
		return nil // there was nothing to lose
	case f.err != nil:
		return f.err
	case f.outErr != nil && f.dropped > 0:
		return errors.Join(append(errs, f.outErr)...)
	}
	return errors.Join(errs...)
}

// closeStrands closes the strands, and those that join meanwhile. It returns the errors of those that have lost something.
func (f *framed) closeStrands() []error {
	var errs []error
	for {
		f.mu.Lock()
		joined := slices.Clone(f.strands[len(errs):])
		f.coming = f.coming && len(joined) > 0 // none joins any more once all are closed
		f.mu.Unlock()
		if len(joined) == 0 {
			return errs
		}
		closed := make([]error, len(joined))
		var all sync.WaitGroup
		for i, st := range joined {
			all.Go(func() { closed[i] = f.lost(st, st.Close()) }) // ends its receive as well
		}
		all.Wait()
		errs = append(errs, closed...)
	}
}

// lost returns the error of a strand's Close, unless the peer has read all but END: it needs that no more when it has closed too.
func (f *framed) lost(st strand, err error) error {
	f.mu.Lock()
	sentEnd := f.endOn == st
	f.mu.Unlock()
	if l := laneOf(st); l != nil && err != nil && sentEnd {
		if n, known := l.Unread(); known && n <= blockHead {
			return nil
		}
	}
	return err
}

// endGrace is how long Close waits for the peer's END, which may cross its own.
const endGrace = 100 * time.Millisecond

// awaitEnd waits until nothing more comes: the peer has ended its direction, goes on writing, or says nothing for endGrace.
func (f *framed) awaitEnd() {
	f.mu.Lock()
	defer f.mu.Unlock()
	over := false
	timer := time.AfterFunc(endGrace, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		over = true
		f.changed.Broadcast()
	})
	defer timer.Stop()
	for !over && !f.over && f.err == nil && !f.fin && !f.unwanted && f.open > 0 {
		f.changed.Wait()
	}
}

// flush ends the way out because the session is being closed, and waits until the strands have taken all of it, also while Close does.
// What Reset has dropped is no loss.
func (f *framed) flush(ctx context.Context) error {
	_ = f.CloseWrite() // after Close, it has ended already
	defer context.AfterFunc(ctx, func() { f.giveUpOut(fmt.Errorf("the session ends: %w", os.ErrDeadlineExceeded)) })()
	<-f.allSent() // ctx ends when there is no progress
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.number == 0 && f.dropped == 0, f.err == net.ErrClosed:
		return nil // there was nothing to lose
	case f.err != nil:
		return f.err
	case f.outErr != nil && f.dropped > 0:
		return f.outErr
	}
	return nil
}

// giveUpOut drops what has not left. What has arrived can still be read.
func (f *framed) giveUpOut(err error) {
	f.mu.Lock()
	if f.err == nil && f.outErr == nil {
		f.outErr = err
		f.dropQueue()
	}
	strands := slices.Clone(f.strands)
	f.changed.Broadcast()
	f.mu.Unlock()
	for _, st := range strands {
		_ = st.SetWriteDeadline(deadline.Past) // wakes its sender; one that has ended has none
	}
}

// awaitSent waits until the strands have sent what there is. When nothing has moved for as long as a Close of the session's streams waits,
// it ends the lane.
func (f *framed) awaitSent() {
	sent := f.allSent()
	limit := f.closeTimeout()
	p := lively.NewProgress(limit, f.moved())
	defer p.Stop()
	for {
		select {
		case <-sent:
			return
		case <-p.C:
		}
		if p.Stalled(f.moved()) {
			f.fail(fmt.Errorf("nothing has moved for %v: %w", limit, os.ErrDeadlineExceeded), codes.Cancelled)
			<-sent
			return
		}
	}
}

// allSent returns a channel that is closed when the senders have ended. Its goroutine ends with them, which the end of the lane ends.
func (f *framed) allSent() <-chan struct{} {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		f.mu.Lock()
		defer f.mu.Unlock()
		for f.senders > 0 {
			f.changed.Wait()
		}
	}()
	return sent
}

// closeTimeout returns how long Close waits without progress for what was written to leave.
func (f *framed) closeTimeout() time.Duration {
	if l := laneOf(f.first()); l != nil {
		return l.CloseTimeout()
	}
	return defaults.Close
}

// moved returns a number that changes while something leaves.
func (f *framed) moved() uint64 {
	f.mu.Lock()
	n, strands := f.wire, f.strands // which grow only
	f.mu.Unlock()
	for _, st := range strands {
		if l := laneOf(st); l != nil {
			n += l.WriteProgress()
		}
	}
	return n
}

// Reset implements strand.
func (f *framed) Reset(code codes.Code) error {
	f.mu.Lock()
	defer f.unlock()
	f.closed = true
	f.failLocked(net.ErrClosed, code)
	f.dead = true // it may have failed before
	f.dropCurrent()
	f.changed.Broadcast()
	return nil
}

// LocalAddr implements net.Conn.
func (f *framed) LocalAddr() net.Addr { return f.first().LocalAddr() }

// RemoteAddr implements net.Conn.
func (f *framed) RemoteAddr() net.Addr { return f.first().RemoteAddr() }

func (f *framed) first() strand {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.strands[0]
}

// SetDeadline implements net.Conn.
func (f *framed) SetDeadline(t time.Time) error {
	if err := f.SetReadDeadline(t); err != nil {
		return err
	}
	return f.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (f *framed) SetReadDeadline(t time.Time) error { return f.setDeadline(&f.readDue, t) }

// SetWriteDeadline implements net.Conn.
func (f *framed) SetWriteDeadline(t time.Time) error { return f.setDeadline(&f.writeDue, t) }

func (f *framed) setDeadline(d *deadline.Deadline, t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	d.Set(&f.mu, t, f.changed.Broadcast)
	return nil
}
