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
//  3. once both sides are closed, finish releases the stream: at once where the transport tells the peer that nobody
//     reads any more, else after awaitEnd.

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// Close closes both sides. Blocked Reads and Writes return net.ErrClosed, data already written is still delivered, and
// the peer reads it and then io.EOF. A peer that writes on gets ECONNRESET. Close does not wait for the peer and may be
// called again.
//
// Over TCP and WebSocket the muxer cannot tell the peer that nobody reads any more: a goroutine then waits up to five
// seconds for the peer's end, and resets the stream if data comes or the time is up.
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
	last := c.readClosed && c.writeClosed && !c.finished
	c.finished = c.finished || last
	c.mu.Unlock()

	if write {
		c.sendFIN()
	}
	switch {
	case last:
		c.finish()
	case read && c.linger == 0:
		_ = c.stream.CloseRead()
	}
	return nil
}

// sendFIN ends the stream towards the peer, once. What the transport has to say is dropped: that the peer does not read
// any more is no failure of closing.
func (c *Conn) sendFIN() {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if c.finSent {
		return
	}
	c.finSent = true
	_ = c.stream.SetWriteDeadline(time.Time{})
	_ = c.stream.CloseWrite()
}

// finish releases the stream after both sides were closed.
func (c *Conn) finish() {
	c.sendFIN()
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	if c.linger > 0 && !ended {
		go c.awaitEnd()
		return
	}
	_ = c.stream.Close()
}

// awaitEnd owns the stream after both sides are closed. It ends when the peer ends its side, sends more, or c.linger has
// passed; the connection's end ends it too. It reports to the peer: in all but the first case by a reset.
func (c *Conn) awaitEnd() {
	c.readMu.Lock()   // the Read that was woken has left the stream, and no other enters it
	c.readMu.Unlock() //nolint:staticcheck // held on, it would keep Reads from returning net.ErrClosed
	_ = c.stream.SetReadDeadline(time.Now().Add(c.linger))
	var b [1]byte
	if n, err := c.stream.Read(b[:]); n == 0 && err == io.EOF {
		_ = c.stream.Close()
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
}
