package peerlane

import (
	"math"
	"sync"
	"sync/atomic"
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
	piece    int // the most that one write to the conn takes

	suspected atomic.Int64 // when an answer was overdue that was about to be asked for, in Unix nanoseconds; 0: never
	prepared  atomic.Int64 // when strange relays were prepared for it, in the same way
}

// newCarrier returns a carrier on c, a conn of h; b may be nil.
func newCarrier(c *Conn, b *budget.Budget, h host.Host) *carrier {
	c.carries = true
	k := &carrier{Conn: c, budget: b, hostDone: hostDone(h), piece: pieceOf(c.Path().RelayData)}
	if b != nil {
		done := make(chan struct{})
		k.done, k.gone = done, sync.OnceFunc(func() { close(done) })
	}
	return k
}

// leastPiece is the least that a carrier writes at a time, if there is that much.
const leastPiece = 512

// pieceOf returns how much to write at a time where a relay passes data bytes, or any number if 0. What is written at once arrives as one
// sealed record or not at all, so that larger ones would never arrive over a circuit that passes less.
func pieceOf(data int64) int {
	if data == 0 {
		return math.MaxInt
	}
	return int(min(max(data/32, leastPiece), math.MaxInt32))
}

// Limited reports whether the conn runs through a relay that cuts it after a number of bytes or a time.
func (c *carrier) Limited() bool { return c.Path().Limited }

// Describe returns the path of the carrier, for diagnostics.
func (c *carrier) Describe() string { return c.Path().String() }

// Connection returns the libp2p connection that the carrier runs on.
func (c *carrier) Connection() any { return c.under }

// Subnet names the network that the peer is in, for quotas: see subnetOf.
func (c *carrier) Subnet() string { return subnetOf(c.under) }

// Measured records the round trip of the connection.
func (c *carrier) Measured(rtt time.Duration) {
	if c.traffic != nil {
		c.traffic.rtt.Store(int64(rtt))
	}
}

// Moved returns when the connection under the carrier last gave a sign of life, on any conn of ours.
func (c *carrier) Moved() time.Time {
	if c.traffic == nil {
		return time.Time{}
	}
	return c.traffic.made.Add(time.Duration(c.traffic.moved.Load()))
}

// isSilent reports whether the connection under the carrier has been given time to answer, and has not given a sign of life since. A nil
// carrier is not silent.
func (c *carrier) isSilent() bool {
	if c == nil || c.suspected.Load() == 0 {
		return false
	}
	since := time.Unix(0, c.suspected.Load())
	return time.Since(since) >= minAnswer && c.Moved().Before(since)
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
	written := 0
	for first := true; first || written < len(p); first = false {
		some := min(len(p)-written, c.piece)
		if c.budget != nil && some > 0 {
			some = c.budget.Take(some, c.done)
		}
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
