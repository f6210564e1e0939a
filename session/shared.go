package session

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
)

// sharedStreams are the streams on the carrier.
type sharedStreams struct {
	open       map[uint64]*muxed // by id; see muxed
	ours       int               // streams opened by this side, including those not yet accepted
	theirs     int               // streams opened by the peer
	oursKept   int               // this side's streams in open, including ended ones whose end the peer has not acknowledged
	theirsKept int               // the same for the peer's streams
	handlers   int               // running stream handlers, including those of ended streams and of dedicated ones
	watch      *time.Timer       // of the streams' flights; nil before the first. See flights.go
	watching   bool              // it runs
	unasked    []*muxed          // streams whose data ends in a batch, with no receipt requested yet
	receipts   []receipt         // requested receipts, in order
	account    account           // what this side's streams hold unread

	in       allowance   // the peer's credit for all streams together: credit.go
	purse    purse       // this side's
	below    line[place] // streams that wait for it and have less than their share under way
	short    line[place] // others that wait for it
	askAgain func()      // what ask does
	ask      *time.Timer // looks at the peer's unused credit; nil before the first
	asking   bool        // it runs
}

// A receipt is a PING sent behind the end of a stream's data. Its PONG means that the peer's session has all of that data.
type receipt struct {
	ping uint64
	st   *muxed
}

// askReceiptLocked appends a PING for the streams whose data ends in this batch.
func (s *Session) askReceiptLocked(b []byte) []byte {
	s.out.lastPing++
	id := s.out.lastPing
	for _, st := range s.shared.unasked {
		s.shared.receipts = append(s.shared.receipts, receipt{id, st})
	}
	s.shared.unasked = s.shared.unasked[:0]
	return frame.AppendHeader(b, frame.Header{Type: frame.TypePing, ID: id})
}

// onReceipts handles the answer to the PING id and to all before it. s.mu is held.
func (s *Session) onReceipts(id uint64) {
	n := 0
	for n < len(s.shared.receipts) && s.shared.receipts[n].ping <= id {
		s.shared.receipts[n].st.onReceived()
		n++
	}
	if n > 0 {
		s.end.moved++
		s.shared.receipts = append(s.shared.receipts[:0], s.shared.receipts[n:]...)
		s.checkIdleLocked()
		s.stirLocked()
	}
}

// forgetReceiptsLocked forgets the receipts of a stream that has ended in another way.
func (s *Session) forgetReceiptsLocked(st *muxed) {
	if st.received || !st.finSent {
		return
	}
	s.shared.unasked = slices.DeleteFunc(s.shared.unasked, func(other *muxed) bool { return other == st })
	s.shared.receipts = slices.DeleteFunc(s.shared.receipts, func(r receipt) bool { return r.st == st })
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
	if err := s.refusalLocked("open stream", name); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	if s.shared.ours >= int(s.limits.MaxStreams) {
		s.mu.Unlock()
		return fail(&Error{Code: codes.Unavailable, Outcome: NotSent,
			Text: fmt.Sprintf("%d streams open, the peer takes no more", s.limits.MaxStreams)})
	}
	if s.shared.oursKept >= 2*int(s.limits.MaxStreams) {
		s.mu.Unlock()
		return fail(&Error{Code: codes.Unavailable, Outcome: NotSent, RetryAfter: retryHint,
			Text: fmt.Sprintf("the peer has not acknowledged the ends of %d streams", s.shared.oursKept-s.shared.ours)})
	}
	if f := s.admitStreamLocked(st); f.Code != codes.OK {
		s.mu.Unlock()
		err := failed(f)
		err.Outcome = NotSent
		return fail(err)
	}
	s.shared.ours++
	s.enqueueLocked((*opening)(st))
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

// onOpen handles the peer's OPEN. s.mu is held.
func (s *Session) onOpen(h frame.Header, p []byte) error {
	if len(p) == 0 || len(p) > frame.MaxName {
		return fmt.Errorf("stream name of %d bytes: %w", len(p), frame.ErrMalformed)
	}
	if err := s.acceptIDLocked(h.Type, h.ID); err != nil {
		return err
	}
	name := s.internLocked(p)
	serve, refusal := s.cfg.Mux.stream(name)
	switch {
	case s.end.ours >= phaseDraining, s.end.flushed != nil:
		refusal = frame.Failure{Code: codes.GoingAway}
	case refusal.Code != codes.OK:
	case s.shared.theirs >= s.cfg.MaxStreams:
		refusal = frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: "too many streams open"}
	case s.shared.theirsKept >= 2*s.cfg.MaxStreams:
		refusal = frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: "too many ends of streams are not acknowledged"}
	case s.shared.handlers >= 2*s.cfg.MaxStreams:
		refusal = frame.Failure{Code: codes.Unavailable, RetryAfter: retryHint, Text: "too many handlers of ended streams still run"}
	}
	st := newMuxed(s, name, false)
	if refusal.Code == codes.OK {
		refusal = s.admitStreamLocked(st)
	}
	if refusal.Code != codes.OK {
		s.noteRefused("stream", name, refusal)
		s.refuseLocked(frame.TypeStreamReset, h.ID, refusal)
		return nil
	}
	st.id, st.accepted, st.askedAt = h.ID, true, s.elapsed()
	st.keepShareLocked()
	s.shared.theirs++
	s.shared.theirsKept++
	s.shared.open[h.ID] = st
	s.beginCreditLocked()
	s.controlLocked(frame.Header{Type: frame.TypeStreamAccept, ID: h.ID}, nil)
	s.touch()
	s.shared.handlers++
	s.hookLane(st.asLane(), true)
	go s.serveStream(serve, &Stream{conn: st, s: s, name: name})
	return nil
}

// serveStream runs a stream's handler in its own goroutine, which ends when the handler does. When the handler returns, serveStream
// closes the stream; when it panics or ends its goroutine, serveStream resets it. A stream that the handler had closed stays closed, and
// its written data still arrives. The caller has counted the stream in s.streaming.
func (s *Session) serveStream(serve func(*Stream), st *Stream) {
	defer s.endServeStream()
	if f := s.awaitOpen(); f.Code != codes.OK {
		_ = st.Reset(f.Code) // the end of the session tells why
		return
	}
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
	s.end.closings++
	s.mu.Unlock()
	err := st.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endClosingLocked(st.conn, err)
}

func (s *Session) endServeStream() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared.handlers--
	s.checkIdleLocked()
}
