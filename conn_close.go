package peerlane

import (
	"io"
	"net"
	"time"

	"github.com/peerlane/peerlane/frame"
)

// Closing, in order:
//
//  1. flags are set and the deadlines moved to the past, which wakes every blocked Read and Write (conn.mu);
//  2. the woken writer leaves, and the FIN goes out behind its last whole byte (writeMu);
//  3. once both directions have ended, by this side or by the peer, finish releases the stream: at once if the peer has
//     ended its side, or if the transport tells it that nobody reads any more; else after awaitEnd.

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// Close closes both sides. Blocked Reads and Writes return net.ErrClosed, data already written is still delivered, and
// the peer reads it and then io.EOF. A peer that writes on gets ECONNRESET. Close does not wait for the peer and may be
// called again.
//
// A goroutine waits up to five seconds for the peer's end, and gives up the stream if data comes or the time is up. A conn
// of Dial counts as open for later Dials until then. An accepted conn over QUIC and WebTransport does not wait, nor does
// a conn whose end Read has seen.
func (c *Conn) Close() error {
	_ = c.closeSides(true, true, true) // closing what is closed is no error
	return nil
}

// CloseWrite ends the stream towards the peer: after what was written, the peer reads io.EOF. Reading goes on. A Write
// that is blocked returns net.ErrClosed. It may be called again, and fails with net.ErrClosed after Close.
func (c *Conn) CloseWrite() error {
	return c.closeSides(false, true, false)
}

// CloseRead ends reading: blocked and later Reads return net.ErrClosed, unread data is dropped. Writing goes on. Over
// QUIC, WebTransport and loopback the peer's Writes then fail with ECONNRESET; over TCP and WebSocket the peer is not
// told before the write side is closed too, and its Writes stall when the window is full. It may be called again, and
// fails with net.ErrClosed after Close.
func (c *Conn) CloseRead() error {
	return c.closeSides(true, false, false)
}

func (c *Conn) closeSides(read, write, all bool) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.opError("close", net.ErrClosed)
	}
	c.closed = all
	read, write = read && !c.readClosed, write && !c.writeClosed
	if read {
		c.readClosed = true
		_ = c.stream.SetReadDeadline(past)
	}
	if write {
		c.writeClosed = true
		_ = c.stream.SetWriteDeadline(past)
	}
	c.mu.Unlock()

	if write {
		c.sendFIN()
	}
	c.mu.Lock()
	over := c.over()
	c.mu.Unlock()
	switch {
	case over:
		c.finish()
	case read && c.stopsSending:
		_ = c.stream.CloseRead()
	}
	return nil
}

// sendFIN ends the stream towards the peer. What the transport has to say is dropped: that the peer does not read any more
// is no failure of closing.
func (c *Conn) sendFIN() {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	_ = c.stream.SetWriteDeadline(time.Time{})
	_ = c.stream.CloseWrite()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finSent = true
}

// over reports, to one caller only, that both directions have ended: that caller releases the stream. c.mu is held.
func (c *Conn) over() bool {
	in := c.readClosed || c.ended || c.broken != nil
	out := c.finSent || c.broken != nil && !c.stopsSending // a reset of yamux is one of both directions
	if c.finished || !in || !out {
		return false
	}
	c.finished = true
	return true
}

// finish releases the stream of a conn that is over.
func (c *Conn) finish() {
	c.mu.Lock()
	peerHasEnded := c.ended || c.broken != nil
	c.mu.Unlock()
	if c.linger > 0 && !peerHasEnded {
		c.slot.close()
		go c.awaitEnd()
		return
	}
	_ = c.stream.Close()
	c.slot.release()
}

// awaitEnd owns the stream after both sides are closed. It ends when the peer ends its side, sends more, or c.linger has
// passed; the connection's end ends it too. It reports to the peer: in all but the first case by a reset, or by telling it
// that nobody reads.
func (c *Conn) awaitEnd() {
	defer c.slot.release()
	c.readMu.Lock()   // the Read that was woken has left the stream, and no other enters it
	c.readMu.Unlock() //nolint:staticcheck // held on, it would keep Reads from returning net.ErrClosed
	_ = c.stream.SetReadDeadline(time.Now().Add(c.linger))
	var b [1]byte
	n, err := c.stream.Read(b[:])
	if c.stopsSending || n == 0 && err == io.EOF {
		_ = c.stream.Close() // over QUIC a reset would take back what the peer has not read yet
		return
	}
	_ = c.stream.ResetWithError(0) // what QUIC sends when a read side is closed
}

// resetWith drops the conn at once, unsent data included. The peer gets an *Error with this code and Remote set; calls
// of this side return net.ErrClosed.
func (c *Conn) resetWith(code frame.Code) {
	c.mu.Lock()
	c.closed, c.readClosed, c.writeClosed, c.finished = true, true, true, true
	_ = c.stream.SetDeadline(past)
	c.mu.Unlock()
	_ = c.stream.ResetWithError(resetCode(code))
	c.slot.release()
}

// Reset drops the conn at once, with what was written and is not delivered yet. The peer's Reads and Writes fail with
// syscall.ECONNRESET, and never with io.EOF, so that an answer that was cut does not look whole; calls of this side return
// net.ErrClosed. After Close it does nothing and fails with net.ErrClosed, so that it may be deferred.
func (c *Conn) Reset() error {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return c.opError("reset", net.ErrClosed)
	}
	c.resetWith(frame.CodeClosed)
	return nil
}
