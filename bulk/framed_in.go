package bulk

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/lane"
)

// receive owns the way in of one strand. It ends with the lane, or with the strand; what is no block ends the lane. It is a goroutine
// of its own.
func (f *framed) receive(st strand) {
	defer f.leave()
	z := unpacker{zstd: f.zstd, from: laneOf(st), held: lane.In(f.arrived), buffer: f.awaitBuffer}
	defer z.held.End()
	if f.limit == 1 { // others read ahead: blocks that nobody reads must not fill a window that strands share (spec 4.5)
		z.pace = &follower{f: f}
	}
	for {
		b, k, err := readBlock(st, &z)
		switch {
		case err == io.EOF, err != nil && f.isDeaf():
			f.strandEnded()
			return
		case errors.Is(err, errProtocol):
			f.strandFailed(err, codes.Protocol)
			return
		case err != nil:
			f.strandFailed(err, codes.Cancelled)
			return
		}
		if !f.deliver(b, k) {
			return
		}
	}
}

// follower reads the body of a block from its strand in step with the application, which still reads the block before it. So the window of
// the strand opens, and the writer sees progress, as the application reads, and not in jumps of a block, between which a slow reader
// would look like one that has stopped.
type follower struct {
	f  *framed
	st io.Reader
	block
	got  int    // bytes of the body
	from uint64 // framed.taken when it began
}

const (
	readAhead = 64 << 10 // so many bytes before a block's start, before compression, the application is when all of it is read
	readStep  = 32 << 10 // the application has read as many more when a follower goes on
)

// follow returns the follower for one block.
func (w *follower) follow(st io.Reader, k block) io.Reader {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	w.st, w.block, w.got, w.from = st, k, 0, w.f.taken
	return w
}

// Read implements io.Reader.
func (w *follower) Read(p []byte) (int, error) {
	n, err := w.st.Read(p[:min(len(p), w.await())])
	w.got += n
	return n, err
}

// await waits until some of the body may be read, and returns how much. Once the application is close, or waits, all of it may be.
func (w *follower) await() int {
	f := w.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for w.raw > readAhead && f.current != nil && len(f.current.raw) > readAhead && f.err == nil && !f.deaf && !f.fin {
		done := f.taken - w.from
		way := done + uint64(len(f.current.raw)) - readAhead
		if n := int(uint64(w.length)*min(done+readStep, way)/way) - w.got; n > 0 {
			return n
		}
		f.changed.Wait()
	}
	return w.length - w.got
}

func (f *framed) isDeaf() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deaf
}

// deliver waits until a block is due and the one before has been read. It reports false when the lane has ended.
func (f *framed) deliver(b *buffer, k block) bool {
	f.mu.Lock()
	defer f.unlock()
	f.awaitTurn(k.number)
	switch {
	case f.dead:
		b.free()
		return false
	case f.deaf:
		b.free()
		if k.kind == blockEnd {
			f.fin = true
		} else if f.closed {
			f.unwanted = true
		}
		f.changed.Broadcast()
		return true
	case k.number < f.next || f.fin:
		b.free()
		f.failLocked(protocolErrorf("block %d, and %s is due", k.number, f.due()), codes.Protocol)
		return false
	case k.kind == blockEnd:
		f.fin = true
	default:
		f.current = b
		f.next++
	}
	f.changed.Broadcast()
	return true
}

// awaitTurn waits while a block may not be read yet.
func (f *framed) awaitTurn(number uint64) {
	waits := func() bool {
		return !f.isReadLocked() && !f.deaf && !f.fin && number >= f.next && (number > f.next || f.current != nil)
	}
	if !waits() {
		return
	}
	f.held = append(f.held, number)
	f.checkLocked()
	if f.isReadLocked() {
		f.changed.Broadcast()
	}
	for waits() {
		f.changed.Wait()
	}
	i := slices.Index(f.held, number)
	f.held = slices.Delete(f.held, i, i+1)
}

func (f *framed) due() string {
	if f.fin {
		return "none"
	}
	return strconv.FormatUint(f.next, 10)
}

// strandEnded takes note that the peer has ended a strand.
func (f *framed) strandEnded() {
	f.mu.Lock()
	defer f.unlock()
	f.open--
	f.checkLocked()
	if f.isReadLocked() {
		f.changed.Broadcast()
	}
}

// strandFailed is strandEnded for one that ended otherwise than in order.
func (f *framed) strandFailed(err error, code codes.Code) {
	f.mu.Lock()
	defer f.unlock()
	f.failLocked(err, code)
	f.open--
	f.changed.Broadcast()
}

// Read implements net.Conn.
func (f *framed) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.closed, f.deaf:
			return 0, net.ErrClosed
		case f.readDue.Expired():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case f.current != nil && !f.dead:
			b := f.current
			n := copy(p, b.raw)
			before := f.taken / readStep
			f.taken += uint64(n)
			if f.taken/readStep != before {
				f.changed.Broadcast() // a follower may wait
			}
			if b.raw = b.raw[n:]; len(b.raw) == 0 {
				f.current = nil
				b.free()
				f.changed.Broadcast()
			}
			return n, nil
		case f.fin:
			return 0, io.EOF
		case f.isReadLocked():
			return 0, f.err
		}
		f.changed.Wait()
	}
}
