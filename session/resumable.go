package session

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/backoff"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/resume"
)

// A dedicated stream that outlives its carriers is a resume.Conn (spec 5.11):
//
//	dialing side                                        accepting side
//	openResumable ── open, hello, seal ── NEW ────────> answerResumable ── Listener.Serve ──> a new Stream, and its handler
//	carrier lost, session moved ── the same ── RESUME > answerResumable ── Listener.Serve ──> the existing Conn
//
// It stays among the session's dedicated streams until the Conn has ended: after Close, until the written data has arrived.

// maxStreamPatience is the longest ResumeWindow of a resume.Conn.
const maxStreamPatience = 7 * 24 * time.Hour

// resumesStreams reports whether both sides let a dedicated stream outlive its carrier.
func (s *Session) resumesStreams() bool {
	return s.carriers.flow != nil && s.caps&frame.CapResumeStreams != 0
}

// streamOptions returns the options shared by the resumable streams of the session. timeout bounds each hello.
func (s *Session) streamOptions(timeout time.Duration) *resume.Options {
	o := &resume.Options{
		Window: s.cfg.ReplayWindow, ResumeWindow: min(max(s.carriers.keptFor, time.Millisecond), maxStreamPatience),
		HandshakeTimeout: timeout, Heartbeat: -1, Backoff: s.cfg.Backoff,
		MaxConns: s.cfg.MaxStreams, MaxDetached: s.cfg.MaxStreams,
		Drop: dropStream, Final: s.lastWord,
	}
	s.boundStreams(o)
	o.CloseTimeout = o.ResumeWindow
	if s.cfg.Heartbeat > 0 {
		o.Heartbeat = max(s.cfg.HeartbeatTimeout/2, time.Millisecond)
	}
	return o
}

// boundStreams makes the resumable streams of a session that the peer has opened keep and hold no more than the peer's share.
func (s *Session) boundStreams(o *resume.Options) {
	if s.dialer {
		return
	}
	f := noneLeft[fair.Bytes]
	o.InBudget((*memory)(s.part), arrived{(*memory)(s.part)},
		&Error{Op: "stream", Peer: s.peer, Code: f.Code, RetryAfter: f.RetryAfter, Text: f.Text, Err: &streamReset{f.Code}})
}

// openResumable opens a dedicated stream that outlives its carriers.
func (s *Session) openResumable(ctx context.Context, name string) (*Stream, error) {
	if !s.resumesStreams() {
		return nil, &Error{Op: "open stream", Peer: s.peer, Link: name, Outcome: NotSent, Code: codes.Unsupported,
			Text: "only a session that both sides keep without a carrier has streams that outlive theirs, and only with peers that know them"}
	}
	st := &Stream{s: s, name: name, dedicated: true}
	if err := s.addDedicated(st); err != nil {
		return nil, err
	}
	conn, err := s.dialResumable(ctx, name, s.nextNumber())
	if err != nil {
		s.forgetDedicated(st)
		if st := s.openedAndReset(name, err); st != nil {
			return st, nil
		}
		return nil, s.notOpened(name, err)
	}
	s.touch()
	if err := st.attachResumable(conn); err != nil {
		return nil, err
	}
	return st, nil
}

// dialResumable opens the resume.Conn of a resumable stream. It retries an opening that is cut, until ctx ends or the peer would have
// given up an open stream. number tells the peer that it is the same stream. If number is 0 and the peer may have begun to serve the
// stream, dialResumable does not retry.
func (s *Session) dialResumable(ctx context.Context, name string, number uint64) (conn *resume.Conn, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	var cutAt time.Time // when the first attempt was cut; zero: none was
	arrived := false    // the peer may serve it
	attempt := func(ctx context.Context) (err error) {
		conn, err = s.tryResumable(ctx, name, number)
		arrived = arrived || err != nil && mayHaveArrived(err)
		return err
	}
	final := func(err error) bool {
		switch {
		case s.Err() != nil || !s.wasCut(err, !cutAt.IsZero()), number == 0 && mayHaveArrived(err):
			return true
		case cutAt.IsZero():
			cutAt = time.Now()
		}
		return time.Since(cutAt) >= s.carriers.keptFor
	}
	err = backoff.Backoff(s.cfg.Backoff).Retry(ctx, nil, attempt, final)
	if err != nil && arrived && !mayHaveArrived(err) { // whatever became of the last attempt
		err = &Error{Op: "hello", Outcome: Unknown, Err: err}
	}
	return conn, err
}

// wasCut reports whether a stream's opening failed with err because there was no carrier or the carrier broke. before says that an
// earlier attempt was cut. A refusal by the peer or a timeout of the caller is not a cut.
func (s *Session) wasCut(err error, before bool) bool {
	var e *Error
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return false
	case errors.Is(err, io.ErrUnexpectedEOF): // the connection ended under it, whatever code it was closed with
		return true
	case errors.As(err, &e):
		if e.Remote && !e.refused && e.Code == codes.Cancelled { // the peer saw the carrier break first
			return true
		}
		if e.Remote || e.Code != codes.OK {
			return false
		}
		return e.Op == "hello" || e.Outcome != NotSent || before || s.State() == StateDetached
	}
	return !errors.Is(err, resume.ErrProtocol) && !errors.Is(err, resume.ErrStranger) && !errors.Is(err, resume.ErrVersion) &&
		!errors.Is(err, resume.ErrBusy) && !errors.Is(err, resume.ErrInvalid)
}

// mayHaveArrived reports whether the peer may have received the hello of an opening that failed with err.
func mayHaveArrived(err error) bool {
	var e *Error
	return !errors.As(err, &e) || !e.refused && (e.Outcome != NotSent || e.Op == "hello")
}

