package resume

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/peerlane/peerlane/internal/flow"
)

// Read returns bytes of the other side, in order and once each, whatever becomes of the carriers. What was received can be
// read also after a loss. The error is exactly io.EOF after the other side's Close or CloseWrite, os.ErrDeadlineExceeded
// past the deadline, net.ErrClosed after this side's Close or CloseRead, and else matches ErrLost or ErrProtocol.
func (c *Conn) Read(p []byte) (int, error) {
	c.flow.Lock()
	defer c.flow.Unlock()
	for {
		if err := c.unreadable(); err != nil {
			return 0, c.opError("read", err)
		}
		if len(p) == 0 {
			return 0, nil
		}
		if n := c.in.Read(p); n > 0 {
			c.flow.ConsumeLocked(n)
			return n, nil
		}
		switch {
		case c.flow.EndsLocked().In:
			return 0, io.EOF
		case c.final != nil:
			return 0, c.opError("read", c.final)
		}
		c.readable.Wait()
	}
}

// unreadable returns why nothing may be read now, also if there is something.
func (c *Conn) unreadable() error {
	switch {
	case c.deaf:
		return net.ErrClosed
	case c.aborted != nil:
		return c.aborted
	case c.due.Expired():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Write returns once all of p is kept, and sent if there is a carrier; p may be changed then. It waits while the window of
// either side is full. Writes of several goroutines do not mix. The error is os.ErrDeadlineExceeded past the deadline,
// net.ErrClosed after this side's Close or CloseWrite, syscall.EPIPE after the other side's Close or CloseRead, and else
// matches ErrLost or ErrProtocol; the bytes that were kept until then are delivered all the same, unless the Conn is lost.
func (c *Conn) Write(p []byte) (int, error) {
	c.flow.Lock()
	defer c.flow.Unlock()
	n, err := c.flow.WriteInTurnLocked(p)
	if err != nil {
		return n, c.writeError(err)
	}
	return n, nil
}

// writeError returns what Write is to make of an error of the flow. The flow is locked.
func (c *Conn) writeError(err error) error {
	ends := c.flow.EndsLocked()
	switch {
	case c.aborted != nil && !c.shut:
		err = c.aborted
	case c.shut || ends.Out:
		err = net.ErrClosed
	case ends.Stopped:
		err = syscall.EPIPE
	case c.final != nil:
		err = c.final
	}
	if errors.Is(err, flow.ErrOver) { // both have closed their ways out, and the other side its way in
		err = syscall.EPIPE
	}
	return c.opError("write", err)
}
