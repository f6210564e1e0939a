package session

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/backoff"
	"github.com/peerlane/peerlane/internal/flow"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/resume"
)

// A session on a flow.Flow outlives its carriers (spec 7):
//
//	carrier fails ── onLost ──> detached ── dialing side: redial ── open, hello, Attach ──> resumed
//	                               └─ no carrier within the ResumeWindow, or session unknown to the peer ──> ended
//	Reconnect ── open, hello while the old carrier lives, Attach ──> migrated
//
// The flow holds the data that the session has written and the peer has not acknowledged, so everything above it continues without
// interruption. Without a flow, the end of the carrier is the end of the session.

// resumeWindow returns how long both sides keep a detached session.
func (s *Session) resumeWindow(theirs uint32) time.Duration {
	if theirs == 0 {
		return s.cfg.ResumeWindow
	}
	return min(s.cfg.ResumeWindow, time.Duration(theirs)*time.Millisecond)
}

// newFlow puts the session on a flow. c becomes the flow's first carrier.
func (s *Session) newFlow(c carrier) {
	s.carriers.keptFor = s.resumeWindow(c.theirs.ResumeWindow)
	s.carriers.flow = flow.New(&flow.Config{
		Window: s.cfg.ReplayWindow, ResumeWindow: s.carriers.keptFor, Unasked: s.cfg.unasked(),
		OnLost: s.onLost, OnSettled: s.onSettled, Drop: s.dropCarrier, Budget: s.budget(),
	})
	s.carriers.conn = s.carriers.flow
	s.carriers.kick = make(chan struct{}, 1)
	s.carriers.turn = make(chan struct{}, 1)
	s.carriers.first = c.forFlow()
}

// startFlow attaches the flow's first carrier, once everything needed to handle its loss exists.
func (s *Session) startFlow() {
	if s.carriers.flow != nil {
		_ = s.carriers.flow.Attach(s.carriers.first, 0, false) // a new flow accepts its first carrier; a closed one reports that itself
	}
}

// dropCarrier ends a carrier that the flow has given up, or that ends with the session.
func (s *Session) dropCarrier(conn net.Conn) {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	code := codes.Cancelled
	switch {
	case err != nil:
		code = dropCode(err)
	case errors.Is(s.carriers.flow.Err(), resume.ErrProtocol): // the session is about to end with it
		code = codes.Protocol
	}
	drop(conn.(*flowConn).raw, code)
}

// awaitCarriers waits, after the session has ended, until no goroutine uses a carrier any more.
func (s *Session) awaitCarriers() {
	<-s.finished
	if s.carriers.flow != nil {
		s.closeListener()
	}
	s.carriers.work.Wait()
	if s.carriers.flow != nil {
		s.carriers.flow.Wait()
	}
}

// onSettled records the carrier that is now the session's only one.
func (s *Session) onSettled(conn net.Conn) {
	raw := conn.(*flowConn).raw
	s.mu.Lock()
	first := s.carriers.first != nil
	s.carriers.first = nil
	if next := s.carriers.flow.Carrier(); next != conn { // it has failed already, or another has followed: separate calls report that
		if next != nil && s.err == nil && !first && s.carriers.inOrder {
			s.happenLocked(eventMoved, nil) // this move counts too
			s.carriers.history.conn = raw
		}
		s.mu.Unlock()
		s.tell()
		return
	}
	s.carriers.raw.Store(&raw)
	if s.err == nil && !first {
		s.setScarceLocked(isScarce(raw))
		s.heartbeat.onCarrier()
		for _, st := range s.shared.open {
			st.flight.move(s.elapsed())
		}
		if s.carriers.inOrder {
			s.happenLocked(eventMoved, nil)
		} else {
			s.happenLocked(eventReplaced, s.lost("carrier", errSuperseded))
		}
	}
	moved := s.err == nil && !first && s.dialer
	s.mu.Unlock()
	s.tell()
	if moved {
		s.moveStreams()
	}
}

