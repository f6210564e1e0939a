package session

import "github.com/peerlane/peerlane/internal/frame"

// A slow link is full of our own bytes, and the answer to anything sent behind them is late. So silence alone does not mean that the peer
// is dead:
//
//   - The receiver of bytes sends an unasked sign of life, in time for the other side's heartbeat. The flow does so for its own bytes
//     (flow.Config.Unasked), the heartbeat for unacknowledged ones: those of dedicated streams and of conns beside the session.
//   - Each received byte counts, even in the middle of a sealed record or on a neighbour of the same connection. So does a Write that had
//     to wait and got room.
//   - Outbound data is cut into pieces of about half a second, so that a sign of life fits between them.

// unansweredLocked returns the number of received bytes that nothing else acknowledges to the peer.
func (s *Session) unansweredLocked() uint64 {
	n := s.dedicated.unacked.Load()
	if c, ok := s.Conn().(interface{ Unanswered() uint64 }); ok {
		n += c.Unanswered()
	}
	if s.carriers.flow == nil {
		n += s.stats.bytesIn.Load() - s.bare.probesIn*frame.HeaderSize // a sign is not answered by another
	}
	return n
}

// signLocked sends a sign of life if bytes of the peer have arrived since the last look and nothing else acknowledges them: the answer to
// the peer's PING may wait behind many more bytes.
func (h *heartbeat) signLocked() {
	s := h.s
	n := s.unansweredLocked()
	if n == h.answered {
		return
	}
	h.answered = n
	if s.carriers.flow != nil {
		s.carriers.flow.Sign()
	} else if s.out.pong == 0 {
		s.controlLocked(frame.Header{Type: frame.TypePong}, nil) // not the answer to any PING
	}
}

// askForCredit asks the peer for unused credit if others want memory, and ends the session of a peer that keeps it. A timer, which ends with the
// session, calls it.
func (s *Session) askForCredit() {
	s.mu.Lock()
	s.shared.asking = false
	keeps := false
	if s.asksLocked() {
		keeps = s.shared.in.keepsUnused()
	} else {
		s.shared.in.asks = 0
	}
	s.askForCreditLocked()
	if s.err == nil {
		s.shared.in.topUp()
		s.tellCreditLocked()
	}
	s.watchCreditLocked()
	s.mu.Unlock()
	if keeps {
		f := noRoom("the peer keeps memory that it does not use, and that others want")
		s.fail(&Error{Op: "session", Peer: s.peer, Code: f.Code, RetryAfter: f.RetryAfter, Text: f.Text})
	}
}
