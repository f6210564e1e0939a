package session

import (
	"fmt"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// sharesCredit reports whether the data of all streams counts against a credit of the session.
func (s *Session) sharesCredit() bool { return s.caps&frame.CapCredit != 0 }

// admitStreamLocked reserves the memory that another stream of the peer needs at least, or returns why there is none.
func (s *Session) admitStreamLocked(st *muxed) frame.Failure {
	if !s.sharesCredit() {
		return frame.Failure{}
	}
	in, now := &s.shared.in, s.elapsed()
	asked := in.isCramped(now)
	f := in.reserve(now)
	if f.Code == codes.OK {
		st.admitted, st.in.room = true, in
		if st.mine {
			st.in.mine = &s.shared.account
			st.in.mine.add(bufferCost)
		}
	} else if !asked {
		s.askForCreditLocked()
	}
	return f
}

// beginCreditLocked grants credit for a stream that both sides know.
func (s *Session) beginCreditLocked() {
	if s.sharesCredit() {
		s.shared.in.begin(s.elapsed())
		s.tellCreditLocked()
	}
}

// closeInLocked notes that the peer sends no more on a stream.
func (s *Session) closeInLocked(st *muxed) {
	if st.admitted {
		st.admitted = false
		s.shared.in.closed(s.elapsed())
	}
}

// countDataLocked counts n bytes of STREAM_DATA against the session's credit, whether or not the stream takes them.
func (s *Session) countDataLocked(n int) error {
	if s.sharesCredit() && !s.shared.in.arrive(int64(n), s.elapsed()) {
		return fmt.Errorf("STREAM_DATA of %d bytes: %w", n, errBeyondCredit)
	}
	s.tellCreditLocked()
	return nil
}

// dropDataLocked grants n counted bytes again that belong to no stream.
func (s *Session) dropDataLocked(n int) {
	if s.sharesCredit() {
		s.shared.in.owe(n)
		s.settleLocked()
	}
}

// settleLocked grants again the bytes that were read or dropped.
func (s *Session) settleLocked() {
	if s.sharesCredit() {
		s.shared.in.settle(s.elapsed())
		s.tellCreditLocked()
	}
}

// tellCreditLocked makes the writer send the peer its new credit, and starts to watch for unused credit.
func (s *Session) tellCreditLocked() {
	if s.shared.in.due == 0 {
		return
	}
	s.out.wake.Signal()
	s.watchCreditLocked()
}

// creditDueLocked returns the granted credit that the peer has not been told yet.
func (s *Session) creditDueLocked() uint32 {
	if s.end.ours >= phaseOver && !s.exchangesEnds() {
		return 0 // GOAWAY is the last frame
	}
	return uint32(s.shared.in.due)
}

// appendCreditLocked appends a SESSION_CREDIT for the credit that is due.
func (s *Session) appendCreditLocked(b []byte) []byte {
	n := s.creditDueLocked()
	if n == 0 {
		return b
	}
	s.shared.in.due = 0
	return frame.AppendCredit(frame.AppendHeader(b, frame.Header{Length: 4, Type: frame.TypeSessionCredit}), n)
}

// watchCreditLocked makes sure that the peer is asked for unused credit when others want memory, and gets what it has less than the floor.
func (s *Session) watchCreditLocked() {
	if s.shared.asking || s.err != nil || !s.shared.in.needsLook() {
		return
	}
	s.shared.asking = true
	if s.shared.ask == nil {
		s.shared.ask = time.AfterFunc(askTime, s.shared.askAgain)
	} else {
		s.shared.ask.Reset(askTime)
	}
}

// asksLocked reports whether the peer should return credit that it does not use.
func (s *Session) asksLocked() bool {
	return s.err == nil && s.carriers.state != StateDetached && s.shared.in.mayAsk() && s.shared.in.isWanted(s.elapsed())
}

func (s *Session) askForCreditLocked() {
	if s.asksLocked() {
		s.controlLocked(frame.Header{Type: frame.TypeSessionAsk}, nil)
	}
}

// onSessionFrame handles the frames of the session's credit. s.mu is held.
func (s *Session) onSessionFrame(h frame.Header, p []byte) error {
	if !s.sharesCredit() {
		return fmt.Errorf("%v, which was not agreed on: %w", h.Type, frame.ErrMalformed)
	}
	if h.Type == frame.TypeSessionAsk {
		s.returnLocked(s.shared.purse.takeIdle())
		return nil
	}
	n, err := frame.ConsumeCredit(p)
	if err != nil {
		return err
	}
	if h.Type == frame.TypeSessionReturn {
		if !s.shared.in.back(int64(n), s.elapsed()) {
			return fmt.Errorf("%d bytes of credit that it does not have came back: %w", n, frame.ErrMalformed)
		}
		s.tellCreditLocked()
		s.watchCreditLocked()
		return nil
	}
	purse := &s.shared.purse
	if !purse.add(n) {
		return fmt.Errorf("credit of the session grows over %d: %w", frame.MaxTotal, frame.ErrTooLong)
	}
	s.returnAllLocked()
	s.offerCreditLocked()
	return nil
}

// returnLocked tells the peer that n bytes of its credit will not be used. They are not in the purse any more.
func (s *Session) returnLocked(n int64) {
	if n > 0 {
		s.controlLocked(frame.Header{Type: frame.TypeSessionReturn}, frame.AppendCredit(nil, uint32(n)))
	}
}

// returnAllLocked returns all credit if there is no stream to use it.
func (s *Session) returnAllLocked() {
	if p := &s.shared.purse; s.shared.ours+s.shared.theirs == 0 {
		s.returnLocked(p.left)
		p.left = 0
	}
}

// A place is a stream's in a line for credit of the session.
type place struct {
	st   *muxed
	turn uint64
}

func (p place) gaveUp() bool { return p.st.place.turn != p.turn }

// placed is a stream's current place.
type placed struct {
	in   *line[place] // one of sharedStreams, or nil if it does not wait
	turn uint64       // places of earlier turns are given up
}

// keepShareLocked notes how much of a stream is under way, for which the session's credit has a share.
func (st *muxed) keepShareLocked() {
	if !st.s.sharesCredit() {
		return
	}
	st.s.shared.purse.keep(&st.share, st.id != 0 && !st.finSent && !st.ended, st.flight.sent-st.flight.heard)
	if st.place.in != nil {
		st.waitForCreditLocked() // perhaps in the other line now
	}
	if !st.share.sends {
		st.s.offerCreditLocked() // others may use its share
	}
}

// creditLocked returns how much the stream may send by both credits. If it waits for that of the session, it stands in line for that.
func (st *muxed) creditLocked() int {
	if !st.s.sharesCredit() || st.credit == 0 {
		return st.credit
	}
	n := st.s.shared.purse.room(&st.share)
	switch {
	case n > 0:
		st.leaveLineLocked()
	case len(st.out) > 0 && !st.ended:
		st.waitForCreditLocked()
	}
	return min(st.credit, n)
}

// waitForCreditLocked puts a stream into the line for it: below if it has less than its share under way.
func (st *muxed) waitForCreditLocked() {
	in := &st.s.shared.short
	if st.share.kept > 0 {
		in = &st.s.shared.below
	}
	if st.place.in != in {
		st.leaveLineLocked()
		st.place.in = in
		in.push(place{st, st.place.turn})
	}
}

// leaveLineLocked removes a stream from those that wait for credit.
func (st *muxed) leaveLineLocked() {
	if in := st.place.in; in != nil {
		st.place.in = nil
		st.place.turn++
		in.leave()
	}
}

// offerCreditLocked makes waiting streams ready to send, until they can use all credit that is left. It runs again after each stream's turn. So a
// peer's grant of a few bytes costs little, however many streams wait.
func (s *Session) offerCreditLocked() {
	p := &s.shared.purse
	s.offerLineLocked(&s.shared.below, p.left)
	s.offerLineLocked(&s.shared.short, p.left-p.kept)
}

// offerLineLocked offers n bytes to the streams in a line.
func (s *Session) offerLineLocked(in *line[place], n int64) {
	for n > 0 && in.len() > 0 {
		st := in.pop().st
		st.place.in = nil
		if st.offerLocked(); st.queued {
			n -= int64(min(len(st.out), st.creditLocked(), st.flight.room()))
		}
	}
}
