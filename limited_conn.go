package peerlane

import (
	"errors"
	"fmt"
	"net"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// A HalfCloser is a conn whose two directions can be closed one by one. *Conn is one, and so is what NewLimitedConn
// returns.
type HalfCloser interface {
	CloseWrite() error // the peer reads io.EOF after what was written; reading goes on
	CloseRead() error  // Reads fail with net.ErrClosed; writing goes on
}

var (
	_ HalfCloser = (*Conn)(nil)
	_ HalfCloser = (*limitedConn)(nil)
)

// NewLimitedConn returns a conn on which one message, that is the bytes of one Write or of one Read, is at most maxSize
// bytes on either side:
//
//   - a longer Write is refused as a whole: it returns 0 and an *Error that matches ErrTooLarge and whose Outcome is
//     NotSent, nothing is sent, and the conn stays usable;
//   - a Read into a larger buffer uses its first maxSize bytes only, whatever the peer wrote in one go.
//
// It limits messages, not the sum of them: any number of Writes may follow each other. With a maxSize below 1 every
// Read and Write fails with ErrInvalid. The result is a HalfCloser with a Reset as Conn has it, and its NetConn method
// returns conn. It panics when conn is nil.
func NewLimitedConn(conn net.Conn, maxSize int) net.Conn {
	if conn == nil {
		panic("peerlane: NewLimitedConn: conn is nil")
	}
	return &limitedConn{Conn: conn, maxSize: maxSize}
}

type limitedConn struct {
	net.Conn

	maxSize int // bytes of one Read or Write
}

func (l *limitedConn) Read(p []byte) (int, error) {
	if err := l.validate(); err != nil {
		return 0, l.opError("read", err)
	}
	return l.Conn.Read(p[:min(len(p), l.maxSize)])
}

func (l *limitedConn) Write(p []byte) (int, error) {
	if err := l.validate(); err != nil {
		return 0, l.opError("write", err)
	}
	if len(p) > l.maxSize {
		return 0, l.opError("write", &Error{
			Op:      "write",
			Code:    codes.TooLarge,
			Outcome: session.NotSent,
			Err:     fmt.Errorf("%d bytes in one Write, at most %d are allowed", len(p), l.maxSize),
		})
	}
	return l.Conn.Write(p)
}

func (l *limitedConn) validate() error {
	if l.maxSize < 1 {
		return invalidf("maxSize: %d is less than 1", l.maxSize)
	}
	return nil
}

func (l *limitedConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: Network, Source: l.LocalAddr(), Addr: l.RemoteAddr(), Err: err}
}

// NetConn returns the conn that is limited.
func (l *limitedConn) NetConn() net.Conn { return l.Conn }

// CloseWrite closes the write side of the limited conn; a conn that cannot gives errors.ErrUnsupported.
func (l *limitedConn) CloseWrite() error {
	if c, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return l.opError("close", errors.ErrUnsupported)
}

// CloseRead closes the read side of the limited conn; a conn that cannot gives errors.ErrUnsupported.
func (l *limitedConn) CloseRead() error {
	if c, ok := l.Conn.(interface{ CloseRead() error }); ok {
		return c.CloseRead()
	}
	return l.opError("close", errors.ErrUnsupported)
}

// Reset drops the limited conn at once, as Conn.Reset does; a conn that cannot gives errors.ErrUnsupported.
func (l *limitedConn) Reset() error {
	if c, ok := l.Conn.(interface{ Reset() error }); ok {
		return c.Reset()
	}
	return l.opError("reset", errors.ErrUnsupported)
}
