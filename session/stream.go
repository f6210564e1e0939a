package session

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/lane"
)

// A Stream is an ordered byte stream of a session, opened under a name: a net.Conn with half close. A shared stream is multiplexed on the
// session's carrier and has its own window, so a stalled reader does not hold up other streams. A dedicated stream has its own connection,
// or a succession of them. Both kinds behave alike. All methods are safe for concurrent use.
//
// Read returns exactly io.EOF at the end of the peer's data. After Close, calls match net.ErrClosed; past a deadline they match
// os.ErrDeadlineExceeded. When the peer resets the stream, they return an *Error with Remote set and the peer's Code and Text. When the
// session ends, they return one that matches ErrSessionLost, ErrClosed or ErrGoingAway. A resumable dedicated stream that has found no
// carrier in time also returns ErrSessionLost.
type Stream struct {
	conn      streamConn
	s         *Session
	name      string
	dedicated bool
	closed    atomic.Bool
	ends      *streamEnds   // of a dedicated stream; nil when they are not exchanged
	arrival   *arrival      // of a resumable stream that the peer has opened; nil otherwise
	opened    time.Duration // when a dedicated stream began to be opened, as Session.elapsed; guarded by s.mu
	closing   bool          // it is being closed with its session; guarded by s.mu
	announced bool          // OnLaneOpen knows a dedicated stream, and OnLaneClose does not; guarded by s.mu
}

// streamConn is the connection under a Stream.
type streamConn interface {
	net.Conn
	CloseWrite() error
	CloseRead() error
	Reset(codes.Code) error
}

// StreamOptions are the options of OpenStream.
type StreamOptions struct {
	// Dedicated opens the stream on its own connection. It returns ErrUnsupported on a session that cannot open connections: on the
	// accepting side.
	Dedicated bool
	// Resumable makes a dedicated stream outlive its connection, as the session does: after a loss it continues over another connection,
	// and it moves with the session. It buffers up to ReplayWindow each way. It ends as lost after a ResumeWindow without a connection.
	// After Close it counts against MaxStreams until the written data has arrived. OpenStream retries an opening that is cut, for as long
	// as the ResumeWindow, and the peer's handler runs once. With a peer that does not exchange ends (PROTOCOL.md, 5.9) it instead returns
	// an error with outcome Unknown if the handler may have begun to run. OpenStream returns an error that matches ErrUnsupported, with
	// outcome NotSent, when the session ends with its carrier or the peer does not support resumable streams. Resumable has no effect on a
	// shared stream, which always outlives its carrier.
	Resumable bool
	// Bulk makes Write on a shared stream wait while the session's carrier is limited, such as a relay's connection that is cut after a
	// number of bytes.
	Bulk bool
}

// OpenStream opens a stream under name at the peer and returns once the peer serves it. opts may be nil.
//
// The error is an *Error. It matches ErrNotFound when the peer has no handler for name, ErrUnavailable when the peer has MaxStreams open,
// ErrGoingAway, ErrClosed or ErrSessionLost when the session accepts no new work, and the ctx's error when the ctx ended.
func (s *Session) OpenStream(ctx context.Context, name string, opts *StreamOptions) (*Stream, error) {
	if name == "" || len(name) > frame.MaxName {
		return nil, &Error{Op: "open stream", Peer: s.peer, Outcome: NotSent, Code: codes.TooLarge,
			Text: "a stream's name is 1 to 255 bytes"}
	}
	if opts != nil && opts.Dedicated {
		return s.openDedicated(ctx, name, opts.Resumable)
	}
	return s.openShared(ctx, name, opts != nil && opts.Bulk)
}

// Name returns the name the stream was opened under.
func (st *Stream) Name() string { return st.name }

// Session returns the stream's session.
func (st *Stream) Session() *Session { return st.s }

// Limited reports whether the stream's connection is limited in what it lets through, as a relay's is. For a shared stream, that is the
// session's carrier.
func (st *Stream) Limited() bool {
	if c, ok := st.conn.(*dedicated); ok {
		return isScarce(c.raw)
	}
	return isScarce(st.s.Conn())
}

// ForLane returns what the lanes of this module, such as record streams, need of the stream under them. Programs have no use for it.
func (st *Stream) ForLane() lane.Stream { return (*laneStream)(st) }

// Dedicated reports whether the stream is a connection of its own.
func (st *Stream) Dedicated() bool { return st.dedicated }

// Read reads data from the peer.
func (st *Stream) Read(p []byte) (int, error) { return st.conn.Read(p) }

// Write writes p. It waits until the carrier has taken all of p, or for the deadline.
func (st *Stream) Write(p []byte) (int, error) { return st.conn.Write(p) }

// CloseWrite ends this side's direction: the peer reads io.EOF after the written data.
func (st *Stream) CloseWrite() error { return st.conn.CloseWrite() }

// CloseRead ends the peer's direction: this side reads no more, and the peer's Writes fail from then on.
func (st *Stream) CloseRead() error { return st.conn.CloseRead() }

// Close ends both directions: the peer reads the written data and then io.EOF. Unread data is dropped, and the peer's Writes fail.
//
// Close waits until all that was written is with the peer: in the memory of its session, for a dedicated stream that is not resumable
// with its application. It gives up when there has been no progress for CloseTimeout, and then and when the stream or the session has
// failed returns an *Error with outcome Unknown; what is under way may still arrive. The outcome is Rejected when the peer has closed the
// stream without reading the rest; the peer of a resumable stream does not tell that. A peer of a version that does not exchange ends never says what it has read of a dedicated stream:
// then the outcome is Unknown at once. After Reset, and when nothing was written, Close returns nil at once. A second Close waits too, and
// returns the same. Use Reset to end a stream at once.
func (st *Stream) Close() error {
	first := !st.closed.Swap(true)
	err := st.conn.Close()
	if first {
		st.leave()
	}
	return err
}

// leave removes a stream with its own connection from the session's books. A resumable stream leaves them once it has ended.
func (st *Stream) leave() {
	if _, ok := st.conn.(*dedicated); ok {
		st.s.forgetDedicated(st)
	}
}

// Reset drops the stream at once in both directions, including written data that has not arrived, and sends code to the peer.
func (st *Stream) Reset(code codes.Code) error {
	st.leave()
	return st.conn.Reset(code)
}

// LocalAddr returns the carrier's local address.
func (st *Stream) LocalAddr() net.Addr { return st.conn.LocalAddr() }

// RemoteAddr returns the carrier's remote address.
func (st *Stream) RemoteAddr() net.Addr { return st.conn.RemoteAddr() }

// SetDeadline sets both deadlines. After Close it matches net.ErrClosed.
func (st *Stream) SetDeadline(t time.Time) error { return st.conn.SetDeadline(t) }

// SetReadDeadline sets when Read gives up; the zero time means never.
func (st *Stream) SetReadDeadline(t time.Time) error { return st.conn.SetReadDeadline(t) }

// SetWriteDeadline sets when Write gives up; the zero time means never.
func (st *Stream) SetWriteDeadline(t time.Time) error { return st.conn.SetWriteDeadline(t) }

var _ net.Conn = (*Stream)(nil)
