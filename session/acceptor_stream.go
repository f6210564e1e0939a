package session

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/lively"
	"github.com/peerlane/peerlane/resume"
)

// admitStream decides whether to accept a dedicated stream, from its hello, and takes its place among the session's streams.
func (a *Acceptor) admitStream(h *frame.Hello, s *Session) (st *Stream, serve func(*Stream), err error) {
	serve, refusal := a.cfg.Mux.stream(h.Name)
	if refusal.Code != codes.OK {
		return nil, nil, &Error{Code: refusal.Code, RetryAfter: refusal.RetryAfter, Text: refusal.Text}
	}
	s.mu.Lock()
	crowded := s.shared.handlers >= 2*s.cfg.MaxStreams
	s.mu.Unlock()
	if crowded {
		return nil, nil, &Error{Code: codes.Unavailable, RetryAfter: retryHint, Text: "too many handlers of ended streams still run"}
	}
	st = &Stream{s: s, name: h.Name, dedicated: true}
	if err := s.addDedicated(st); err != nil {
		err.Code = cmp.Or(err.Code, codes.GoingAway) // a REFUSE needs a code
		return nil, nil, err
	}
	if h.Number != 0 && h.Resumable == 0 && s.exchangesEnds() && !s.takeNumber(st, h.Number) {
		s.forgetDedicated(st)
		return nil, nil, &Error{Code: codes.Protocol, Text: "the number of this stream is another one's"}
	}
	return st, serve, nil
}

// takeNumber registers the ends of a stream that the peer has numbered, and reports whether the number is new.
func (s *Session) takeNumber(st *Stream, number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dedicated.numbered[number] != nil || s.dedicated.arrivals[number] != nil {
		return false
	}
	s.addEndsLocked(st, number)
	return true
}

// answerStream opens a dedicated stream of a session, or accepts a further carrier of one. timed ends the time limit of the hello. The
// bytes that follow HELLO have as much time again, while the session is heard.
func (a *Acceptor) answerStream(conn net.Conn, h *frame.Hello, ack func(*frame.Hello) (carrier, error), peer string, timed func() bool) (func(), error) {
	s := a.find(h.SessionID)
	if s == nil || s.peer != peer { // only its own peer may name a session, and no other peer may learn that it exists
		return nil, &Error{Code: codes.NotFound, Text: "no such session"}
	}
	accept := func() (carrier, error) {
		timed()
		defer s.boundHeard(conn, a.cfg.HandshakeTimeout)()
		c, err := ack(&frame.Hello{})
		if err == nil && a.cfg.Keys != nil {
			err = c.awaitStart()
		}
		return c, err
	}
	if h.Resumable != 0 {
		return a.answerResumable(conn, h, accept, s)
	}
	st, serve, err := a.admitStream(h, s)
	if err != nil {
		return nil, err
	}
	c, err := accept()
	if err != nil {
		s.forgetDedicated(st)
		return nil, err
	}
	return func() {
		s.touch()
		if st.attach(c, s.Conn()) == nil {
			s.serveDedicated(serve, st)
		}
	}, nil
}

// boundHeard makes conn fail once the session has been heard for d. stop removes the bound.
func (s *Session) boundHeard(conn net.Conn, d time.Duration) (stop func()) {
	ping := func(ctx context.Context) error {
		_, err := s.Ping(ctx)
		return err
	}
	end := lively.After(d, ping, func() { _ = conn.SetDeadline(deadline.Past) }) // wakes the hello
	return func() {
		end()
		_ = conn.SetDeadline(time.Time{}) // the time may just have been over
	}
}

// awaitStart reads sealedStart.
func (c carrier) awaitStart() error {
	var b [1]byte
	if _, err := io.ReadFull(c.sealed, b[:]); err != nil {
		return fmt.Errorf("no proof that the hello is fresh: %w", err)
	}
	return nil
}

// answerResumable accepts a carrier of a resumable stream. accept sends the ACK.
func (a *Acceptor) answerResumable(raw net.Conn, h *frame.Hello, accept func() (carrier, error), s *Session) (func(), error) {
	if !s.resumesStreams() {
		return nil, &Error{Code: codes.Unsupported, Text: "the streams of this session end with their carriers"}
	}
	l, err := s.streamListener()
	if err != nil {
		return nil, &Error{Code: codes.NotFound, Text: "no such session"}
	}
	if h.Resumable == frame.ResumableNew {
		return a.answerNew(raw, h, accept, s, l)
	}
	c, err := accept()
	if err != nil {
		return nil, err
	}
	conn, err := l.Serve(c.forFlow())
	if conn != nil {
		conn.Abort(&streamReset{codes.Protocol})
		<-conn.Done()
		err = fmt.Errorf("a new stream on what was to be a further carrier: %w", frame.ErrMalformed)
	}
	return func() {}, err
}

// answerNew opens a resumable stream, or continues the opening of one.
func (a *Acceptor) answerNew(raw net.Conn, h *frame.Hello, accept func() (carrier, error), s *Session, l *resume.Listener) (func(), error) {
	at, err := s.arrive(h.Number, raw)
	if err != nil {
		return nil, err
	}
	if at.conn != nil {
		return answerAgain(at, accept)
	}
	st, serve, err := a.admitStream(h, s)
	if err != nil {
		s.opened(at, nil)
		return nil, err
	}
	st.arrival = at
	c, err := accept()
	var conn *resume.Conn
	if err == nil {
		conn, err = l.Serve(c.forFlow())
	}
	s.opened(at, conn)
	if conn == nil { // refused, or it resumed another stream, which is counted already
		s.forgetDedicated(st)
		return func() {}, err
	}
	return func() {
		s.touch()
		if st.attachResumable(conn) == nil {
			s.serveDedicated(serve, st)
		}
	}, nil
}

// answerAgain continues the opening of an existing stream, or reports how it ended.
func answerAgain(at *arrival, accept func() (carrier, error)) (func(), error) {
	c, err := accept()
	if err != nil {
		return nil, err
	}
	at.s.mu.Lock()
	over, code := at.over, at.code
	at.s.mu.Unlock()
	if over {
		return func() { drop(c.raw, frame.LastWord+code) }, nil
	}
	return func() {}, at.conn.ForSession().ServeAgain(c.forFlow())
}
