package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
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
	askedAt    time.Duration // when OPEN was sent, as Session.elapsed
	accepted   bool
	wasReset   bool      // Reset has been called
	ended      bool      // removed from the table
	userEnded  bool      // CloseWrite or Close has been called, and not only the session's
	closed     bool      // Close has been called
	gaveUp     bool      // Close has returned an error: the application knows
	writable   sync.Cond // L is &s.mu
	credit     int       // bytes the peer has room for
	flight     flight    // of the sent data
	writing    bool      // a Write is in progress
	out        []byte    // the rest of the data to send
	taken      int       // how many of its bytes have been sent
	queued     bool      // in the queue of ready sources
	finAsked   bool      // end the direction once out is empty
	finSent    bool
	finAt      uint64            // offset in the flow behind FIN
	sent       uint64            // bytes sent
	received   bool              // the peer's session has this direction whole, its end included
	parted     bool              // it no longer counts against MaxStreams
	saidUnread bool              // the peer knows that some of its bytes were dropped
	broken     *Error            // why sent bytes were dropped, if they were
	writeErr   error             // why Write fails; nil while it does not
	writeDue   deadline.Deadline // guarded by s.mu
	window     int               // bytes the peer may still send
	peerFin    bool              // the peer's direction has ended

	// in has its own lock, taken after s.mu, so that Read does not block the session.
	in inbound
}

// inbound holds the received, unread data of a shared stream.
type inbound struct {
	mu       sync.Mutex
	readable sync.Cond
	buf      ring
	owed     int   // bytes read since the last credit
	fin      bool  // nothing more will arrive
	stopped  bool  // CloseRead: drops whatever arrives
	err      error // why Read fails: once buf is empty, or at once if dropped
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
	return st
}

// openShared opens a stream on the carrier.
func (s *Session) openShared(ctx context.Context, name string, bulk bool) (*Stream, error) {
	st := newMuxed(s, name, true)
	st.bulk = bulk
	fail := func(err *Error) (*Stream, error) {
		err.Op, err.Peer, err.Link = "open stream", s.peer, name
		return nil, err
	}
	s.mu.Lock()
	if err := s.refusal("open stream", name); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	if s.mine >= int(s.limits.MaxStreams) {
		s.mu.Unlock()
		return fail(&Error{Code: codes.Unavailable, Outcome: NotSent,
			Text: fmt.Sprintf("%d streams open, the peer takes no more", s.limits.MaxStreams)})
	}
	if s.mineKept >= 2*int(s.limits.MaxStreams) {
		s.mu.Unlock()
		return fail(&Error{Code: codes.Unavailable, Outcome: NotSent, RetryAfter: retryHint,
			Text: fmt.Sprintf("the peer has not acknowledged the ends of %d streams", s.mineKept-s.mine)})
	}
	s.mine++
	s.enqueue((*opening)(st))
	s.mu.Unlock()
	s.touch()
	select {
	case <-st.opened:
	case <-ctx.Done():
		st.giveUpOpening(&Error{Outcome: NotSent, Err: ctx.Err()})
	}
	s.mu.Lock()
	err := st.openErr
	s.mu.Unlock()
	if err != nil {
		return fail(err)
	}
	return &Stream{conn: st, s: s, name: name}, nil
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
		st.s.controlFailure(frame.TypeStreamReset, st.id, frame.Failure{Code: codes.Cancelled})
	}
	st.end(err)
}

// opening is a stream as the source of its OPEN frame.
type opening muxed

func (o *opening) next(b []byte) ([]byte, bool) {
	st := (*muxed)(o)
	if st.ended {
		return b, false
	}
	st.id, st.askedAt = st.s.newID(), st.s.elapsed()
	st.s.streams[st.id] = st
	st.s.mineKept++
	b = frame.AppendHeader(b, frame.Header{Length: len(st.name), Type: frame.TypeStreamOpen, ID: st.id})
	return append(b, st.name...), false
}

