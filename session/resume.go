package session

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/resume"
)

// A session on a resume.Flow outlives its carriers (spec 7):
//
//	carrier fails ── onLost ──> detached ── dialing side: redial ── open, hello, Attach ──> resumed
//	                               └─ no carrier within the ResumeWindow, or session unknown to the peer ──> ended
//	Reconnect ── open, hello while the old carrier lives, Attach ──> migrated
//
// The flow holds the data that the session has written and the peer has not acknowledged, so everything above it continues without
// interruption. Without a flow, the end of the carrier is the end of the session.

// flowConn is a carrier in the form that the flow uses.
type flowConn struct {
	net.Conn          // sealed when there is a key
	raw      net.Conn // what Session.Conn returns
	tap      *tap     // between the two; nil when there is no key
}

// resumeWindow returns how long both sides keep a detached session.
func (s *Session) resumeWindow(theirs uint32) time.Duration {
	if theirs == 0 {
		return s.cfg.ResumeWindow
	}
	return min(s.cfg.ResumeWindow, time.Duration(theirs)*time.Millisecond)
}

// newFlow puts the session on a flow. c becomes the flow's first carrier.
func (s *Session) newFlow(c carrier) {
	s.keptFor = s.resumeWindow(c.theirs.ResumeWindow)
	s.flow = resume.NewFlow(resume.FlowConfig{
		Window: s.cfg.ReplayWindow, ResumeWindow: s.keptFor, Unasked: s.cfg.unasked(),
		OnLost: s.onLost, OnSettled: s.onSettled, Drop: s.dropCarrier,
	})
	s.conn = s.flow
	s.kick = make(chan struct{}, 1)
	s.moving = make(chan struct{}, 1)
	s.first = c.forFlow()
}

// startFlow attaches the flow's first carrier, once everything needed to handle its loss exists.
func (s *Session) startFlow() {
	if s.flow != nil {
		_ = s.flow.Attach(s.first, 0, false) // a new flow accepts its first carrier; a closed one reports that itself
	}
}

// dropCarrier ends a carrier that the flow has given up, or that ends with the session.
func (s *Session) dropCarrier(conn net.Conn) {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	code := codes.Cancelled
	if err != nil {
		code = dropCode(err)
	}
	drop(conn.(*flowConn).raw, code)
}

// awaitCarriers waits, after the session has ended, until no goroutine uses a carrier any more.
func (s *Session) awaitCarriers() {
	<-s.finished
	if s.flow != nil {
		s.closeListener()
	}
	s.redials.Wait()
	if s.flow != nil {
		s.flow.Wait()
	}
}

