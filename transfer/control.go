package transfer

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// stream is what control runs on: a session.Stream.
type stream interface {
	net.Conn
	CloseWrite() error
	Reset(code codes.Code) error
}

// control is one side's end of the control stream: frames are read by one goroutine, and written by another one that takes what
// any have appended, so that nobody holds a lock while it writes.
type control struct {
	st   stream
	in   *wire.Reader
	done chan struct{} // the writer has ended

	closed atomic.Bool // close has been called

	mu      sync.Mutex
	moved   sync.Cond // out, ending or err has changed
	out     []byte
	held    lane.Held // counts out, in steps
	ending  bool      // nothing more is appended: the writer ends when out has left
	err     error     // why nothing can be written any more
	stopped error     // why nobody waits for room any more
}

// Bounds of what waits to be written. Answers that may be long wait below soft; the others are bounded by what they answer, and a
// peer that does not read them for so long that hard is reached is given up.
const (
	softQueue = 256 << 10
	hardQueue = 8 << 20
)

// linger bounds how long the last frames may take to leave.
const linger = 500 * time.Millisecond

// newControl returns the control of st, and starts its writer, which ends with finish, abort or close.
func newControl(st stream) *control {
	c := &control{st: st, in: wire.NewReader(st), done: make(chan struct{})}
	c.moved.L = &c.mu
	c.held = keptBy(st)
	go c.write()
	return c
}

// write owns the direction out. It ends when ending is set and all has left, or with the stream, and reports in err.
func (c *control) write() {
	defer close(c.done)
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.held.End()
	}()
	var batch []byte
	for {
		c.mu.Lock()
		for len(c.out) == 0 && !c.ending && c.err == nil {
			c.moved.Wait()
		}
		batch, c.out = c.out, batch[:0]
		over := c.err != nil || len(batch) == 0
		c.mu.Unlock()
		if over {
			return
		}
		c.moved.Broadcast()
		if _, err := c.st.Write(batch); err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *control) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	c.moved.Broadcast()
}

var errUnread = wire.Breachf("the peer does not read what it is told")

// send appends a frame, and does not wait. Its error is why none can leave any more.
func (c *control) send(kind wire.Kind, flag bool, body func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.appendLocked(kind, flag, body)
}

// sendSlow appends a frame when there is room for it.
func (c *control) sendSlow(kind wire.Kind, flag bool, body func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > softQueue && c.err == nil && !c.ending && c.stopped == nil {
		c.moved.Wait()
	}
	if c.stopped != nil {
		return c.stopped
	}
	return c.appendLocked(kind, flag, body)
}

func (c *control) appendLocked(kind wire.Kind, flag bool, body func([]byte) []byte) error {
	if full := c.fullLocked(); full != nil && c.err == nil && !c.ending {
		c.err = full
		c.interruptLocked(full) // its reader finds out
	}
	switch {
	case c.err != nil:
		return c.err
	case c.ending:
		return net.ErrClosed
	}
	c.out = wire.AppendFrame(c.out, kind, flag, body)
	c.moved.Broadcast()
	return nil
}

// fullLocked returns why nothing more is appended for a peer that does not read, or nil.
func (c *control) fullLocked() error {
	switch {
	case len(c.out) > hardQueue:
		return errUnread
	case !c.holdLocked(len(c.out)):
		return errNoMemory
	}
	return nil
}

// read returns the next frame, valid until the next read. An end of the stream is io.ErrUnexpectedEOF: it says how it ends.
func (c *control) read() (wire.Frame, error) {
	f, err := c.in.Read()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && f.Kind == wire.KindAbort {
		w, err := wire.ConsumeWhy(f.Body)
		if err != nil {
			return f, err
		}
		return f, said(w)
	}
	return f, err
}

// readWithin is read that gives up after d.
func (c *control) readWithin(d time.Duration) (wire.Frame, error) {
	c.wait(time.Now().Add(d))
	f, err := c.read()
	c.wait(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = &Error{Code: CodeStalled, Text: "the peer does not answer", Err: err}
	}
	return f, err
}

// wait bounds how long reads wait, unless interrupt has been called.
func (c *control) wait(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped == nil {
		_ = c.st.SetReadDeadline(until) // a stream that is closed says so when it is read
	}
}

// finish has what was appended leave, for linger at most, ends the direction out, and then the stream once the peer has ended
// its own. It waits: who closes the connection while data lies there unread may take away what the peer has not read yet.
func (c *control) finish() {
	c.end()
	_ = c.st.CloseWrite() // what counts has been said, whatever becomes of this
	_ = c.st.SetReadDeadline(time.Now().Add(linger))
	for {
		if _, err := c.in.Read(); err != nil {
			break
		}
	}
	_ = c.st.Close()
}

// interrupt has reads and sendSlow return from now on. Frames can still be appended by send, as ABORT is. The first err counts.
func (c *control) interrupt(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interruptLocked(err)
}

func (c *control) interruptLocked(err error) {
	if c.stopped != nil {
		return
	}
	c.stopped = err
	c.moved.Broadcast()
	if !c.ending { // then the last words are under way, and reads are bounded anyway
		_ = c.st.SetReadDeadline(deadline.Past) // a stream that is closed needs none
	}
}

// cause returns why reads end: what interrupt said, or else err.
func (c *control) cause(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped != nil {
		return c.stopped
	}
	return err
}

// listen has gone be called when the peer says something, or its end is there, where it should wait in silence. over ends the
// listening, and returns why the peer does not wait any more, or nil.
func (c *control) listen(gone func()) (over func() error) {
	heard := make(chan error, 1)
	go func() { // ends with over
		f, err := c.read()
		if err == nil {
			err = wire.Breachf("%v where nothing is due", f.Kind)
		}
		gone()
		heard <- err
	}()
	return func() error {
		_ = c.st.SetReadDeadline(deadline.Past) // wakes the reader
		err := <-heard
		c.wait(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		return err
	}
}

// hurry bounds how long the peer may take to say its next words.
func (c *control) hurry(d time.Duration) { c.wait(time.Now().Add(d)) }

// abort tells the peer why, as far as that is possible within linger, and ends the stream.
func (c *control) abort(why wire.Why) {
	_ = c.send(wire.KindAbort, false, why.Append) // it may be gone
	c.finish()
}

// close ends the stream after a transfer that has ended with err. Only the first one does anything.
func (c *control) close(err error) {
	if c.closed.Swap(true) {
		return
	}
	var e *Error
	switch {
	case err == nil:
		c.finish()
	case errors.As(err, &e) && e.Remote:
		c.end()
		_ = c.st.Close() // the peer knows
	case CodeOf(err) == CodeLost, CodeOf(err) == "": // nobody is there, or has ended the stream itself
		c.end()
		_ = c.st.Close()
	default:
		c.abort(whyOf(err))
	}
}

// end stops the writer, when it has written what there is, or after linger.
func (c *control) end() {
	_ = c.st.SetWriteDeadline(time.Now().Add(linger)) // likewise
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	c.moved.Broadcast()
	<-c.done
}
