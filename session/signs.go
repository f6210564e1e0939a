package session

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/frame"
)

// A slow link is full of our own bytes, and whatever is asked behind them is answered late. So silence alone is not death:
//
//   - Who gets bytes says so unasked, in time for the other side's heartbeat: the flow for its own (resume.FlowConfig.Unasked), the
//     heartbeat for those that nobody acknowledges, of dedicated streams and of conns beside the session.
//   - Each byte that comes counts, also in the middle of a sealed record and on a neighbour of the same connection, and so does a
//     Write that had to wait and got room.
//   - What leaves is cut into pieces of about half a second, so that a sign of life has a place between them.

// signEvery is how long after bytes have come the peer is told, at most: it may have a shorter Heartbeat than this side.
const signEvery = 500 * time.Millisecond

// unasked returns how long after bytes have come the peer is told.
func (c *Config) unasked() time.Duration {
	if c.Heartbeat < 0 {
		return signEvery
	}
	return min(c.Heartbeat/2, signEvery)
}

// hear notes, without a flow, that the carrier lives.
func (s *Session) hear() { s.heardAt.Store(int64(s.elapsed())) }

// A tap sees the Reads of a carrier below its seal: one that brings a part of a record is a sign of life too.
type tap struct {
	net.Conn
	made    time.Time
	at      atomic.Int64                  // when one last brought bytes, in nanoseconds after made
	unacked atomic.Pointer[atomic.Uint64] // of the session, for a stream whose bytes nothing acknowledges; nil for others
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

// CloseWrite closes the writing side of the carrier if it can be closed by itself.
func (t *tap) CloseWrite() error {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// CloseRead closes the reading side of the carrier if it can be closed by itself.
func (t *tap) CloseRead() error {
	if c, ok := t.Conn.(interface{ CloseRead() error }); ok {
		return c.CloseRead()
	}
	return nil
}

// Moved returns when there was last a sign that the connection under the carrier lives: below the seal, and what a raw carrier with a
// method of this name says.
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

// unanswered returns how many bytes have come that nothing else tells the peer of. s.mu is held.
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

// sign tells the peer that this side lives when it has had bytes of the peer since it looked last, and nothing else says so: the
// answer to what the peer asks may wait behind many more. s.mu is held.
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
		s.control(frame.Header{Type: frame.TypePong}, nil) // nobody waits for it
	}
}

// A cutter finds how many bytes of a carrier's Write take about signEvery, from how long the Writes before have taken: for a session
// without a flow, which knows its pace.
type cutter struct {
	n       atomic.Int64
	written uint64
}

const leastCut = 4 << 10

// piece returns how many bytes the next Write may have.
func (c *cutter) piece() int { return int(max(c.n.Load(), leastCut)) }

// took notes that a Write of n bytes has taken d. One that did not have to wait says little: the bytes are in a queue.
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