func (o *opening) abort(err *Error) { (*muxed)(o).abort(err) }

// onOpen handles the peer's OPEN. s.mu is held.
func (s *Session) onOpen(h frame.Header, p []byte) error {
	if len(p) == 0 || len(p) > frame.MaxName {
		return fmt.Errorf("stream name of %d bytes: %w", len(p), frame.ErrMalformed)
	}
	if err := s.acceptID(h.Type, h.ID); err != nil {
		return err
	}
	name := s.intern(p)
	serve := s.cfg.Mux.stream(name)
	var refusal frame.Failure
	switch {
	case s.phase >= phaseDraining, s.flushed != nil:
		refusal.Code = codes.GoingAway
	case serve == nil:
		refusal = frame.Failure{Code: codes.NotFound, Text: fmt.Sprintf("nobody serves stream %q", name)}
	case s.theirsOpen >= s.cfg.MaxStreams:
		refusal = frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: "too many streams open"}
	case s.theirsKept >= 2*s.cfg.MaxStreams:
		refusal = frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: "too many ends of streams are not acknowledged"}
	case s.streaming >= 2*s.cfg.MaxStreams:
		refusal = frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: "too many handlers of ended streams still run"}
	}
	if refusal.Code != codes.OK {
		s.stats.refused.Add(1)
		s.refuse(frame.TypeStreamReset, h.ID, refusal)
		return nil
	}
	st := newMuxed(s, name, false)
	st.id, st.accepted = h.ID, true
	s.theirsOpen++
	s.theirsKept++
	s.streams[h.ID] = st
	s.control(frame.Header{Type: frame.TypeStreamAccept, ID: h.ID}, nil)
	s.touch()
	s.streaming++
	go s.serveStream(serve, &Stream{conn: st, s: s, name: name})
	return nil
}

// serveStream runs a stream's handler in its own goroutine, which ends when the handler does. When the handler returns, serveStream
// closes the stream; when it panics or ends its goroutine, serveStream resets it. A stream that the handler had closed stays closed, and
// its written data still arrives. The caller has counted the stream in s.streaming.
func (s *Session) serveStream(serve func(*Stream), st *Stream) {
	defer s.endServeStream()
	hook.Run(func() { handler.Run((*handlers)(s), handler.Stream, func() { serve(st) }) }, func(why *hook.Failure) {
		switch {
		case why == nil:
			s.closeServed(st)
			return
		case !st.closed.Load():
			_ = st.Reset(codes.Internal) // the log reports why
		}
		s.logFailure(why, "stream", st.name)
	})
}

// closeServed closes a stream whose handler has returned. Session.Close reports undelivered data.
func (s *Session) closeServed(st *Stream) {
	s.mu.Lock()
	s.closings++
	s.mu.Unlock()
	err := st.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endClosing(st.conn, err)
}

func (s *Session) endServeStream() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streaming--
	s.checkIdle()
}

