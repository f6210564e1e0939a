package session

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/internal/frame"
)

// A slow link is full of our own bytes, and the answer to anything sent behind them is late. So silence alone does not mean that the peer
// is dead:
//
//   - The receiver of bytes sends an unasked sign of life, in time for the other side's heartbeat. The flow does so for its own bytes
//     (resume.FlowConfig.Unasked), the heartbeat for unacknowledged ones: those of dedicated streams and of conns beside the session.
//   - Each received byte counts, even in the middle of a sealed record or on a neighbour of the same connection. So does a Write that had
//     to wait and got room.
//   - Outbound data is cut into pieces of about half a second, so that a sign of life fits between them.

// signEvery is the most time between received bytes and the sign sent for them. The peer may have a shorter Heartbeat than this side.
const signEvery = 500 * time.Millisecond

// unasked returns the time between received bytes and the sign sent for them.
func (c *Config) unasked() time.Duration {
	if c.Heartbeat < 0 {
		return signEvery
	}
	return min(c.Heartbeat/2, signEvery)
}

// hear records a sign of life of the carrier, in a session without a flow.
func (s *Session) hear() { s.heardAt.Store(int64(s.elapsed())) }

// A tap observes the Reads of a carrier below its seal: a Read of part of a record is a sign of life too.
type tap struct {
	net.Conn
	made    time.Time
	at      atomic.Int64                  // when a Read last returned bytes, in nanoseconds after made
	unacked atomic.Pointer[atomic.Uint64] // the session's counter, for a stream whose bytes nothing acknowledges; nil for others
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n > 0 {
		t.at.Store(int64(time.Since(t.made)))
		if u := t.unacked.Load(); u != nil {
			u.Add(uint64(n))
		}
	}
	return n, err
}

// CloseWrite closes the writing side of the carrier if the carrier supports half close.
func (t *tap) CloseWrite() error {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// CloseRead closes the reading side of the carrier if the carrier supports half close.
func (t *tap) CloseRead() error {
	if c, ok := t.Conn.(interface{ CloseRead() error }); ok {
		return c.CloseRead()
	}
	return nil
}

// Moved returns when the connection under the carrier last gave a sign of life: below the seal, or as reported by the Moved method of a
// raw carrier that has one.
func (c *flowConn) Moved() (at time.Time) {
	if m, ok := c.raw.(interface{ Moved() time.Time }); ok {
		at = m.Moved()
	}
	if c.tap != nil {
		if t := c.tap.made.Add(time.Duration(c.tap.at.Load())); t.After(at) {
			return t
		}
	}
	return at
}

// unanswered returns the number of received bytes that nothing else acknowledges to the peer. s.mu is held.
func (s *Session) unanswered() uint64 {
	n := s.unacked.Load()
	if c, ok := s.Conn().(interface{ Unanswered() uint64 }); ok {
		n += c.Unanswered()
	}
	if s.flow == nil {
		n += s.stats.bytesIn.Load() - s.probesIn*frame.HeaderSize // a sign is not answered by another
	}
	return n
}

// sign sends a sign of life if bytes of the peer have arrived since the last look and nothing else acknowledges them: the answer to the
// peer's PING may wait behind many more bytes. s.mu is held.
func (h *heartbeat) sign() {
	s := h.s
	n := s.unanswered()
	if n == h.answered {
		return
	}
	h.answered = n
	if s.flow != nil {
		s.flow.Sign()
	} else if s.pong == 0 {
		s.control(frame.Header{Type: frame.TypePong}, nil) // not the answer to any PING
	}
}

// A cutter estimates how many bytes a carrier's Write takes in about signEvery, from the duration of earlier Writes. It serves a session
// without a flow; a flow knows its own pace.
type cutter struct {
	n       atomic.Int64
	written uint64
}

const leastCut = 4 << 10

// piece returns the size limit of the next Write.
func (c *cutter) piece() int { return int(max(c.n.Load(), leastCut)) }

// took records that a Write of n bytes took d. A Write that did not have to wait says little, because the bytes may only be queued.
func (c *cutter) took(n int, d time.Duration) {
	c.written += uint64(n)
	piece := int64(c.piece())
	switch {
	case d > signEvery:
		piece = min(piece, int64(float64(n)*float64(signEvery)/float64(d)))
	case d < signEvery/4:
		piece = min(2*piece, int64(c.written/8), maxPart)
	}
	c.n.Store(max(piece, leastCut))
}
