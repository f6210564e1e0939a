package psk

import (
	"fmt"
	"net"
	"time"

	"github.com/peerlane/peerlane/internal/deadline"
)

// How long Close waits for a Write under way and for the end record to leave. The second value is for a conn below that
// ignores deadlines.
const (
	closeTimeout    = time.Second
	watchdogTimeout = 2 * time.Second
)

// CloseWrite sends the end record, after which the peer reads io.EOF, and half closes the conn below if it can. Reading
// goes on. After a deadline it can be called again; once done, a repeat does nothing.
func (c *sealedConn) CloseWrite() error {
	c.writing.take()
	defer c.writing.give()
	if c.halfDone {
		return nil
	}
	if !c.ended {
		if err := c.writable(); err != nil {
			return err
		}
	}
	if err := c.finish(); err != nil {
		return c.writeFailed(err)
	}
	c.halfDone = true
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// finish sends the tail and the end record, once. Callers hold writing.
func (c *sealedConn) finish() error {
	if c.writeErr != nil {
		return c.writeErr
	}
	if err := c.flushTail(); err != nil || c.ended {
		return err
	}
	c.ended = true
	b := getBuffer(headerSize + tagSize)
	_, err := c.send(b, c.out.appendRecord(b.b[:0], nil))
	return err
}

// CloseRead ends reading on this side: a pending Read and every later one give net.ErrClosed. It closes the read side of
// the conn below if it can.
func (c *sealedConn) CloseRead() error {
	if err := c.beginCloseRead(); err != nil {
		return err
	}
	if half, ok := c.conn.(interface{ CloseRead() error }); ok {
		return half.CloseRead()
	}
	return nil
}

// beginCloseRead refuses new Reads and ends a pending one.
func (c *sealedConn) beginCloseRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.readClosed = true
	if err := c.conn.SetReadDeadline(deadline.Past); err != nil {
		return fmt.Errorf("psk: close read: %w", err)
	}
	return nil
}

// Close sends the end record and closes the conn below. A pending Read ends at once; a pending Write and the end record
// have one second (two, if the conn below ignores deadlines), then it is closed over them and the peer reads
// io.ErrUnexpectedEOF. No end record leaves once a record of the peer did not verify. Close fails if the conn below
// does, or if bytes that an earlier Write took at its deadline could not leave. A repeat returns the first result.
func (c *sealedConn) Close() error { return c.closer.do(c.shut) }

func (c *sealedConn) shut() error {
	below := newSingle()
	watchdog := time.AfterFunc(watchdogTimeout, func() { _ = below.do(c.conn.Close) })
	defer watchdog.Stop()
	c.beginClose()
	err := c.lastWords()
	if cerr := below.do(c.conn.Close); cerr != nil {
		return cerr
	}
	return err
}

// beginClose refuses new calls, ends a pending Read and bounds a pending Write.
func (c *sealedConn) beginClose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	_ = c.conn.SetReadDeadline(deadline.Past)
	_ = c.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
}

// lastWords sends the tail and the end record as far as they go. It fails only if a tail is lost: the peer learns of a
// missing end record by itself.
func (c *sealedConn) lastWords() error {
	c.writing.take()
	defer c.writing.give()
	if c.tampered.Load() {
		return nil
	}
	held := len(c.tail)
	if err := c.flushTail(); err != nil && held > 0 {
		return fmt.Errorf("psk: close: %d sealed bytes of an earlier write did not leave: %w", held, err)
	}
	_ = c.finish()
	return nil
}
