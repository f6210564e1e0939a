package peerlane

import (
	"sync"
	"time"

	"github.com/peerlane/peerlane/frame"
	"github.com/peerlane/peerlane/session"
)

// carrier is a conn as the session floor knows it: one that can be reset with a code, and that says whether what it lets
// through is limited. On a limited relay it may have a budget, which its reads and writes are counted against.
type carrier struct {
	*Conn
	budget *budget
	gone   func() // ends a Write that waits for the budget's end; nil without a budget
	done   <-chan struct{}
}

// newCarrier returns a carrier on c; b may be nil.
func newCarrier(c *Conn, b *budget) *carrier {
	c.carries = true
	k := &carrier{Conn: c, budget: b}
	if b != nil {
		done := make(chan struct{})
		k.done, k.gone = done, sync.OnceFunc(func() { close(done) })
	}
	return k
}

// Limited reports whether the conn is through a relay that cuts it after some bytes or some time.
func (c *carrier) Limited() bool { return c.Path().Limited }

// Moved returns when there was last a sign that the connection under the carrier lives, on any conn of ours.
func (c *carrier) Moved() time.Time {
	if c.traffic == nil {
		return time.Time{}
	}
	return c.traffic.made.Add(time.Duration(c.traffic.moved.Load()))
}

// Unanswered returns how many bytes have come on the connection for conns that are no carriers.
func (c *carrier) Unanswered() uint64 {
	if c.traffic == nil {
		return 0
	}
	return c.traffic.unanswered.Load()
}

// Read counts what the relay has let through.
func (c *carrier) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.budget != nil {
		c.budget.read(n)
	}
	return n, err
}

// Write waits once the budget is spent: until the carrier is given up, or the budget turns out to be nobody's to keep.
func (c *carrier) Write(p []byte) (int, error) {
	if c.budget == nil {
		return c.Conn.Write(p)
	}
	written := 0
	for written < len(p) {
		some := c.budget.take(len(p)-written, c.done)
		n, err := c.Conn.Write(p[written : written+some])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Reset drops the conn at once and tells the peer code.
func (c *carrier) Reset(code frame.Code) error {
	c.resetWith(code)
	c.leave()
	return nil
}

// Close ends the conn in order.
func (c *carrier) Close() error {
	c.leave()
	return c.Conn.Close()
}

func (c *carrier) leave() {
	if c.gone != nil {
		c.gone()
	}
}

// PathOf returns over what a session's carrier runs, or ran last.
func PathOf(s *session.Session) Path {
	if c, ok := s.Conn().(*carrier); ok {
		return c.Path()
	}
	return Path{}
}
