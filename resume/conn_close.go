package resume

import (
	"net"
	"time"

	"github.com/peerlane/peerlane/internal/flow"
)

// Close ends the Conn (spec 7.3). Waiting calls return net.ErrClosed. The other side reads the written data and then io.EOF, and its Writes
// fail with syscall.EPIPE. Close does not wait for that. Delivery continues in the background, over further carriers if needed, for at most
// Options.CloseTimeout; Done reports its end. A second Close does nothing.
func (c *Conn) Close() error {
	f := c.flow
	f.Lock()
	defer f.Unlock()
	if c.shut {
		return nil
	}
	c.shut = true
	c.due.Stop()
	c.deafen()
	f.FinishLocked()
	f.ExpireLocked() // wakes a Write that blocks in the carrier
	if c.final != nil {
		return nil
	}
	if wait := c.opts.closeTimeout(c.resumeWindow); wait > 0 {
		c.lingers = time.AfterFunc(wait, c.abandon)
	} else {
		c.abandonLocked()
	}
	f.CloseDeliveredLocked()
	return nil
}

// Abort ends the Conn at once. Undelivered data is lost, even after Close, and so is unread data; calls return err. Options.Drop receives
// err as the reason, and may send it to the other side. Otherwise the other side sees a lost carrier, and learns when it resumes that the
// Conn is unknown. Abort does nothing if the Conn has already ended. A nil err is net.ErrClosed.
func (c *Conn) Abort(err error) {
	if err == nil {
		err = net.ErrClosed
	}
	f := c.flow
	f.Lock()
	defer f.Unlock()
	if c.final != nil {
		return
	}
	c.aborted = err
	c.in.Drop()
	f.ExpireLocked() // wakes a Write that blocks in the carrier
	f.CloseLocked(err)
}

// Acked returns how many of the written bytes the other side has acknowledged, and whether that is all of them. The end sent by CloseWrite
// counts as one byte. Acknowledged data is with the other side's application or, after CloseWrite, waits for it in memory.
func (c *Conn) Acked() (n uint64, all bool) { return c.flow.Delivered() }

// AwaitAcked waits until the other side has acknowledged everything written so far, including the end sent by CloseWrite. If the Conn ends
// first, it returns the error of Err.
func (c *Conn) AwaitAcked() error { return c.flow.AwaitAcked() }

// Err returns why the Conn has ended, or nil while it has not. The error matches net.ErrClosed after Close, or ErrLost or ErrProtocol, or
// is the one from Abort or Options.Final.
func (c *Conn) Err() error { return c.flow.Err() }

// Undelivered returns how many bytes the other side had not acknowledged when the Conn ended, or 0 while it has not ended. The end of the
// direction counts as one byte unless the other side has ended too. The other side may have received some of them.
func (c *Conn) Undelivered() int { return c.flow.Undelivered() }

// drop ends a carrier as Options.Drop does.
func (c *Conn) drop(carrier net.Conn) {
	reason := c.flow.Err()
	if reason == flow.ErrOver {
		reason = net.ErrClosed
	}
	c.opts.Drop(carrier, reason)
}

// abandon closes the flow, whether or not everything has been delivered.
func (c *Conn) abandon() {
	c.flow.Lock()
	defer c.flow.Unlock()
	c.abandonLocked()
}

func (c *Conn) abandonLocked() {
	err := net.ErrClosed
	if c.flow.UnackedLocked() > 0 {
		err = errUndelivered
	}
	c.flow.CloseLocked(err)
}

// CloseWrite ends this side's direction: the other side reads the written data and then io.EOF. Reading continues. A second call does
// nothing.
func (c *Conn) CloseWrite() error {
	f := c.flow
	f.Lock()
	defer f.Unlock()
	switch {
	case c.shut:
		return c.opError("close", net.ErrClosed)
	case c.final != nil && c.final != flow.ErrOver:
		return c.opError("close", c.final)
	}
	f.FinishLocked()
	return nil
}

// CloseRead ends the other side's direction: unread data is lost, and the other side's Writes fail with syscall.EPIPE. Writing continues. A
// second call does nothing.
func (c *Conn) CloseRead() error {
	c.flow.Lock()
	defer c.flow.Unlock()
	if c.shut {
		return c.opError("close", net.ErrClosed)
	}
	c.deafen()
	return nil
}

// deafen drops the received data and all data that still arrives. The flow is locked.
func (c *Conn) deafen() {
	c.deaf = true
	c.flow.ConsumeLocked(c.in.Drop())
	c.flow.StopLocked()
	c.readable.Broadcast()
}
