package session

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/frame"
)

// muxed is a shared stream. It stays in its session's table until both directions have ended and the peer has acknowledged this side's.
//
//	opening ──ACCEPT──> open ──FIN sent──> half closed ──FIN received──> gone
//	   └───────────RESET, session ended───────────────────────────────────^
type muxed struct {
	payload
	s    *Session
	id   uint64
	name string
	mine bool // this side opened it
	bulk bool // held back on a scarce carrier

	opened chan struct{} // closed once the peer has accepted or openErr is set

	// Guarded by s.mu.
	openErr    *Error
	askedAt    time.Duration // when OPEN was sent or received, as Session.elapsed
	accepted   bool
	wasReset   bool      // Reset has been called
	ended      bool      // removed from the table
	userEnded  bool      // CloseWrite or Close has been called, and not only the session's
	closed     bool      // Close has been called
	gaveUp     bool      // Close has returned an error: the application knows
	writable   sync.Cond // L is &s.mu
	credit     int       // bytes the peer has room for
	share      share     // of the session's credit
	place      placed    // where it waits for that
	flight     flight    // of the sent data
	writing    bool      // a Write is in progress
	out        []byte    // the rest of the data to send
	taken      int       // how many of its bytes have been sent
	queued     bool      // in the queue of ready sources
	finAsked   bool      // end the direction once out is empty
	finSent    bool
	finAt      uint64            // offset in the flow behind FIN
	sent       uint64            // bytes sent
	got        uint64            // bytes received
	received   bool              // the peer's session has this direction whole, its end included
	parted     bool              // it no longer counts against MaxStreams
	saidUnread bool              // the peer knows that some of its bytes were dropped
	broken     *Error            // why sent bytes were dropped, if they were
	writeErr   error             // why Write fails; nil while it does not
	writeDue   deadline.Deadline // guarded by s.mu
	window     int               // bytes the peer may still send
	peerFin    bool              // the peer's direction has ended
	admitted   bool              // the peer has credit of the session for it

	// in has its own lock, taken after s.mu, so that Read does not block the session.
	in inbound
}

// inbound holds the received, unread data of a shared stream.
type inbound struct {
	mu       sync.Mutex
	readable sync.Cond
	buf      fifo
	held     int        // bytes of the quota: if room is nil for the memory of buf, else for what is in it and owed
	part     lender     // of the peer: a QuotaPart, or an account of it
	room     *allowance // of the session; nil: the peer has none
	mine     *account   // of this side's streams, if room is not nil and this is one
	shut     bool       // buf is not used any more
	owed     int        // bytes read since the last credit
	fin      bool       // nothing more will arrive
	stopped  bool       // CloseRead: drops whatever arrives
	err      error      // why Read fails: once buf is empty, or at once if dropped
	dropped  bool
	due      deadline.Deadline
}

func newMuxed(s *Session, name string, mine bool) *muxed {
	st := &muxed{
		s: s, name: name, mine: mine, opened: make(chan struct{}),
		credit: int(s.limits.StreamWindow), window: s.cfg.StreamWindow,
		flight: flight{limit: firstFlight},
	}
	st.writable.L = &s.mu
	st.in.readable.L = &st.in.mu
	st.in.part = s.part
	if mine {
		st.in.part = &s.shared.account
	}
	return st
}

// giveUpOpening ends a stream that the peer has not accepted yet.
func (st *muxed) giveUpOpening(err *Error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.accepted || st.openErr != nil {
		return
	}
	if st.id != 0 {
		err.Outcome = Unknown // OPEN has left
		st.s.controlFailureLocked(frame.TypeStreamReset, st.id, frame.Failure{Code: codes.Cancelled})
	}
	st.endLocked(err)
}

// opening is a stream as the source of its OPEN frame.
type opening muxed

func (o *opening) next(b []byte) ([]byte, bool) {
	st := (*muxed)(o)
	if st.ended {
		return b, false
	}
	st.id, st.askedAt = st.s.newIDLocked(), st.s.elapsed()
	st.s.shared.open[st.id] = st
	st.s.shared.oursKept++
	st.keepShareLocked()
	b = frame.AppendHeader(b, frame.Header{Length: len(st.name), Type: frame.TypeStreamOpen, ID: st.id})
	b = append(b, st.name...)
	st.s.beginCreditLocked()
	return st.s.appendCreditLocked(b), false
}

