package peerlane

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/budget"
	"github.com/peerlane/peerlane/session"
)

// carrier is a conn in the form that sessions use: it can be reset with a code, and reports whether it is limited in what it lets through.
// On a limited relay it may have a budget, against which its reads and writes count.
type carrier struct {
	*Conn
	hostDone <-chan struct{}
	budget   *budget.Budget
	gone     func() // ends a Write that waits for the end of the budget; nil without a budget
	done     <-chan struct{}
}

// newCarrier returns a carrier on c, a conn of h; b may be nil.
func newCarrier(c *Conn, b *budget.Budget, h host.Host) *carrier {
	c.carries = true
	k := &carrier{Conn: c, budget: b, hostDone: hostDone(h)}
	if b != nil {
		done := make(chan struct{})
		k.done, k.gone = done, sync.OnceFunc(func() { close(done) })
	}
	return k
}

// Limited reports whether the conn runs through a relay that cuts it after a number of bytes or a time.
func (c *carrier) Limited() bool { return c.Path().Limited }

// Moved returns when the connection under the carrier last gave a sign of life, on any conn of ours.
func (c *carrier) Moved() time.Time {
	if c.traffic == nil {
		return time.Time{}
	}
	return c.traffic.made.Add(time.Duration(c.traffic.moved.Load()))
}

// Unanswered returns how many bytes have been received on the connection for conns that are no carriers.
func (c *carrier) Unanswered() uint64 {
	if c.traffic == nil {
		return 0
	}
	return c.traffic.unanswered.Load()
}

// Read counts the bytes that the relay has let through.
func (c *carrier) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.budget != nil {
		c.budget.Read(n)
	}
	return n, c.explain("read", err)
}

// explain returns err, or an error that names a closed host as the cause.
func (c *carrier) explain(op string, err error) error {
	if err == nil || !isClosed(c.hostDone) {
		return err
	}
	return hostClosed(op, err)
}

// Write waits once the budget is spent, until the carrier is given up or the budget turns out not to apply any more.
func (c *carrier) Write(p []byte) (int, error) {
	if c.budget == nil {
		n, err := c.Conn.Write(p)
		return n, c.explain("write", err)
	}
	written := 0
	for written < len(p) {
		some := c.budget.Take(len(p)-written, c.done)
		n, err := c.Conn.Write(p[written : written+some])
		written += n
		if err != nil {
			return written, c.explain("write", err)
		}
	}
	return written, nil
}

// Reset drops the conn at once and sends code to the peer.
func (c *carrier) Reset(code codes.Code) error {
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

// PathOf returns the path of a session's current or last carrier. It is the zero Path for nil, and for a session that is not of this
// package.
func PathOf(s *session.Session) Path {
	if s == nil {
		return Path{}
	}
	if c, ok := s.Conn().(*carrier); ok {
		return c.Path()
	}
	return Path{}
}
