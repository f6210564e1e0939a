package psk

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
)

// maxEmptyReads is how often the conn below may return no byte and no error in a row.
const maxEmptyReads = 100

// Read returns bytes of the next record, and only of one that verified whole. It gives io.EOF after the peer's end record,
// io.ErrUnexpectedEOF if the conn below ends without one, ErrTampered for a record that does not verify; each of the
// three stays. After a deadline it goes on where it was.
func (c *sealedConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.reading.take()
	defer c.reading.give()
	if err := c.readable(); err != nil {
		return 0, err
	}
	if len(c.plain) == 0 {
		n, err := c.readRecord(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
	n := copy(p, c.plain)
	c.plain = c.plain[n:]
	c.settle()
	return n, nil
}

// readable returns why Read must not go on: closed, or past its deadline.
func (c *sealedConn) readable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.readClosed {
		return net.ErrClosed
	}
	if expired(c.readDeadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// readRecord opens the next record: straight into p if it fits, and n is its length; else into c.plain, and n is 0.
func (c *sealedConn) readRecord(p []byte) (n int, err error) {
	if c.readErr != nil {
		return 0, c.readErr
	}
	size, err := c.fillRecord()
	if err != nil {
		return 0, c.readFailed(err)
	}
	header := c.buf.b[c.start : c.start+headerSize]
	body := c.buf.b[c.start+headerSize : c.start+headerSize+size]
	dst, fits := body[:0], size-tagSize <= len(p)
	if fits {
		dst = p[:0]
	}
	plain, err := c.in.open(dst, header, body)
	if err == nil && len(plain) == 0 {
		err = io.EOF
	}
	if err != nil {
		return 0, c.readFailed(err)
	}
	c.start += headerSize + size
	if !fits {
		c.plain = plain
		return 0, nil
	}
	c.settle()
	return len(plain), nil
}

// fillRecord waits until a whole record is in the buffer and returns the size of its body.
func (c *sealedConn) fillRecord() (size int, err error) {
	for {
		held := c.end - c.start
		need := headerSize
		if held >= headerSize {
			size = int(binary.BigEndian.Uint16(c.buf.b[c.start:]))
			if size < tagSize {
				return 0, ErrTampered
			}
			if need += size; held >= need {
				return size, nil
			}
		}
		c.reserve(need)
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
}

// reserve makes the buffer hold n bytes from start on. It moves to a larger one only for a record that needs it.
func (c *sealedConn) reserve(n int) {
	switch {
	case c.buf == nil:
		c.buf = getBuffer(n)
	case n > len(c.buf.b):
		next := getBuffer(n)
		c.end = copy(next.b, c.buf.b[c.start:c.end])
		c.start = 0
		c.buf.free()
		c.buf = next
	case c.start+n > len(c.buf.b):
		c.end = copy(c.buf.b, c.buf.b[c.start:c.end])
		c.start = 0
	}
}

// fill reads once from the conn below into the room behind end.
func (c *sealedConn) fill() error {
	for range maxEmptyReads {
		n, err := c.conn.Read(c.buf.b[c.end:])
		c.end += n
		if n > 0 {
			return nil // an error that came with bytes comes again without them
		}
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF // only the end record is an end
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// settle gives the buffer back when nothing in it is wanted any more, so that an idle conn holds none.
func (c *sealedConn) settle() {
	if len(c.plain) == 0 && c.start == c.end {
		c.dropBuffer()
	}
}

func (c *sealedConn) dropBuffer() {
	if c.buf != nil {
		c.buf.free()
	}
	c.buf, c.plain, c.start, c.end = nil, nil, 0, 0
}

// readFailed is where every read error takes its final form: closed, ended for good, past the deadline, or as it came.
func (c *sealedConn) readFailed(err error) error {
	c.settle()
	if c.isReadClosed() {
		return net.ErrClosed
	}
	switch {
	case errors.Is(err, ErrTampered):
		c.tampered.Store(true)
		c.readErr = ErrTampered
	case errors.Is(err, io.ErrUnexpectedEOF):
		c.readErr = io.ErrUnexpectedEOF
	case errors.Is(err, io.EOF):
		c.readErr = io.EOF
	case isTimeout(err):
		return os.ErrDeadlineExceeded
	default:
		return err
	}
	c.dropBuffer()
	return c.readErr
}

// isReadClosed reports whether Close or CloseRead has begun.
func (c *sealedConn) isReadClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed || c.readClosed
}
