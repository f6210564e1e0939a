package session

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// The sending side of a muxed stream.

// Write implements net.Conn. It returns once the writer has taken all of p. Concurrent Writes take turns.
func (st *muxed) Write(p []byte) (int, error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for st.writing && st.writeErr == nil && !st.writeDue.Expired() {
		st.writable.Wait()
	}
	if err := st.writeFailureLocked(); err != nil {
		return 0, err
	}
	if s.end.ours >= phaseClosing {
		return 0, st.opError("write", st.ending(s.end.leaving))
	}
	if len(p) == 0 {
		return 0, nil
	}
	s.touch()
	st.writing, st.out = true, p
	st.offerLocked()
	for len(st.out) > 0 && st.writeFailureLocked() == nil {
		st.writable.Wait()
	}
	n := st.taken
	st.writing, st.out, st.taken = false, nil, 0
	if st.finAsked {
		st.offerFinLocked() // it waited for this Write
	}
	st.writable.Broadcast()
	if n < len(p) {
		return n, st.writeFailureLocked()
	}
	return n, nil
}

// writeFailureLocked returns why Write fails now, or nil.
func (st *muxed) writeFailureLocked() error {
	if st.writeErr != nil {
		return st.opError("write", st.writeErr)
	}
	if st.writeDue.Expired() {
		return st.opError("write", os.ErrDeadlineExceeded)
	}
	return nil
}

// opError wraps err as the net package does.
func (st *muxed) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "peerlane", Source: st.LocalAddr(), Addr: st.RemoteAddr(), Err: err}
}

// offerLocked puts the stream among the ready sources if it has something that may leave.
func (st *muxed) offerLocked() {
	if !st.queued && !st.ended && (st.mayLeaveLocked() || st.finAsked && !st.finSent && len(st.out) == 0) {
		st.queued = true
		st.s.enqueueLocked((*writing)(st))
	}
}

// mayLeaveLocked reports whether there is something to send, and may be.
func (st *muxed) mayLeaveLocked() bool {
	if len(st.out) == 0 || st.creditLocked() == 0 {
		return false
	}
	if st.flight.room() == 0 {
		st.s.watchFlightsLocked()
		return false
	}
	return true
}

// askFinLocked ends this direction once the Write in progress has been sent.
func (st *muxed) askFinLocked() {
	if !st.finAsked {
		st.finAsked = true
		st.offerFinLocked()
	}
}

// offerFinLocked is offerLocked once the end of this direction has been asked for. The data of a bulk stream is held on a scarce carrier, its end is not.
func (st *muxed) offerFinLocked() {
	if len(st.out) == 0 && st.bulk && st.queued && st.s.releaseHeldLocked((*writing)(st)) {
		st.queued = false
	}
	st.offerLocked()
}

// writing is a stream as the source of its DATA frames.
type writing muxed

func (w *writing) next(b []byte) ([]byte, bool) {
	st := (*muxed)(w)
	st.queued = false
	defer st.s.offerCreditLocked()
	if st.ended {
		return b, false
	}
	n := min(len(st.out), st.creditLocked(), st.flight.room(), st.s.out.fit)
	fin := st.finAsked && !st.finSent && n == len(st.out)
	if n == 0 && !fin {
		if len(st.out) > 0 && st.flight.room() == 0 { // it was lowered after the stream was queued
			st.s.watchFlightsLocked()
		}
		return b, false
	}
	h := frame.Header{Length: n, Type: frame.TypeStreamData, ID: st.id}
	if fin {
		h.Flags = frame.FlagFin
		st.finSent = true
		st.s.shared.unasked = append(st.s.shared.unasked, st)
	}
	st.sent += uint64(n)
	b = frame.AppendHeader(b, h)
	b = append(b, st.out[:n]...)
	if fin {
		st.finAt = st.s.out.flowEnd + uint64(len(b))
	}
	st.out = st.out[n:]
	st.taken += n
	st.credit -= n
	if n > 0 {
		st.flight.leave(n, st.s.elapsed())
		st.s.shared.purse.spend(n)
	}
	st.keepShareLocked()
	if len(st.out) == 0 {
		st.writable.Broadcast()
	}
	st.leaveIfDoneLocked()
	st.queued = st.mayLeaveLocked()
	return b, st.queued
}

// hold implements streamSource. The credit that the stream was offered is offered to others.
func (w *writing) hold() bool {
	held := w.bulk && len(w.out) > 0
	if held {
		w.s.offerCreditLocked()
	}
	return held
}

func (w *writing) abort(err *Error) { (*muxed)(w).abort(err) }

// onCredit handles the peer's grant of room for n more bytes. s.mu is held.
func (st *muxed) onCredit(n uint32) error {
	if uint64(st.credit)+uint64(n) > frame.MaxTotal {
		return fmt.Errorf("credit of stream %d grows over %d: %w", st.id, frame.MaxTotal, frame.ErrTooLong)
	}
	if st.writing && len(st.out) > 0 {
		st.s.end.moved++
	}
	st.credit += int(n)
	st.flight.hear(int(n), st.s.elapsed(), st.s.mostQueueForLocked(st.flight.least))
	st.keepShareLocked()
	st.offerLocked()
	return nil
}

// onStop handles the peer's notice that it reads no more: Write fails, and this direction ends. s.mu is held.
func (st *muxed) onStop(f frame.Failure) {
	err := remote(f)
	err.Op, err.Peer, err.Link = "stream", st.s.peer, st.name
	if st.writeErr == nil {
		st.writeErr = err
	}
	if f.Code == codes.Unread && st.broken == nil {
		err.Outcome = Rejected
		st.breakOffLocked(err)
	}
	st.out = nil
	st.askFinLocked()
	st.offerLocked()
	st.writable.Broadcast()
}

// SetDeadline implements net.Conn.
func (st *muxed) SetDeadline(t time.Time) error {
	if err := st.SetReadDeadline(t); err != nil {
		return err
	}
	return st.SetWriteDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (st *muxed) SetWriteDeadline(t time.Time) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.closed {
		return st.opError("set", net.ErrClosed)
	}
	st.writeDue.Set(&st.s.mu, t, st.writable.Broadcast)
	return nil
}