// tryResumable makes one attempt to open the resume.Conn of a resumable stream.
func (s *Session) tryResumable(ctx context.Context, name string, number uint64) (*resume.Conn, error) {
	var carriers atomic.Uint64
	var lost atomic.Bool
	o := s.streamOptions(maxReattach + s.cfg.HandshakeTimeout)
	o.OnState = func(c resume.StateChange) { lost.Store(c.State == resume.StateDetached) }
	return resume.DialContext(ctx, func(ctx context.Context) (net.Conn, error) {
		h := &frame.Hello{Role: frame.RoleStream, SessionID: s.id, Name: name, Resumable: frame.ResumableAgain}
		if carriers.Add(1) == 1 {
			h.Resumable, h.Number = frame.ResumableNew, number
		}
		return s.openStreamCarrier(ctx, Want{Lost: lost.Load() || s.State() == StateDetached}, h)
	}, o)
}

// openStreamCarrier opens a carrier of a resumable stream and does the session's part of its hello.
func (s *Session) openStreamCarrier(ctx context.Context, want Want, h *frame.Hello) (net.Conn, error) {
	if err := s.beginRedial(); err != nil {
		return nil, err
	}
	defer s.carriers.work.Done()
	conn, err := s.openCarrier(ctx, want)
	if err != nil {
		return nil, &Error{Outcome: NotSent, Err: err}
	}
	defer func() { <-s.dedicated.greeting }()
	c, err := greet(ctx, conn, s.peer, h, &s.cfg)
	if err != nil {
		return nil, err
	}
	if s.cfg.Keys != nil {
		stop := boundHandshake(ctx, conn, s.cfg.HandshakeTimeout)
		_, err = c.sealed.Write([]byte{sealedStart})
		if !stop() && err == nil {
			err = ctx.Err()
		}
	}
	if err != nil {
		drop(conn, codes.Cancelled)
		return nil, &Error{Err: err}
	}
	return c.forFlow(), nil
}

// beginRedial counts a carrier that is being opened, so that the session's end waits for it. It fails if the session has ended.
func (s *Session) beginRedial() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return &Error{Outcome: NotSent, Code: s.err.Code, Err: s.err.cause()}
	}
	s.carriers.work.Add(1)
	return nil
}

// notOpened returns the error of a resumable stream whose opening failed with err.
func (s *Session) notOpened(name string, err error) error {
	failed := &Error{Err: err}
	var e *Error
	switch {
	case errors.As(err, &e):
		*failed = *e
		switch {
		case !e.Remote && e.Op == "hello":
			failed.Outcome = Unknown // HELLO may have arrived
		case e.Remote && e.Code >= frame.LastWord: // served and reset while this session ends
			failed.Code, failed.Outcome = e.Code-frame.LastWord, Unknown
		}
	case errors.Is(err, resume.ErrBusy):
		failed.Code, failed.Outcome, failed.RetryAfter = codes.Unavailable, NotSent, retryHint
	case errors.Is(err, resume.ErrInvalid):
		failed.Outcome = NotSent
	}
	if end := s.ending(); end != nil {
		*failed = Error{Outcome: failed.Outcome, Code: end.Code, Err: end.cause()}
	}
	failed.Op, failed.Peer, failed.Link = "open stream", s.peer, name
	return failed
}

// attachResumable makes conn the stream's connection, or ends conn if the session has ended meanwhile.
func (st *Stream) attachResumable(conn *resume.Conn) error {
	s := st.s
	s.mu.Lock()
	refused := s.err != nil
	var err *Error
	if refused {
		delete(s.dedicated.open, st)
		err = s.refusalLocked("open stream", st.name)
		err.Outcome = Unknown // the peer has already answered
	} else {
		st.conn = &resumable{Conn: conn, s: s, name: st.name}
		st.announceLocked(true)
		s.carriers.work.Go(func() {
			<-conn.Done()
			st.noteUndelivered()
			s.forgetDedicated(st)
		})
		if s.end.endsStreams() { // Close has begun meanwhile
			s.endOneDedicatedLocked(st)
		}
	}
	s.checkIdleLocked()
	s.mu.Unlock()
	if !refused {
		return nil
	}
	conn.Abort(&streamReset{codes.Cancelled})
	<-conn.Done()
	return err
}

// noteUndelivered records the data of an ended stream that the peer is not known to have. A Stream.Close in progress may report it as
// well, but too late for Session.Close.
func (st *Stream) noteUndelivered() {
	if r := st.conn.(*resumable); r.lost() > 0 && !r.saysNothing() {
		st.noteUnread(&Error{Op: "stream", Peer: st.s.peer, Link: st.name, Code: codes.Closed, Outcome: Unknown, Text: r.lossText()})
	}
}

// streamListener returns the listener that assigns carriers to the resumable streams that the peer has opened.
func (s *Session) streamListener() (*resume.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if s.dedicated.listener == nil {
		l, err := resume.NewListener(nil, s.streamOptions(s.cfg.HandshakeTimeout))
		if err != nil {
			return nil, err
		}
		s.dedicated.listener = l
	}
	return s.dedicated.listener, nil
}

// closeListener ends the hellos of resumable streams, once the session has ended.
func (s *Session) closeListener() {
	s.mu.Lock()
	l := s.dedicated.listener
	s.mu.Unlock()
	if l != nil {
		_ = l.Close() // it has no listener below it that could fail
	}
}

// moveStreams moves the resumable streams of a session that has moved. It runs on the dialing side.
func (s *Session) moveStreams() {
	s.mu.Lock()
	var all []*resumable
	for st := range s.dedicated.open {
		if r, ok := st.conn.(*resumable); ok {
			all = append(all, r)
		}
	}
	s.mu.Unlock()
	for _, r := range all {
		_ = r.Reconnect() // a stream that has ended does not move
	}
}
