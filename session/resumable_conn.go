package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/resume"
)

// resumable is a dedicated stream that outlives its carriers.
type resumable struct {
	payload
	*resume.Conn
	s      *Session
	name   string
	closed atomic.Bool
	reset  atomic.Bool           // the application has reset it
	got    atomic.Uint64         // bytes that the application has read
	wrote  atomic.Uint64         // bytes that the application has written, or is writing
	ended  atomic.Bool           // the application has ended its direction
	over   atomic.Bool           // Read has returned io.EOF
	cause  atomic.Pointer[Error] // why the session ended, if that ended the stream; nil otherwise
}

// streamReset is the reason for the end of a stream that this side has reset.
type streamReset struct{ code codes.Code }

func (r *streamReset) Error() string { return "stream reset: " + r.code.String() }
func (r *streamReset) Unwrap() error { return net.ErrClosed }

// Read implements Stream.
func (r *resumable) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if n > 0 {
		r.got.Add(uint64(n))
		r.s.activity.received.Store(int64(r.s.touch()))
	}
	if err == io.EOF {
		r.over.Store(true)
	}
	return n, r.because(err)
}

// Write implements Stream.
func (r *resumable) Write(p []byte) (int, error) {
	r.wrote.Add(uint64(len(p))) // before the peer can have it
	n, err := r.Conn.Write(p)
	r.wrote.Add(-uint64(len(p) - n))
	if n > 0 {
		r.s.touch()
	}
	return n, r.because(err)
}

// CloseWrite implements Stream.
func (r *resumable) CloseWrite() error {
	err := r.Conn.CloseWrite()
	if err == nil {
		r.ended.Store(true)
	}
	return r.because(err)
}

// saysNothing reports whether the application has neither written to the stream nor ended its direction.
func (r *resumable) saysNothing() bool { return r.wrote.Load() == 0 && !r.ended.Load() }

// because returns err as a session error.
func (r *resumable) because(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if cause := r.cause.Load(); cause != nil {
		return cause
	}
	failed := &Error{}
	var e *Error
	switch {
	case errors.As(err, &e):
		*failed = *e
		if end := r.s.ending(); end != nil && e.Code == codes.Cancelled { // the peer ended its session first
			*failed = Error{Peer: end.Peer, Code: end.Code, Err: end.cause()}
		}
	case errors.Is(err, resume.ErrProtocol):
		*failed = *r.s.violated(err)
	case errors.Is(err, resume.ErrLost):
		*failed = *r.s.lost("stream", err)
	default:
		return err
	}
	failed.Op, failed.Link = "stream", r.name
	return failed
}

// ending returns why the session has ended or is about to end the work in flight, or nil.
func (s *Session) ending() *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case s.end.ours >= phaseClosing || s.end.theirs >= phaseOver:
		return s.end.leaving
	}
	return nil
}

// Close implements Stream.
func (r *resumable) Close() error {
	r.closed.Store(true)
	_ = r.Conn.Close() // never fails
	r.ended.Store(true)
	if r.wrote.Load() == 0 {
		return nil // the end arrives in the background, or the session's Close waits for it
	}
	return r.await(r.isDone)
}

// closeWithSession ends the writing direction because the session is being closed, and waits until the peer has all of it. Received data
// can still be read.
func (r *resumable) closeWithSession() error {
	_ = r.Conn.CloseWrite() // if the stream has ended, await reports it
	watch := make(chan struct{})
	go func() {
		defer close(watch)
		_ = r.AwaitAcked() // Acked and lost report the result
		r.s.mu.Lock()
		defer r.s.mu.Unlock()
		r.s.stirLocked()
	}()
	err := r.await(func() bool {
		_, all := r.Acked()
		return all || r.isDone()
	})
	r.endWithSession(&Error{Op: "stream", Peer: r.s.peer, Link: r.name, Code: codes.Closed, Outcome: Unknown, Err: ErrClosed}, true)
	<-watch
	return err
}