func (o *opening) abort(err *Error) { (*muxed)(o).abort(err) }

// endLocked removes the stream from the table and wakes all waiters with err.
func (st *muxed) endLocked(err error) {
	if st.ended {
		return
	}
	st.leaveLocked()
	if st.broken == nil && st.sent > 0 && !st.received && !st.wasReset {
		st.breakOffLocked(st.unsettled(err))
	}
	if !st.accepted {
		var failure *Error
		if !errors.As(err, &failure) {
			failure = &Error{Err: err}
		}
		copied := *failure
		st.openErr = &copied
		close(st.opened)
	}
	if st.writeErr == nil {
		st.writeErr = err
	}
	st.out = nil
	st.writable.Broadcast()
	st.in.fail(err, keepUnread)
	st.s.settleLocked()
}

// asLane describes the stream for hooks.
func (st *muxed) asLane() Lane { return Lane{Kind: "stream", Name: st.name, Local: st.mine} }

// leaveLocked removes the stream from the table.
func (st *muxed) leaveLocked() {
	st.ended = true
	if st.id != 0 {
		st.s.stats.streams.add(st.got, st.sent)
	}
	delete(st.s.shared.open, st.id)
	if st.accepted {
		st.s.hookLane(st.asLane(), false)
	}
	switch {
	case !st.mine:
		st.s.shared.theirsKept--
	case st.id != 0:
		st.s.shared.oursKept--
	}
	st.s.forgetReceiptsLocked(st)
	st.s.closeInLocked(st)
	st.keepShareLocked()
	st.leaveLineLocked()
	st.uncountLocked()
	st.writeDue.Stop()
	if st.bulk && st.queued {
		st.s.releaseHeldLocked((*writing)(st))
	}
	st.s.stirLocked()
	st.s.checkIdleLocked()
}

// uncountLocked releases the stream's place in MaxStreams, once.
func (st *muxed) uncountLocked() {
	if st.parted {
		return
	}
	st.parted = true
	if st.mine {
		st.s.shared.ours--
	} else {
		st.s.shared.theirs--
	}
	st.s.returnAllLocked()
}

// leaveIfDoneLocked releases the stream's place once both directions have ended. It removes the stream from the table once the peer is
// known to have all of this side's data.
func (st *muxed) leaveIfDoneLocked() {
	if !st.finSent || !st.peerFin || st.ended {
		return
	}
	st.uncountLocked()
	if st.received {
		st.leaveLocked()
	}
}

// onReceived records that the peer's session has the whole writing direction. s.mu is held.
func (st *muxed) onReceived() {
	st.received = true
	st.leaveIfDoneLocked()
}

// breakOffLocked notes why bytes that had been sent were dropped. Session.Close names a stream that the application has not closed.
func (st *muxed) breakOffLocked(err *Error) {
	st.broken = err
	if !st.closed && !st.wasReset {
		st.s.noteLostLocked(st, err)
	}
}

// unsettled returns the error for bytes of the way out that are not known to have arrived, because of err.
func (st *muxed) unsettled(err error) *Error {
	failed := &Error{}
	var e *Error
	if errors.As(err, &e) {
		*failed = *e
	} else {
		failed.Err = err
	}
	failed.Op, failed.Peer, failed.Link = "stream", st.s.peer, st.name
	failed.Outcome = Unknown
	if failed.Text == "" {
		failed.Text = unknownText(st.ofAll(st.sent))
	}
	return failed
}

// abort ends the stream with its session. s.mu is held.
func (st *muxed) abort(err *Error) {
	if !st.received && !st.ended && (st.sent > 0 || st.userEnded) {
		st.broken = st.unsettled(st.ending(err))
		if !st.gaveUp {
			st.s.noteLostLocked(st, st.broken)
		}
	}
	st.endLocked(st.ending(err))
}

// ending returns the stream's error when its session ends with err.
func (st *muxed) ending(err *Error) *Error {
	outcome := Unknown
	if st.mine && st.id == 0 {
		outcome = NotSent
	}
	return &Error{Op: "stream", Peer: st.s.peer, Link: st.name, Code: err.Code, Outcome: outcome, Err: err.cause()}
}