// onLost records that the session has lost its carrier. The dialing side looks for another.
func (s *Session) onLost(err error) {
	if end := s.endOf(err); end != nil {
		s.fail(end)
		return
	}
	s.mu.Lock()
	if s.carriers.flow.Attached() { // another carrier was attached before this call
		s.mu.Unlock()
		return
	}
	if s.err == nil {
		s.happenLocked(eventLost, s.lost("carrier", err))
	}
	if s.err == nil && s.dialer && !s.carriers.redialing {
		s.carriers.redialing = true
		s.carriers.work.Go(s.redial)
	}
	detached := s.carriers.state == StateDetached
	s.mu.Unlock()
	s.tell()
	if detached && s.onDetached != nil {
		s.onDetached()
	}
}

// endOf returns why the session ends with a carrier that failed with err, or nil if it continues. The session ends if the two sides were
// about to part, if the peer has ended it with a code, or if this side has closed the source of its carriers.
func (s *Session) endOf(err error) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isPartedLocked() {
		return s.end.leaving
	}
	if errors.Is(err, ErrClosed) {
		return s.lost("session", err)
	}
	if s.end.leaving != nil && s.end.ours < phaseClosing && !s.unsettledLocked() && (s.end.isIdle() || s.end.theirs >= phaseDraining) {
		if unacked, _ := s.carriers.flow.Kept(); unacked == 0 {
			return s.end.leaving
		}
	}
	var e *Error
	if errors.As(err, &e) && e.Remote {
		switch e.Code {
		case codes.Protocol, codes.Unsupported, codes.FlowControl, codes.Internal, codes.Timeout:
			return s.lost("session", err)
		}
	}
	return nil
}

// redial looks for a new carrier until the session has one or has ended. It runs in its own goroutine while the session is detached, on the
// dialing side.
func (s *Session) redial() {
	attempt := func(n int) func(context.Context) error {
		return func(ctx context.Context) error {
			err := s.reattach(ctx)
			if n++; err != nil && !isFinal(err) && s.ctx.Err() == nil {
				s.hookRetry(n, err)
			}
			return err
		}
	}
	for {
		err := backoff.Backoff(s.cfg.Backoff).RetryAsked(s.ctx, s.carriers.kick, attempt(0), isFinal, hintOf)
		if err != nil && s.ctx.Err() == nil {
			s.fail(s.refusedResume(err))
		}
		s.mu.Lock()
		if s.err != nil || s.carriers.flow.Attached() {
			s.carriers.redialing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock() // lost again, while onLost saw that this goroutine is running
	}
}

// hintOf returns how long a peer that has refused a carrier asks to be left alone.
func hintOf(err error) time.Duration {
	var e *Error
	if !errors.As(err, &e) || !e.refused {
		return 0
	}
	return e.RetryAfter
}

// refusedResume returns the error of a session that cannot continue, according to the peer or the flow.
func (s *Session) refusedResume(err error) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, ErrClosed) {
		return s.lost("session", err)
	}
	if s.end.leaving != nil {
		return s.end.leaving
	}
	if errors.Is(err, resume.ErrProtocol) {
		return s.violated(err)
	}
	lost := s.lost("resume", err)
	var e *Error
	if errors.As(err, &e) && e.Code != codes.NotFound {
		lost.Code = e.Code
	}
	return lost
}

// reattach opens a carrier and moves the session to it, unless the session is no longer detached when its turn comes.
func (s *Session) reattach(ctx context.Context) error {
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer s.giveTurn()
	if s.carriers.flow.Attached() {
		return nil
	}
	return s.move(ctx, Want{})
}

// takeTurn waits until no other carrier is being opened or, on the accepting side, accepted.
func (s *Session) takeTurn(ctx context.Context) error {
	select {
	case s.carriers.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return s.Err()
	}
}

func (s *Session) giveTurn() { <-s.carriers.turn }

