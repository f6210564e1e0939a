package bulk

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/peerlane/peerlane/frame"
)

// strand is one stream of a lane: a *session.Stream.
type strand interface {
	net.Conn
	CloseWrite() error
	CloseRead() error
	Reset(frame.Code) error
}

// framed is a lane whose bytes go in numbered blocks, over one strand or several (spec 4):
//
//	Write ── blocks ── queue ──┬─> send (strand 0) ══ receive ──┬── in turn ── current ── Read
//	                           └─> send (strand 1) ══ receive ──┘
//
// A block has a number from when a strand takes it. Who receives one that is not due holds it until it is.
type framed struct {
	zstd bool
	done chan struct{} // closed when nothing of the lane runs any more
	runs sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond // anything below
	strands []strand
	err     error // why the lane has ended; nil while it has not
	closed  bool  // Close or Reset
	over    bool  // all strands have ended

	queue    []*buffer // blocks that no strand has taken
	turn     bool      // a Write has its turn
	number   uint64    // of the next block that a strand takes
	sending  int       // blocks that strands have taken and not sent
	ended    bool      // CloseWrite
	saidEnd  bool      // END is sent, or being sent
	readGone bool      // the peer reads no more
	writeDue deadline

	current *buffer // the block that Read takes from; nil: none
	next    uint64  // number of the block that is due after it
	fin     bool    // END has come, and all before it
	open    int     // strands that the peer has not ended
	deaf    bool    // CloseRead
	readDue deadline

	raw, wire uint64 // bytes of blocks sent: before compression, and after
}

func newFramed(zstd bool) *framed {
	f := &framed{zstd: zstd, done: make(chan struct{})}
	f.changed.L = &f.mu
	return f
}

// join adds a strand, and reports whether the lane still takes any.
func (f *framed) join(st strand) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.over || len(f.strands) >= maxStrands {
		return false
	}
	f.strands = append(f.strands, st)
	f.open++
	f.runs.Go(func() { f.send(st) })
	f.runs.Go(func() { f.receive(st) })
	if len(f.strands) == 1 {
		go f.finish()
	}
	return true
}

// finish says when the lane is over. It is a goroutine of its own, from the first strand on.
func (f *framed) finish() {
	f.runs.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	f.writeDue.stop()
	f.readDue.stop()
	for _, b := range f.queue {
		b.free()
	}
	f.queue = nil
	close(f.done)
}

// fail ends the lane for a reason, and its strands with it.
func (f *framed) fail(err error, code frame.Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failLocked(err, code)
}

func (f *framed) failLocked(err error, code frame.Code) {
	if f.err != nil {
		return
	}
	f.err = err
	f.changed.Broadcast()
	for _, st := range f.strands {
		_ = st.Reset(code) // the reason is what counts
	}
}

// Write implements net.Conn: it returns once all of p waits to be sent, of which there is at most a block for each strand.
func (f *framed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.turn && f.writeFailure() == nil {
		f.changed.Wait()
	}
	if err := f.writeFailure(); err != nil {
		return 0, err
	}
	f.turn = true
	defer func() {
		f.turn = false
		f.changed.Broadcast()
	}()
	n := 0
	for n < len(p) {
		for len(f.queue) >= len(f.strands) && f.writeFailure() == nil {
			f.changed.Wait()
		}
		if err := f.writeFailure(); err != nil {
			return n, err
		}
		f.mu.Unlock()
		b := newBuffer()
		b.raw = b.room[blockHead : blockHead+copy(b.room[blockHead:blockHead+maxBlock], p[n:])]
		f.mu.Lock()
		f.queue = append(f.queue, b)
		n += len(b.raw)
		f.changed.Broadcast()
	}
	return n, nil
}

func (f *framed) writeFailure() error {
	switch {
	case f.closed, f.ended:
		return net.ErrClosed
	case f.err != nil:
		return f.err
	case f.readGone:
		return errReadClosed
	case f.writeDue.expired:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// send owns the way out of one strand. It ends with the lane, or when the direction has ended; an error ends the lane.
func (f *framed) send(st strand) {
	var z packer
	for {
		b, number, end := f.takeBlock()
		switch {
		case b == nil && !end:
			return // the lane has ended
		case end && number == notMine:
			_ = st.CloseWrite() // END says it all
			return
		case end:
			var head [blockHead]byte
			block{kind: blockEnd, number: number}.put(head[:])
			if _, err := st.Write(head[:]); err != nil {
				f.strandFailed(err)
			}
			_ = st.CloseWrite() // END says it all
			return
		}
		wire := b.seal(number, f.zstd, &z)
		_, err := st.Write(wire)
		f.sent(b, len(wire), err)
		if err != nil {
			return
		}
	}
}

// notMine is the number of an END that another strand sends.
const notMine = ^uint64(0)

// takeBlock waits for a block to send, or for the end of the direction, and returns its number.
func (f *framed) takeBlock() (b *buffer, number uint64, end bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.err != nil:
			return nil, 0, false
		case len(f.queue) > 0:
			b = f.queue[0]
			f.queue = append(f.queue[:0], f.queue[1:]...)
			number = f.number
			f.number++
			f.sending++
			f.changed.Broadcast()
			return b, number, false
		case f.ended && f.saidEnd:
			return nil, notMine, true
		case f.ended && f.sending == 0:
			f.saidEnd = true
			f.changed.Broadcast()
			return nil, f.number, true
		}
		f.changed.Wait()
	}
}

