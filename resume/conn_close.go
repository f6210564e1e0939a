package resume

import (
	"net"
	"time"
)

// Close ends the Conn (spec 7.3). Calls that wait return net.ErrClosed. The other side reads what was written and then io.EOF, and its
// Writes fail with syscall.EPIPE. Close does not wait for that: it goes on in the background, over further carriers if need
// be, for at most Options.CloseTimeout; Done tells when. A second Close does nothing.
func (c *Conn) Close() error {
	f := c.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.shut {
		return nil
	}
	c.shut = true
	c.due.Stop()
	c.deafen()
	f.out.closing = true
	f.finish()
	f.expire() // wakes a Write that is in the carrier's
	if f.err != nil {
		return nil
	}
	if wait := c.opts.closeTimeout(c.patience); wait > 0 {
		c.lingers = time.AfterFunc(wait, c.abandon)
	} else {
		c.abandonLocked()
	}
	f.closeIfDone()
	return nil
}

// Abort ends the Conn at once. What was written and has not arrived is lost, also after Close, and so is what was not read;
// calls return err. err is the reason that Options.Drop is given, which may tell the other side: otherwise it finds a loss, and
// learns when it resumes that nobody knows the Conn. Nothing happens if the Conn has ended already.
func (c *Conn) Abort(err error) {
	f := c.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	c.aborted = err
	c.in.drop()
	f.expire() // wakes a Write that is in the carrier's
	f.close(err)
}

// End is Abort for a Conn whose reader goes on: what was received can still be read, up to io.EOF if the other side's end has come. Write
// and everything else return err.
func (c *Conn) End(err error) {
	f := c.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire() // wakes a Write that is in the carrier's
	f.close(err)
}

// Acked returns how many bytes of what was written the other side has acknowledged, the end of CloseWrite counted as one, and whether that
// is all. What is acknowledged is with the other side's application or, after CloseWrite, waits for it in memory.
func (c *Conn) Acked() (n uint64, all bool) {
	c.flow.mu.Lock()
	defer c.flow.mu.Unlock()
	return c.flow.out.acked, c.flow.out.acked == c.flow.out.end
}

// AwaitAcked waits until the other side has acknowledged all that has been written so far, the end of CloseWrite included. The error is
// why the Conn has ended before, as Err returns it.
func (c *Conn) AwaitAcked() error { return c.flow.AwaitAcked() }

// Err returns why the Conn has ended, or nil while it has not: an error that matches net.ErrClosed after Close, ErrLost, ErrProtocol, or
// what Abort, End or Options.Final gave.
func (c *Conn) Err() error { return c.flow.Err() }

// Heard reports whether anything of the other side has come after the hello of the first carrier.
func (c *Conn) Heard() bool { return c.flow.Heard() > 0 }

// Undelivered returns how many bytes the other side had not acknowledged when the Conn ended, the end of the direction counted
// as one unless the other side has ended too; 0 while the Conn has not ended. It may have received some of them.
func (c *Conn) Undelivered() int {
	c.flow.mu.Lock()
	defer c.flow.mu.Unlock()
	return c.flow.undelivered
}

// drop ends a carrier as Options.Drop does.
func (c *Conn) drop(carrier net.Conn) {
	reason := c.flow.Err()
	if reason == errOver {
		reason = net.ErrClosed
	}
	c.opts.Drop(carrier, reason)
}

// abandon closes the flow, whatever has been delivered.
func (c *Conn) abandon() {
	c.flow.mu.Lock()
	defer c.flow.mu.Unlock()
	c.abandonLocked()
}

func (c *Conn) abandonLocked() {
	err := net.ErrClosed
	if c.flow.out.held > 0 {
		err = errUndelivered
	}
	c.flow.close(err)
}

// CloseWrite ends this side's direction: the other side reads what was written and then io.EOF. Reading goes on. A second
// one does nothing.
func (c *Conn) CloseWrite() error {
	f := c.flow
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case c.shut:
		return c.opError("close", net.ErrClosed)
	case c.final != nil && c.final != errOver:
		return c.opError("close", c.final)
	}
	f.finish()
	return nil
}

// CloseRead ends the other side's direction: what was not read is lost, and the other side's Writes fail with
// syscall.EPIPE. Writing goes on. A second one does nothing.
func (c *Conn) CloseRead() error {
	c.flow.mu.Lock()
	defer c.flow.mu.Unlock()
	if c.shut {
		return c.opError("close", net.ErrClosed)
	}
	c.deafen()
	return nil
}

// deafen makes the conn forget what has come and what comes. Flow.mu is held.
func (c *Conn) deafen() {
	c.deaf = true
	c.flow.consume(c.in.drop())
	c.flow.stop()
	c.readable.Broadcast()
}