// end removes the stream from the table and wakes all waiters with err. s.mu is held.
func (st *muxed) end(err error) {
	if st.ended {
		return
	}
	st.leave()
	if st.broken == nil && st.sent > 0 && !st.received && !st.wasReset {
		st.breakOff(st.unsettled(err))
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
}

// leave removes the stream from the table. s.mu is held.
func (st *muxed) leave() {
	st.ended = true
	delete(st.s.streams, st.id)
	switch {
	case !st.mine:
		st.s.theirsKept--
	case st.id != 0:
		st.s.mineKept--
	}
	st.s.forgetReceipts(st)
	st.uncount()
	st.writeDue.Stop()
	if st.bulk && st.queued {
		st.s.releaseHeld((*writing)(st))
	}
	st.s.stirLocked()
	st.s.checkIdle()
}

// uncount releases the stream's place in MaxStreams, once. s.mu is held.
func (st *muxed) uncount() {
	if st.parted {
		return
	}
	st.parted = true
	if st.mine {
		st.s.mine--
	} else {
		st.s.theirsOpen--
	}
}

// leaveIfDone releases the stream's place once both directions have ended. It removes the stream from the table once the peer is known to
// have all of this side's data. s.mu is held.
func (st *muxed) leaveIfDone() {
	if !st.finSent || !st.peerFin || st.ended {
		return
	}
	st.uncount()
	if st.received {
		st.leave()
	}
}

// onReceived records that the peer's session has the whole writing direction. s.mu is held.
func (st *muxed) onReceived() {
	st.received = true
	st.leaveIfDone()
}

// breakOff notes why bytes that had been sent were dropped. Session.Close names a stream that the application has not closed. s.mu is held.
func (st *muxed) breakOff(err *Error) {
	st.broken = err
	if !st.closed && !st.wasReset {
		st.s.noteLost(st, err)
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
			st.s.noteLost(st, st.broken)
		}
	}
	st.end(st.ending(err))
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
	st.s.moved++
	now := st.s.elapsed()
	st.flight.least, st.flight.leastAt = max(1, now-st.askedAt), now
	close(st.opened)
	if st.s.asked {
		st.askFin() // Close was called before the peer accepted
	}
	st.s.stirLocked()
	return nil
}

// onReset ends the stream at the peer's request. s.mu is held.
func (st *muxed) onReset(f frame.Failure) {
	err := remote(f)
	err.Op, err.Peer, err.Link = "stream", st.s.peer, st.name
	if st.sent > 0 && st.broken == nil {
		st.breakOff(st.unsettled(err))
	}
	st.end(err)
	st.in.fail(err, dropUnread)
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
	st.askFin()
	return nil
}

// CloseRead implements Stream.
func (st *muxed) CloseRead() error {
	fin, unread := st.in.stop()
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if unread {
		st.sayUnread()
	} else if !fin && !st.ended && !st.peerFin {
		st.s.controlFailure(frame.TypeStreamStop, st.id, frame.Failure{Code: codes.ReadClosed})
	}
	return nil
}

// Close implements Stream.
func (st *muxed) Close() error {
	st.s.mu.Lock()
	if !st.closed {
		st.closed, st.userEnded = true, true
		st.writeErr = net.ErrClosed
		st.cutWrite()
		st.askFin()
	}
	st.s.mu.Unlock()
	_ = st.CloseRead() // never fails
	return st.awaitReceived()
}

// cutWrite ends a Write in progress and drops its unsent data. s.mu is held.
func (st *muxed) cutWrite() {
	if st.writeErr == nil && len(st.out) > 0 {
		st.writeErr = st.ending(st.s.leaving)
	}
	st.out = nil
	st.offer()
	st.writable.Broadcast()
}

// awaitReceived waits until the peer's session has the written data, its end included.
func (st *muxed) awaitReceived() error {
	s := st.s
	settled := func() bool { return st.received || st.ended || st.sent == 0 }
	done := s.awaitProgress(settled, st.closeProgress)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case st.broken != nil:
		s.forgetLost(st) // the caller has the error
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

// closeProgress is progress of Close. Once the end has left, a peer that acknowledges bytes has that as its last word to give: what else
// moves on the session does not count, or a peer that never answers the PING could hold up Close. s.mu is held.
func (st *muxed) closeProgress() uint64 {
	s := st.s
	switch {
	case st.finSent && s.flow != nil:
		return st.sent + min(s.flow.Acked(), st.finAt)
	case len(st.out) > 0 && st.credit == 0:
		return st.sent
	}
	return st.sent + s.progress()
}

// Reset implements Stream.
func (st *muxed) Reset(code codes.Code) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.s.forgetLost(st)
	if !st.ended {
		st.s.controlFailure(frame.TypeStreamReset, st.id, frame.Failure{Code: code})
		st.wasReset = true
		st.end(net.ErrClosed)
	}
	st.in.fail(net.ErrClosed, dropUnread)
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