// sent takes note of a block that a strand has sent, or has not.
func (f *framed) sent(b *buffer, wire int, err error) {
	raw := len(b.raw)
	b.free()
	if err != nil {
		f.strandFailed(err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sending--
	f.raw += uint64(raw)
	f.wire += uint64(wire)
	f.changed.Broadcast()
}

// strandFailed ends the lane, or the way out alone when the peer reads no more.
func (f *framed) strandFailed(err error) {
	if errors.Is(err, syscall.EPIPE) {
		f.mu.Lock()
		f.readGone = true
		f.sending--
		f.changed.Broadcast()
		f.mu.Unlock()
		return
	}
	f.fail(err, frame.CodeCancelled)
}

// receive owns the way in of one strand. It ends with the lane, or with the strand; what is no block ends the lane.
func (f *framed) receive(st strand) {
	var z unpacker
	for {
		b, k, err := readBlock(st, &z)
		switch {
		case err == io.EOF, err != nil && f.isDeaf():
			f.strandEnded()
			return
		case errors.Is(err, ErrProtocol):
			f.fail(err, frame.CodeProtocol)
			return
		case err != nil:
			f.fail(err, frame.CodeCancelled)
			return
		}
		if !f.deliver(b, k) {
			return
		}
	}
}

func (f *framed) isDeaf() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deaf
}

// deliver waits until a block is due and the one before has been read. It reports false when the lane has ended.
func (f *framed) deliver(b *buffer, k block) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && !f.deaf && k.number >= f.next && (k.number > f.next || f.current != nil) {
		f.changed.Wait()
	}
	switch {
	case f.err != nil:
		b.free()
		return false
	case f.deaf:
		b.free()
		return true
	case k.number < f.next || f.fin:
		b.free()
		f.failLocked(protocolErrorf("block %d, and %d is due", k.number, f.next), frame.CodeProtocol)
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

// strandEnded takes note that the peer has ended a strand.
func (f *framed) strandEnded() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open--; f.open == 0 && !f.fin && !f.deaf {
		f.failLocked(io.ErrUnexpectedEOF, frame.CodeProtocol)
	}
}

// Read implements net.Conn.
func (f *framed) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.closed, f.deaf:
			return 0, net.ErrClosed
		case f.readDue.expired:
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case f.current != nil && f.err == nil:
			b := f.current
			n := copy(p, b.raw)
			if b.raw = b.raw[n:]; len(b.raw) == 0 {
				f.current = nil
				b.free()
				f.changed.Broadcast()
			}
			return n, nil
		case f.fin:
			return 0, io.EOF
		case f.err != nil:
			return 0, f.err
		}
		f.changed.Wait()
	}
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
	defer f.mu.Unlock()
	if !f.deaf && !f.fin {
		for _, st := range f.strands {
			_ = st.CloseRead() // a strand that has ended says so itself
		}
	}
	f.deaf = true
	f.changed.Broadcast()
	return nil
}

// closeTimeout bounds how long what was written before Close has to leave.
const closeTimeout = 5 * time.Second

// Close implements net.Conn: what was written still leaves, within closeTimeout.
func (f *framed) Close() error {
	f.mu.Lock()
	first := !f.closed
	f.closed, f.ended = true, true
	f.changed.Broadcast()
	f.mu.Unlock()
	if !first {
		return nil
	}
	_ = f.CloseRead() // has no error
	timer := time.AfterFunc(closeTimeout, func() { f.fail(net.ErrClosed, frame.CodeCancelled) })
	go func() { // ends with the lane
		<-f.done
		timer.Stop()
		for _, st := range f.strands { // does not change any more
			_ = st.Close() // has ended
		}
	}()
	return nil
}

// Reset implements strand.
func (f *framed) Reset(code frame.Code) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.failLocked(net.ErrClosed, code)
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

func (f *framed) setDeadline(d *deadline, t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	d.set(&f.mu, t, f.changed.Broadcast)
	return nil
}
