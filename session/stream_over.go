package session

import (
	"errors"
	"net"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// over is a stream that the peer has served and reset before this side knew that it was open. OpenStream returns it nevertheless, as it
// does when the reset arrives a moment later.
type over struct {
	s    *Session
	name string
	err  *Error // the error of calls
}

// openedAndReset returns the stream whose opening has failed with err, if err says that the peer has served and reset it: by the last word
// of a resumable stream, or by a reset with a code that only a handler's end has.
func (s *Session) openedAndReset(name string, err error) *Stream {
	var e *Error
	if !errors.As(err, &e) || !e.Remote || e.refused || e.Code < frame.LastWord && e.Code != codes.Internal || s.ending() != nil {
		return nil
	}
	code := e.Code
	if code >= frame.LastWord {
		code -= frame.LastWord
	}
	reset := &Error{Op: "stream", Peer: s.peer, Link: name, Remote: true, Code: code, Outcome: Unknown}
	return &Stream{s: s, name: name, dedicated: true, conn: &over{s, name, reset}}
}

// Read implements Stream.
func (o *over) Read([]byte) (int, error) { return 0, o.err }

// Write implements Stream.
func (o *over) Write([]byte) (int, error) { return 0, o.err }

// CloseWrite implements Stream.
func (o *over) CloseWrite() error { return o.err }

// CloseRead implements Stream.
func (o *over) CloseRead() error { return nil }

// Close implements Stream.
func (o *over) Close() error { return nil }

// Reset implements Stream.
func (o *over) Reset(codes.Code) error { return nil }

// LocalAddr implements Stream.
func (o *over) LocalAddr() net.Addr { return o.s.Conn().LocalAddr() }

// RemoteAddr implements Stream.
func (o *over) RemoteAddr() net.Addr { return o.s.Conn().RemoteAddr() }

// SetDeadline implements Stream.
func (o *over) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements Stream.
func (o *over) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements Stream.
func (o *over) SetWriteDeadline(time.Time) error { return nil }