// move opens a carrier, does its hello and attaches it.
func (s *Session) move(ctx context.Context, want Want) error {
	ctx, cancel := context.WithTimeout(ctx, maxReattach)
	defer cancel()
	want.Lost = s.State() == StateDetached
	conn, err := s.callOpener(ctx, want)
	if err != nil {
		return err
	}
	received, live := s.carriers.flow.Received()
	if !live {
		if err := s.carriers.flow.Pause(); err != nil {
			drop(conn, codes.Cancelled)
			return err
		}
		s.onLost(errSuperseded) // it may have been moving to another carrier: if that fails, the session has none
		received, _ = s.carriers.flow.Received()
	}
	s.carriers.attempt++
	c, err := greet(ctx, conn, s.peer, &frame.Hello{Role: frame.RoleResume, SessionID: s.id,
		Resume: &frame.Resume{Received: received, Attempt: s.carriers.attempt, Live: live}}, &s.cfg)
	if err != nil {
		return err
	}
	return s.attach(c, c.theirs.Resume.Received, live && c.theirs.Resume.Live)
}

// checkReceived ends the session, and returns an error that matches resume.ErrProtocol, if the peer says that it has received more than has
// ever been sent.
func (s *Session) checkReceived(received uint64) error {
	sent := s.carriers.flow.Reached()
	if received <= sent {
		return nil
	}
	err := flow.ProtocolErrorf("the other side has received %d bytes of %d", received, sent)
	s.fail(s.violated(err))
	return err
}

// attach puts the session on a further carrier whose hello is complete.
func (s *Session) attach(c carrier, received uint64, inOrder bool) error {
	if err := s.checkReceived(received); err != nil {
		drop(c.raw, codes.Protocol)
		return err
	}
	s.mu.Lock()
	s.carriers.inOrder = inOrder
	s.mu.Unlock()
	return s.carriers.flow.Attach(c.forFlow(), received, inOrder)
}

// Reconnect moves the session to a new carrier and returns when the move is complete. While the old carrier lives, nothing waits for the
// move: each direction continues on the new carrier after its last byte on the old. A detached session looks for a carrier at once, however
// long its current wait is.
//
// The error is ErrUnsupported on the accepting side, and on a session that does not outlive its carrier. Otherwise it matches ctx's error,
// or is why the session has ended, or why no carrier was found; in the last case the session continues unchanged.
func (s *Session) Reconnect(ctx context.Context) error { return s.reconnect(ctx, Want{}) }

// ReconnectDirect is Reconnect to a connection without a relay. On a detached session it does the same as Reconnect.
func (s *Session) ReconnectDirect(ctx context.Context) error {
	return s.reconnect(ctx, Want{Direct: true})
}

func (s *Session) reconnect(ctx context.Context, want Want) error {
	if s.carriers.flow == nil || !s.dialer {
		return &Error{Op: "reconnect", Peer: s.peer, Code: codes.Unsupported,
			Text: "only the side that dialed a session moves it, and only when both sides keep it without a carrier"}
	}
	if s.State() == StateDetached {
		s.kickRedial()
		return s.AwaitCarrier(ctx)
	}
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer s.giveTurn()
	err := s.carriers.flow.AwaitSettled(ctx) // of an earlier move
	if err == nil {
		err = s.move(ctx, want)
	}
	if errors.Is(err, resume.ErrProtocol) {
		s.fail(s.violated(err))
	}
	if err != nil {
		return &Error{Op: "reconnect", Peer: s.peer, Err: err}
	}
	return nil
}

// kickRedial ends the wait of a redial.
func (s *Session) kickRedial() {
	select {
	case s.carriers.kick <- struct{}{}:
	default:
	}
}

// AwaitCarrier waits until the session is on a carrier. The error matches ctx's, or is why the session has ended.
func (s *Session) AwaitCarrier(ctx context.Context) error {
	for {
		s.mu.Lock()
		state, changed, err := s.carriers.state, s.awaitChangeLocked(), s.err
		s.mu.Unlock()
		switch {
		case err != nil:
			return err
		case state != StateDetached:
			return nil
		}
		select {
		case <-changed:
		case <-s.ended:
		case <-ctx.Done():
			return &Error{Op: "await carrier", Peer: s.peer, Err: ctx.Err()}
		}
	}
}

// errSuperseded is the reason for giving up a carrier that the other side has lost, or that has ended in order.
var errSuperseded = errors.New("the peer goes on over another carrier")
