package peerlane

import (
	"io"
	"net"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
)

// Closing, in this order:
//
//  1. flags are set and the deadlines moved to the past, which wakes every blocked Read and Write (conn.mu);
//  2. the woken writer leaves, and the FIN goes out behind its last whole byte (writeMu);
//  3. once both directions have ended, by this side or by the peer, finish releases the stream: at once if the peer has
//     ended its side, or if the transport can tell the peer to stop sending; otherwise after awaitEnd.

// Close closes both sides. Blocked Reads and Writes return net.ErrClosed. Data already written is still delivered, and the peer reads it
// and then io.EOF. A peer that keeps writing gets ECONNRESET. Close does not wait for the peer and may be called again.
//
// A goroutine waits up to five seconds for the peer's end, and gives up the stream if data arrives or the time is up. Until then a conn of
// Dial counts as open for later Dials. An accepted conn over QUIC and WebTransport does not wait, nor does a conn whose end Read has seen.
func (c *Conn) Close() error {
	_ = c.closeSides(true, true, true) // closing a closed conn is not an error
	return nil
}

// CloseWrite ends the stream towards the peer: after the written data, the peer reads io.EOF. Reading continues. A blocked Write returns
// net.ErrClosed. CloseWrite may be called again, and fails with net.ErrClosed after Close.
func (c *Conn) CloseWrite() error {
	return c.closeSides(false, true, false)
}

// CloseRead ends reading: blocked and later Reads return net.ErrClosed, and unread data is dropped. Writing continues. Over QUIC,
// WebTransport and loopback the peer's Writes then fail with ECONNRESET. Over TCP and WebSocket the peer is not notified until the write
// side is closed too, and its Writes stall when the window is full. CloseRead may be called again, and fails with net.ErrClosed after
// Close.
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
		_ = c.stream.SetReadDeadline(deadline.Past)
	}
	if write {
		c.writeClosed = true
		_ = c.stream.SetWriteDeadline(deadline.Past)
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

// sendFIN ends the stream towards the peer. It drops the transport's error: that the peer reads no more is no failure of closing.
func (c *Conn) sendFIN() {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	_ = c.stream.SetWriteDeadline(time.Time{})
	_ = c.stream.CloseWrite()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finSent = true
}

// over reports that both directions have ended, to one caller only. That caller must release the stream. c.mu is held.
func (c *Conn) over() bool {
	in := c.readClosed || c.ended || c.broken != nil
	out := c.finSent || c.broken != nil && !c.stopsSending // yamux resets both directions
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

// awaitEnd owns the stream after both sides are closed. It ends when the peer ends its side or sends more, when c.linger has passed, or
// when the connection ends. In all but the first case it notifies the peer, by a reset or by asking it to stop sending.
func (c *Conn) awaitEnd() {
	defer c.slot.release()
	c.readMu.Lock()   // the woken Read has left the stream, and no other enters it
	c.readMu.Unlock() //nolint:staticcheck // if held, Reads could not return net.ErrClosed
	_ = c.stream.SetReadDeadline(time.Now().Add(c.linger))
	var b [1]byte
	n, err := c.stream.Read(b[:])
	if c.stopsSending || n == 0 && err == io.EOF {
		_ = c.stream.Close() // over QUIC a reset would discard data that the peer has not read yet
		return
	}
	_ = c.stream.ResetWithError(0) // the same code that QUIC sends when a read side is closed
}

// resetWith drops the conn at once, unsent data included. The peer gets an *Error with this code and Remote set; calls of this side return
// net.ErrClosed.
func (c *Conn) resetWith(code codes.Code) {
	c.mu.Lock()
	c.closed, c.readClosed, c.writeClosed, c.finished = true, true, true, true
	_ = c.stream.SetDeadline(deadline.Past)
	c.mu.Unlock()
	_ = c.stream.ResetWithError(resetCode(code))
	c.slot.release()
}

// Reset drops the conn at once, including written data that is not delivered yet. The peer's Reads and Writes fail with syscall.ECONNRESET,
// never with io.EOF, so that a cut answer does not look complete. Calls of this side return net.ErrClosed. After Close, Reset does nothing
// and fails with net.ErrClosed, so it may be deferred.
func (c *Conn) Reset() error {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return c.opError("reset", net.ErrClosed)
	}
	c.resetWith(codes.Closed)
	return nil
}
