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
func (s *Session) hear() {
	s.heardAt.Store(int64(s.elapsed()))
	s.reads.Add(1)
}

// A tap counts the Reads of a carrier, below the seal if there is one: one that brings a part of a record is a sign of life too.
type tap struct {
	net.Conn
	reads   atomic.Uint64
	unacked atomic.Pointer[atomic.Uint64] // of the session, for a stream whose bytes nothing acknowledges; nil for others
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n > 0 {
		t.reads.Add(1)
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

// Moved returns a number that grows with each sign that the connection under the carrier lives, beside what the carrier itself
// brings: for a raw carrier that has a method of this name, and for the seal.
func (c *flowConn) Moved() (n uint64) {
	if c.tap != nil {
		n = c.tap.reads.Load()
	}
	if m, ok := c.raw.(interface{ Moved() uint64 }); ok {
		n += m.Moved()
	}
	return n
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