// onAccept handles the peer's STREAM_ACCEPT. s.mu is held.
func (st *muxed) onAccept() error {
	if !st.mine || st.accepted {
		return fmt.Errorf("STREAM_ACCEPT of id %d: %w", st.id, frame.ErrMalformed)
	}
	st.accepted = true
	st.s.end.moved++
	now := st.s.elapsed()
	st.flight.least, st.flight.leastAt = max(1, now-st.askedAt), now
	close(st.opened)
	st.s.hookLane(st.asLane(), true)
	if st.s.end.endsStreams() {
		st.askFinLocked() // Close was called before the peer accepted
	}
	st.s.stirLocked()
	return nil
}

// onReset ends the stream at the peer's request. s.mu is held.
func (st *muxed) onReset(f frame.Failure) {
	err := remote(f)
	err.Op, err.Peer, err.Link = "stream", st.s.peer, st.name
	if st.sent > 0 && st.broken == nil {
		st.breakOffLocked(st.unsettled(err))
	}
	st.endLocked(err)
	st.in.fail(err, dropUnread)
	st.s.settleLocked()
}

// CloseWrite implements Stream.
func (st *muxed) CloseWrite() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.writeErr != nil {
		return closedOr(st.writeErr, nil)
	}
	st.writeErr = net.ErrClosed
	st.userEnded = true
	st.askFinLocked()
	return nil
}

// CloseRead implements Stream.
func (st *muxed) CloseRead() error {
	fin, unread := st.in.stop()
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.s.settleLocked()
	if unread {
		st.sayUnreadLocked()
	} else if !fin && !st.ended && !st.peerFin {
		st.s.controlFailureLocked(frame.TypeStreamStop, st.id, frame.Failure{Code: codes.ReadClosed})
	}
	return nil
}

// Close implements Stream.
func (st *muxed) Close() error {
	st.s.mu.Lock()
	if !st.closed {
		st.closed, st.userEnded = true, true
		st.writeErr = net.ErrClosed
		st.cutWriteLocked()
		st.askFinLocked()
	}
	st.s.mu.Unlock()
	_ = st.CloseRead() // never fails
	return st.awaitReceived()
}

// cutWriteLocked ends a Write in progress and drops its unsent data.
func (st *muxed) cutWriteLocked() {
	if st.writeErr == nil && len(st.out) > 0 {
		st.writeErr = st.ending(st.s.end.leaving)
	}
	st.out = nil
	st.offerLocked()
	st.writable.Broadcast()
}

// awaitReceived waits until the peer's session has the written data, its end included.
func (st *muxed) awaitReceived() error {
	s := st.s
	settled := func() bool { return st.received || st.ended || st.sent == 0 }
	done := s.awaitProgress(settled, st.closeProgressLocked)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case st.broken != nil:
		s.forgetLostLocked(st) // the caller has the error
		return st.broken
	case done || settled() || st.sent == 0:
		return nil
	}
	st.gaveUp = true
	if s.err != nil {
		return st.unsettled(st.ending(s.err))
	}
	return st.unsettled(&Error{Code: codes.Timeout, Err: fmt.Errorf("no progress for %v", s.cfg.CloseTimeout)})
}

// closeProgressLocked is progress of Close. Once the end has left, a peer that acknowledges bytes has that as its last word to give: what
// else moves on the session does not count, or a peer that never answers the PING could hold up Close.
func (st *muxed) closeProgressLocked() uint64 {
	s := st.s
	switch {
	case st.finSent && s.carriers.flow != nil:
		return st.sent + min(s.carriers.flow.Acked(), st.finAt)
	case len(st.out) > 0 && (st.credit == 0 || st.place.in != nil):
		return st.sent
	}
	return st.sent + s.progressLocked()
}

// Reset implements Stream.
func (st *muxed) Reset(code codes.Code) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.s.forgetLostLocked(st)
	if !st.ended {
		st.s.controlFailureLocked(frame.TypeStreamReset, st.id, frame.Failure{Code: code})
		st.wasReset = true
		st.endLocked(net.ErrClosed)
	}
	st.in.fail(net.ErrClosed, dropUnread)
	st.s.settleLocked()
	return nil
}

// LocalAddr implements net.Conn.
func (st *muxed) LocalAddr() net.Addr { return st.s.Conn().LocalAddr() }

// RemoteAddr implements net.Conn.
func (st *muxed) RemoteAddr() net.Addr { return st.s.Conn().RemoteAddr() }

// closedOr returns err unless it is net.ErrClosed, and other if it is.
func closedOr(err, other error) error {
	if err == net.ErrClosed {
		return other
	}
	return err
}
