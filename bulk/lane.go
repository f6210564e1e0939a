package bulk

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// A Lane is bytes each way between two peers, for much of them: a net.Conn with half close, whose Write keeps no small pieces
// back and no large ones together. All methods are safe for concurrent use.
//
// Read returns exactly io.EOF at the end of what the peer sent. After Close, calls match net.ErrClosed; past a deadline they match
// os.ErrDeadlineExceeded; once the peer reads no more, Write matches EPIPE, on dedicated streams ECONNRESET. A lane whose streams have
// ended otherwise returns their error, a *session.Error, or io.ErrUnexpectedEOF; one whose peer breaks the protocol, session.ErrProtocol.
type Lane struct {
	conn   strand
	pace   *pace
	framed *framed // conn, if that is one
	opts   Options
	name   string
	peer   string
	mode   Mode
	why    error // why it has not the Mode or the Strands that were asked for
	opened time.Time
	id     uint64

	read, written atomic.Uint64
	begun         atomic.Uint64 // written, and the bytes of the Writes in progress
	over          atomic.Bool
	leave         func() // ends the session's hold on a lane in blocks; nil: it has none
	hide          func() // removes the lane from the session's list; nil: it is on none
}

var (
	_      net.Conn = (*Lane)(nil)
	lastID atomic.Uint64
)

// Name returns the name the lane was opened under.
func (l *Lane) Name() string { return l.name }

// Peer returns the peer, as the session names it.
func (l *Lane) Peer() string { return l.peer }

// Read reads what the peer wrote.
func (l *Lane) Read(p []byte) (int, error) {
	n, err := l.conn.Read(p)
	l.read.Add(uint64(n))
	return n, err
}

// Write waits until the lane has taken all of p, at its Rate, or for the deadline.
func (l *Lane) Write(p []byte) (int, error) {
	if l.pace.limit == nil {
		return l.writeNow(p)
	}
	if err := l.pace.begin(); err != nil {
		return 0, l.opError(err)
	}
	defer l.pace.end()
	total := 0
	for first := true; first || total < len(p); first = false {
		n, err := l.pace.wait(len(p) - total)
		if err != nil {
			return total, l.opError(err)
		}
		n, err = l.writeNow(p[total : total+n])
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

// writeNow is Write without a Rate.
func (l *Lane) writeNow(p []byte) (int, error) {
	l.begun.Add(uint64(len(p))) // before the stream has it
	n, err := l.conn.Write(p)
	l.begun.Add(-uint64(len(p) - n))
	l.written.Add(uint64(n))
	return n, err
}

func (l *Lane) opError(err error) error {
	return &net.OpError{Op: "write", Net: "peerlane", Source: l.LocalAddr(), Addr: l.RemoteAddr(), Err: err}
}

// CloseWrite ends this side's direction: the peer reads io.EOF after what was written.
func (l *Lane) CloseWrite() error { return l.conn.CloseWrite() }

// CloseRead says that nothing more will be read: the peer's writes fail from then on, or, on dedicated streams over TCP, stall.
func (l *Lane) CloseRead() error { return l.conn.CloseRead() }

// Close ends both directions in order: the peer reads what was written and then io.EOF. What was not read is dropped, and the peer's Writes
// fail. It waits as session.Stream.Close does, until what was written is with the peer, and gives up when nothing has moved for
// the session's CloseTimeout. Then, and when the lane has failed before or the peer reads no more, it returns a *session.Error with
// outcome Unknown or Rejected. A lane of several strands, or with compression, is with the peer when the peer's lane has it: Close does not
// tell what its application leaves unread. With several strands, an application that reads less than a block (256 KiB) in CloseTimeout
// looks like one that has stopped. A second Close returns nil, as one after Abort does, and one of a lane that nothing was written to.
func (l *Lane) Close() error {
	defer l.end()()
	err := l.conn.Close()
	if err == nil || l.written.Load() == 0 {
		return nil
	}
	e, ok := errors.AsType[*session.Error](err)
	if ok && l.framed == nil {
		return err
	}
	failed := &session.Error{Op: "close", Peer: l.peer, Link: l.name, Outcome: session.Unknown, Err: distinct(err),
		Text: fmt.Sprintf("%d bytes were written, and it is not known how many of them arrived", l.written.Load())}
	if e != nil && (e.Code == codes.ReadClosed || e.Code == codes.Unread) {
		failed.Outcome = session.Rejected
	}
	return failed
}

// Abort drops the lane at once in both directions, also what has been written and has not arrived, and tells the peer code: its calls
// return a *session.Error with it.
func (l *Lane) Abort(code codes.Code) error {
	defer l.end()()
	return l.conn.Reset(code)
}

// end begins the end of the lane. The caller calls left once conn has ended: until then the session's Close waits for the lane too.
func (l *Lane) end() (left func()) {
	if l.over.Swap(true) {
		return func() {}
	}
	l.pace.close()
	l.unlist()
	if l.leave == nil {
		return func() {}
	}
	return l.leave
}

// Stale reports whether the session has moved to another connection since the lane was opened, so that a lane that is opened now would be
// on a better one: a dedicated lane stays where it is, and one that is shared because the connection was limited stays shared. To move,
// open another lane, and end this one in order. session.Session.Changed says when to ask.
func (l *Lane) Stale() bool {
	first := l.conn
	if l.framed != nil {
		first = l.framed.first()
	}
	st, ok := first.(*session.Stream)
	switch {
	case !ok:
		return false
	case l.mode == Dedicated:
		return st.ForLane().Astray()
	}
	return errors.Is(l.why, errLimited) && !st.Limited()
}

// LocalAddr returns the carrier's local address.
func (l *Lane) LocalAddr() net.Addr { return l.conn.LocalAddr() }

// RemoteAddr returns the carrier's remote address.
func (l *Lane) RemoteAddr() net.Addr { return l.conn.RemoteAddr() }

// SetDeadline sets both deadlines. After Close it matches net.ErrClosed.
func (l *Lane) SetDeadline(t time.Time) error {
	if err := l.SetReadDeadline(t); err != nil {
		return err
	}
	return l.SetWriteDeadline(t)
}

// SetReadDeadline sets when Read gives up; the zero time means never.
func (l *Lane) SetReadDeadline(t time.Time) error { return l.conn.SetReadDeadline(t) }

// SetWriteDeadline sets when Write gives up; the zero time means never.
func (l *Lane) SetWriteDeadline(t time.Time) error {
	l.pace.setDeadline(t)
	return l.conn.SetWriteDeadline(t)
}