// onSettled records the carrier that is now the session's only one.
func (s *Session) onSettled(conn net.Conn) {
	raw := conn.(*flowConn).raw
	s.mu.Lock()
	first := !s.settled
	s.settled = true
	if s.flow.Carrier() != conn { // it has failed already, or another has followed: separate calls report that
		s.mu.Unlock()
		return
	}
	s.raw.Store(&raw)
	if s.err == nil && !first {
		s.setScarce(isScarce(raw))
		s.heartbeat.onCarrier()
		for _, st := range s.streams {
			st.flight.move(s.elapsed())
		}
		if s.state != StateDetached && !s.inOrder { // onLost has not run yet
			s.setState(StateDetached, s.lost("carrier", errSuperseded))
		}
		if s.state == StateDetached {
			s.setState(StateResumed, nil)
		} else {
			s.setState(StateMigrated, nil)
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
	if s.flow.Attached() { // another carrier was attached before this call
		s.mu.Unlock()
		return
	}
	if s.err == nil && s.state != StateDetached {
		s.setState(StateDetached, s.lost("carrier", err))
	}
	if s.err == nil && s.dialer && !s.redialing {
		s.redialing = true
		s.redials.Go(s.redial)
	}
	detached := s.state == StateDetached
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
	if s.isParted() {
		return s.leaving
	}
	if errors.Is(err, ErrClosed) {
		return s.lost("session", err)
	}
	if s.leaving != nil && s.phase < phaseClosing && !s.unsettled() && (s.idleShut || s.peerPhase >= phaseDraining) {
		if unacked, _ := s.flow.Kept(); unacked == 0 {
			return s.leaving
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
	for {
		err := s.cfg.Backoff.Retry(s.ctx, s.kick, s.reattach, isFinal)
		if err != nil && s.ctx.Err() == nil {
			s.fail(s.refusedResume(err))
		}
		s.mu.Lock()
		if s.err != nil || s.flow.Attached() {
			s.redialing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock() // lost again, while onLost saw that this goroutine is running
	}
}

// refusedResume returns the error of a session that cannot continue, according to the peer or the flow.
func (s *Session) refusedResume(err error) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, ErrClosed) {
		return s.lost("session", err)
	}
	if s.leaving != nil {
		return s.leaving
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

// isFinal reports whether err means that no further attempt to resume can succeed: the peer has refused the session permanently, or the
// Opener is closed.
func isFinal(err error) bool {
	if errors.Is(err, resume.ErrProtocol) || errors.Is(err, ErrClosed) {
		return true
	}
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case codes.PSKTampered, codes.Version:
		return true
	case codes.NotFound, codes.Unsupported, codes.Protocol, codes.NotAllowed, codes.GoingAway,
		codes.PSKRequired, codes.PSKMismatch, codes.PSKReplayed, codes.PSKUnexpected:
		return e.refused || e.Remote && e.Op == "hello" && e.Code == codes.GoingAway
	}
	return false
}

// maxReattach bounds one attempt to open a carrier, without its hello. libp2p takes up to 15 s for eight addresses that do not answer, and
// as long again for the next eight.
const maxReattach = 30 * time.Second

// reattach opens a carrier and moves the session to it, unless the session is no longer detached when its turn comes.
func (s *Session) reattach(ctx context.Context) error {
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer s.giveTurn()
	if s.flow.Attached() {
		return nil
	}
	return s.move(ctx, Want{})
}

// takeTurn waits until no other carrier is being opened or, on the accepting side, accepted.
func (s *Session) takeTurn(ctx context.Context) error {
	select {
	case s.moving <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return s.Err()
	}
}

func (s *Session) giveTurn() { <-s.moving }

// move opens a carrier, does its hello and attaches it.
func (s *Session) move(ctx context.Context, want Want) error {
	ctx, cancel := context.WithTimeout(ctx, maxReattach)
	defer cancel()
	want.Lost = s.State() == StateDetached
	conn, err := s.callOpener(ctx, want)
	if err != nil {
		return err
	}
	received, live := s.flow.Received()
	if !live {
		if err := s.flow.Pause(); err != nil {
			drop(conn, codes.Cancelled)
			return err
		}
		s.onLost(errSuperseded) // it may have been moving to another carrier: if that fails, the session has none
		received, _ = s.flow.Received()
	}
	s.attempt++
	c, err := greet(ctx, conn, s.peer, &frame.Hello{Role: frame.RoleResume, SessionID: s.id,
		Resume: &frame.Resume{Received: received, Attempt: s.attempt, Live: live}}, &s.cfg)
	if err != nil {
		return err
	}
	return s.attach(c, c.theirs.Resume.Received, live && c.theirs.Resume.Live)
}

// attach puts the session on a further carrier whose hello is complete.
func (s *Session) attach(c carrier, received uint64, inOrder bool) error {
	s.mu.Lock()
	s.inOrder = inOrder
	s.mu.Unlock()
	return s.flow.Attach(c.forFlow(), received, inOrder)
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
	if s.flow == nil || !s.dialer {
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
	err := s.flow.AwaitSettled(ctx) // of an earlier move
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
	case s.kick <- struct{}{}:
	default:
	}
}

// AwaitCarrier waits until the session is on a carrier. The error matches ctx's, or is why the session has ended.
func (s *Session) AwaitCarrier(ctx context.Context) error {
	for {
		s.mu.Lock()
		state, changed, err := s.state, s.awaitChange(), s.err
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

// answerResume accepts a further carrier for a session.
func (a *Acceptor) answerResume(h *frame.Hello, ack func(*frame.Hello) (carrier, error), peer string) (func(), error) {
	s := a.find(h.SessionID)
	if s == nil || s.peer != peer || s.flow == nil { // only its own peer may name a session
		return nil, &Error{Code: codes.NotFound, Text: "no such session"}
	}
	ctx, cancel := context.WithTimeout(s.ctx, a.cfg.HandshakeTimeout)
	defer cancel()
	if err := s.takeTurn(ctx); err != nil {
		return nil, &Error{Code: codes.Unavailable, RetryAfter: retryHint, Text: "another carrier is being taken"}
	}
	defer s.giveTurn()
	if h.Resume.Attempt <= s.attempt {
		return nil, &Error{Code: codes.Unavailable, Text: "a later attempt has been made"}
	}
	s.attempt = h.Resume.Attempt
	if h.Resume.Live {
		_ = s.flow.AwaitSettled(ctx) // the end of an earlier move may be in progress; if it does not come, this is no move
	}
	received, live := s.flow.Received()
	if live = live && h.Resume.Live; !live {
		if err := s.flow.Pause(); err != nil {
			return nil, &Error{Code: codes.NotFound, Text: "no such session"}
		}
		s.onLost(errSuperseded)
		received, _ = s.flow.Received()
	}
	c, err := ack(&frame.Hello{Resume: &frame.Resume{Received: received, Attempt: s.attempt, Live: live}})
	if err != nil {
		return nil, err
	}
	if err := s.attach(c, h.Resume.Received, live); errors.Is(err, resume.ErrProtocol) {
		s.fail(s.violated(err))
	}
	return func() {}, nil
}

// errSuperseded is the reason for giving up a carrier that the other side has lost, or that has ended in order.
var errSuperseded = errors.New("the peer goes on over another carrier")
