package psk

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// How a Write is cut (spec 4.5 leaves it to the sender). Two records of 32 KiB cost 18 bytes more than one of 64 KiB and
// let the reader open the first while the second is on its way.
const (
	maxChunk = 32 << 10  // plaintext of one record, at most
	maxBatch = 128 << 10 // plaintext of one write to the conn below
)

// A reader has nothing of a record before all of it has come. So on a slow conn records are smaller: what leaves in about slowWrite,
// but at least minChunk; and the first ones on each conn are, as long as nothing is known of it.
const (
	minChunk  = 4 << 10
	slowWrite = 500 * time.Millisecond
	learnPart = 32 // a record is at most this part of what has been written, at first
)

// chunkSize returns how many bytes the next records have. Callers hold writing.
func (c *sealedConn) chunkSize() int {
	if c.chunk == 0 {
		c.chunk = minChunk
	}
	return c.chunk
}

// learn notes that a write of n bytes to the conn below took d. One that did not wait says little: the bytes are in a queue.
// Callers hold writing.
func (c *sealedConn) learn(n int, d time.Duration) {
	c.written += uint64(n)
	switch {
	case d > slowWrite:
		c.chunk = min(c.chunkSize(), int(float64(n)*float64(slowWrite)/float64(d)))
	case d < slowWrite/4 && n >= c.chunkSize():
		c.chunk = max(c.chunkSize(), int(min(c.written/learnPart, uint64(2*c.chunkSize()))))
	}
	c.chunk = min(max(c.chunk, minChunk), maxChunk)
}

// Write seals p and never changes it. Up to 128 KiB leave in one write to the conn below, more in several.
//
// n counts the bytes the Conn has taken. If the deadline passes part way, what was taken and did not leave is kept and
// leaves ahead of the next Write, CloseWrite or Close: a caller that goes on with p[n:] sends every byte once. With a
// deadline already past, n is 0. Any other failure breaks the writer: this Write and every later one give errBroken.
func (c *sealedConn) Write(p []byte) (n int, err error) {
	c.writing.take()
	defer c.writing.give()
	if err := c.writable(); err != nil {
		return 0, err
	}
	if err := c.flushTail(); err != nil {
		return 0, c.writeFailed(err)
	}
	for len(p) > 0 {
		if n > 0 { // the batch before may have taken its time
			if err := c.writable(); err != nil {
				return n, err
			}
		}
		m, err := c.writeBatch(p[:min(len(p), maxBatch)])
		n += m
		if err != nil {
			return n, c.writeFailed(err)
		}
		p = p[m:]
	}
	return n, nil
}

// writable returns why Write must not go on. Callers hold writing.
func (c *sealedConn) writable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return net.ErrClosed
	case c.writeErr != nil:
		return c.writeErr
	case c.tampered.Load():
		return ErrTampered
	case c.ended:
		return errWriteClosed
	case expired(c.writeDeadline):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// writeBatch seals p, at most maxBatch bytes, and writes it at once. m is the part of p that was taken.
func (c *sealedConn) writeBatch(p []byte) (m int, err error) {
	size := c.chunkSize()
	records := (len(p) + size - 1) / size
	b := getBuffer(len(p) + records*(headerSize+tagSize))
	wire := b.b[:0]
	for rest := p; len(rest) > 0; {
		chunk := rest[:min(len(rest), size)]
		wire = c.out.appendRecord(wire, chunk)
		rest = rest[len(chunk):]
	}
	left, err := c.send(b, wire)
	if err == nil || c.writeErr == nil {
		return len(p), err // all of it left, or the rest is the tail
	}
	return min(left/(headerSize+size+tagSize)*size, len(p)), err
}

// send writes wire, which b owns, to the conn below; left is how much of it went. A deadline keeps the rest as the tail,
// any other error breaks the writer; otherwise b is free again.
func (c *sealedConn) send(b *buffer, wire []byte) (left int, err error) {
	began := time.Now()
	left, err = c.conn.Write(wire)
	c.learn(left, time.Since(began))
	if err == nil && left < len(wire) {
		err = io.ErrShortWrite
	}
	c.tailBuf, c.tail = nil, nil
	switch {
	case err == nil:
		b.free()
	case isTimeout(err):
		c.tailBuf, c.tail = b, wire[left:]
		err = os.ErrDeadlineExceeded
	default:
		b.free()
		c.writeErr = fmt.Errorf("%w: %w", errBroken, err)
		err = c.writeErr
	}
	return left, err
}

// writeFailed is where every error of a Write takes its final form: closed, or as it is.
func (c *sealedConn) writeFailed(err error) error {
	if err != nil && c.isClosed() {
		return net.ErrClosed
	}
	return err
}

// flushTail writes what a deadline held back.
func (c *sealedConn) flushTail() error {
	if c.tailBuf == nil {
		return nil
	}
	_, err := c.send(c.tailBuf, c.tail)
	return err
}