// lost returns how many bytes of an ended stream the peer is not known to have. The end of the stream counts as one byte. lost returns 0
// if this side has reset the stream. A peer that has reset the stream does not need its end.
func (r *resumable) lost() int {
	left := r.Undelivered()
	var e *Error
	if r.reset.Load() || left == 1 && errors.As(r.Err(), &e) && e.Remote {
		return 0
	}
	return left
}

// lossText returns the text of an error about bytes, or an end, that the peer is not known to have.
func (r *resumable) lossText() string {
	wrote := r.wrote.Load()
	acked, _ := r.Acked()
	if r.isFramed() || acked >= wrote { // the end counts as one byte
		return unknownText(r.ofAll(wrote))
	}
	return knownText(acked, wrote)
}

// isDone reports whether the Conn has ended.
func (r *resumable) isDone() bool {
	select {
	case <-r.Done():
		return true
	default:
		return false
	}
}

// await waits until done returns true, and returns an error unless everything is known to have arrived.
func (r *resumable) await(done func() bool) error {
	s := r.s
	s.mu.Lock()
	s.end.closings++
	s.mu.Unlock()
	finished := s.awaitProgress(done, func() uint64 {
		n, _ := r.Acked()
		return n
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end.closings--
	s.checkIdleLocked()
	s.stirLocked()
	failed := &Error{Op: "stream", Peer: s.peer, Link: r.name, Outcome: Unknown, Text: r.lossText()}
	over := r.isDone() // asked first: from then on it is known what is lost
	_, all := r.Acked()
	left := r.lost()
	switch {
	case left == 0 && (all || over), r.saysNothing():
		return nil
	case finished || over:
		failed.Code = codes.Closed
	case s.err != nil:
		failed.Code, failed.Err = s.err.Code, s.err.cause()
	default:
		failed.Code, failed.Err = codes.Timeout, fmt.Errorf("no progress for %v", s.cfg.CloseTimeout)
	}
	return failed
}

// Reset implements Stream.
func (r *resumable) Reset(code codes.Code) error {
	r.closed.Store(true)
	r.reset.Store(true)
	if code == codes.OK || code == codes.Closed {
		code = codes.Cancelled // an orderly close would look like the end of the data
	}
	over := r.Err() != nil
	r.Abort(&streamReset{code})
	if over {
		_ = r.Conn.Close() // what can still be read goes, too
	}
	return nil
}

// endWithSession ends the stream with its session. If inOrder, received data can still be read.
func (r *resumable) endWithSession(cause *Error, inOrder bool) {
	if !r.closed.Load() {
		r.cause.Store(cause)
	}
	if inOrder {
		r.ForSession().End(net.ErrClosed)
	} else {
		r.Abort(&streamReset{codes.Cancelled})
	}
}

// dropStream ends a carrier of a stream: in order if the stream has ended in order, and otherwise by a reset whose code says whether the
// stream has ended too.
func dropStream(conn net.Conn, reason error) {
	c := conn.(*flowConn)
	var reset *streamReset
	switch {
	case reason == nil:
		drop(c.raw, codes.Cancelled)
	case errors.As(reason, &reset):
		drop(c.raw, frame.LastWord+reset.code)
	case errors.Is(reason, net.ErrClosed):
		_ = c.Close() // the stream has ended in any case
	case errors.Is(reason, resume.ErrProtocol):
		drop(c.raw, frame.LastWord+codes.Protocol)
	default:
		drop(c.raw, frame.LastWord+codes.Cancelled)
	}
}

// lastWord returns the error that a stream ends with when a carrier of it fails with err, or when another carrier is refused with err. It
// returns nil if the stream continues.
func (s *Session) lastWord(err error) error {
	var e *Error
	switch {
	case !errors.As(err, &e):
		return nil
	case e.Remote && e.Code >= frame.LastWord:
		return &Error{Op: "stream", Peer: s.peer, Remote: true, Code: e.Code - frame.LastWord}
	case isFinal(e):
		lost := s.lost("stream", e)
		if e.Code != codes.NotFound {
			lost.Code = e.Code
		}
		return lost
	}
	return nil
}
