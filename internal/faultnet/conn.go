package faultnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// A Conn is one end of a Link: a net.Conn with a buffer, like one of TCP. Its errors are *net.OpError around
// net.ErrClosed after its own Close, syscall.ECONNRESET after a cut, os.ErrDeadlineExceeded after a deadline and, in
// Write, syscall.EPIPE after the peer's Close. Where several hold, the first of these wins.
type Conn struct {
	link          *Link
	in, out       *lane
	local, remote addr

	// Guarded by link.mu.
	closed bool
	read   deadline
	write  deadline
}

var _ net.Conn = (*Conn)(nil)

// An addr is "a" or "b".
type addr string

func (addr) Network() string  { return "faultnet" }
func (a addr) String() string { return string(a) }

// Link returns the link that c is an end of.
func (c *Conn) Link() *Link { return c.link }

// Moved returns when a Read last brought bytes to this side of the Road, or a Write had waited for room and got it, on whichever link;
// the zero time without a Road.
func (c *Conn) Moved() time.Time {
	if c.link.opts.Road == nil {
		return time.Time{}
	}
	return time.Unix(0, c.link.opts.Road.moved[c.end()].Load())
}

// end returns which of the link's ends c is.
func (c *Conn) end() int {
	if c == &c.link.ends[0] {
		return 0
	}
	return 1
}

// Read returns bytes that have arrived, at least one, and waits for them. It returns exactly io.EOF when the peer has
// closed, or closed its writing side, and all before it was read.
func (c *Conn) Read(b []byte) (int, error) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	for {
		if n, done, err := c.tryReadLocked(b); done {
			return n, err
		}
		c.link.moved.Wait()
	}
}

// tryReadLocked is Read, except that done is false where Read has to wait.
func (c *Conn) tryReadLocked(b []byte) (n int, done bool, err error) {
	l := c.link
	switch {
	case c.closed:
		return 0, true, c.opError("read", net.ErrClosed)
	case c.lostLocked() && (c.in.size == 0 || l.vanished):
		return 0, true, c.opError("read", syscall.ECONNRESET)
	case c.read.passed():
		return 0, true, c.opError("read", os.ErrDeadlineExceeded)
	case len(b) == 0:
		return 0, true, nil
	case l.stalledLocked():
		return 0, false, nil
	}
	if n = c.in.pop(b); n > 0 {
		if l.opts.Road != nil {
			l.opts.Road.moved[c.end()].Store(time.Now().UnixNano())
		}
		l.moved.Broadcast()
		return n, true, nil
	}
	if c.in.size == 0 && c.in.end.seen() {
		return 0, true, io.EOF
	}
	return 0, false, nil
}

// Write returns when all of b is in the buffer, and waits for room. After an error it returns how much of b is.
func (c *Conn) Write(b []byte) (int, error) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if road := c.link.opts.Road; road != nil {
		defer road.pass(c.link, c.link.way(c.out))
	}
	waited := false
	for n := 0; ; {
		if err := c.writeErrLocked(); err != nil {
			return n, c.opError("write", err)
		}
		m := c.sendLocked(b[n:])
		if n += m; n == len(b) {
			return n, nil
		}
		if m == 0 {
			c.link.moved.Wait()
			waited = true
		} else if road := c.link.opts.Road; waited && road != nil {
			road.moved[c.end()].Store(time.Now().UnixNano())
			waited = false
		}
	}
}

// writeErrLocked returns why nothing can be written, nil if it can.
func (c *Conn) writeErrLocked() error {
	switch {
	case c.closed || c.out.end.set:
		return net.ErrClosed
	case c.lostLocked():
		return syscall.ECONNRESET
	case c.write.passed():
		return os.ErrDeadlineExceeded
	case c.out.gone.seen() && !c.link.stalledLocked():
		return syscall.EPIPE
	}
	return nil
}

// sendLocked puts into the buffer what there is room for, and returns how much that was.
func (c *Conn) sendLocked(b []byte) int {
	l := c.link
	swallow := l.vanished && l.opts.swallow
	room := l.opts.Buffer - c.out.size
	switch {
	case swallow:
		room = len(b)
	case l.opts.Road != nil && room > 0 && !l.vanished: // what is lost is not acknowledged either: it stays in the Buffer
		room = min(room, l.opts.Road.room(l, l.way(c.out)))
	}
	n := l.grantLocked(min(room, len(b)))
	if n == 0 {
		return 0
	}
	if !swallow && (l.vanished || !c.out.gone.set) {
		for sent := b[:n]; len(sent) > 0; {
			piece := sent
			if l.opts.Rate > 0 || l.opts.Road != nil {
				piece = sent[:min(len(sent), ratePiece)]
			}
			c.out.push(piece, l.arrivalLocked(c.out, len(piece)))
			sent = sent[len(piece):]
		}
	}
	l.countLocked(n)
	l.moved.Broadcast()
	return n
}

// lostLocked reports whether the conn has broken, as far as this end knows.
func (c *Conn) lostLocked() bool {
	return c.link.cut || c.in.reset.seen() && !c.link.stalledLocked()
}

// CloseWrite ends what the peer reads, after all that was written.
func (c *Conn) CloseWrite() error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.endLocked()
	return nil
}

func (c *Conn) endLocked() {
	if !c.out.end.set {
		c.out.end = mark{true, c.link.arrivalLocked(c.out, 0)}
	}
	c.link.moved.Broadcast()
}

// Close ends what the peer reads, after all that was written, and loses what was not read here. It returns nil, the
// second time too.
func (c *Conn) Close() error {
	c.link.change(func() {
		if c.closed {
			return
		}
		c.endLocked()
		c.leaveLocked()
	})
	return nil
}

// abort is Close without a good-bye: what the peer has not read is lost, and its calls fail with syscall.ECONNRESET.
func (c *Conn) abort() {
	c.link.change(func() {
		if c.closed {
			return
		}
		c.out.clear()
		c.out.reset = mark{true, c.link.arrivalLocked(c.out, 0)}
		c.leaveLocked()
	})
}

// leaveLocked ends all calls on c.
func (c *Conn) leaveLocked() {
	c.closed = true
	if !c.link.vanished { // else it is in the buffer of a peer that knows nothing of this
		c.in.clear()
	}
	c.in.gone = mark{true, c.link.arrivalLocked(c.out, 0)}
	c.read.stop()
	c.write.stop()
}

// LocalAddr returns the name of this end, which is "a" or "b".
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the name of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(t, &c.read, &c.write) }

// SetReadDeadline makes Reads, pending or future, fail from t on. The zero time means never.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.read) }

// SetWriteDeadline makes Writes, pending or future, fail from t on. The zero time means never.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.write) }

func (c *Conn) setDeadlines(t time.Time, deadlines ...*deadline) error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	for _, d := range deadlines {
		d.set(t, c.link.wake)
	}
	c.link.moved.Broadcast()
	return nil
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// A deadline wakes the waiters of its link when it passes. Its fields are guarded by Link.mu.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && arrived(d.at) }

func (d *deadline) set(t time.Time, wake func()) {
	d.stop()
	if d.at = t; !t.IsZero() && !d.passed() {
		d.timer = time.AfterFunc(time.Until(t), wake)
	}
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
