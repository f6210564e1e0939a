// Package lane is what a lane needs of the stream under it, and a session of the conn under a resumable stream, and programs of neither. A
// lane, such as a record stream, keeps data back, and writes headers of its own.
package lane

import (
	"context"
	"net"
	"time"
)

// A Conn is a *resume.Conn as the session that runs a stream on it sees it: resume.Conn.ForSession returns it.
type Conn interface {
	// End is resume.Conn.Abort for a Conn whose reader continues: received data can still be read, up to io.EOF if the other side's end has
	// arrived. Write and all other calls return err, or net.ErrClosed if it is nil.
	End(err error)

	// Heard reports whether anything of the other side has arrived after the hello of the first carrier.
	Heard() bool

	// ServeAgain is resume.Listener.Serve for a carrier on which the dialing side opens the Conn again: Serve has returned it before, but the
	// dialing side has not received the answer, and the session knows that it means this Conn (resume/SPEC.md, 3.9). The Conn continues on
	// the carrier. ServeAgain answers a RESUME as Serve does, and has its errors. resume.ErrProtocol also means that something of the dialing
	// side was received, and resume.ErrInvalid that the Conn is of no Listener.
	ServeAgain(carrier net.Conn) error
}

// A Stream is a *session.Stream as the lane on it sees it: session.Stream.ForLane returns it.
type Stream interface {
	// SetBulk sets session.StreamOptions.Bulk on an open stream, including one that the peer has opened. It has no effect on a dedicated
	// stream.
	SetBulk(bulk bool)

	// SetPayload sets the number of bytes that the lane's user has written: errors about undelivered data name it in place of the bytes of
	// the stream, and Session.Close does not name the stream while it is 0. payload must count bytes before they are written to the stream,
	// and must not block. A nil payload does nothing.
	SetPayload(payload func() uint64)

	// FlushOnClose registers flush for Session.Close to call, once, before it ends the streams. flush hands everything that the lane keeps
	// back to its stream, and returns when the stream has taken it, or when ctx ends: after CloseTimeout without progress, or with the
	// session. Session.Close waits for flush, and its error includes that of flush; a panic of flush is such an error. remove unregisters
	// flush. A nil flush does nothing, and one that is registered after Session.Close was called is not called.
	FlushOnClose(flush func(ctx context.Context) error) (remove func())

	// WriteProgress returns a number that changes while the stream sends, also during a Write or a Close that has not returned, and stays
	// the same while the peer does not read. It serves callers that give up after a time without progress; it may go down, and on a shared
	// stream it counts what other lanes of the session send.
	WriteProgress() uint64

	// Unread returns how many of the bytes that were written the peer's application is not known to have read. Only the peer of a dedicated
	// stream that is not resumable says that, and only when both sides exchange ends: otherwise known is false.
	Unread() (n uint64, known bool)

	// Astray reports whether the stream has a connection of its own, and the session has moved to another one since the stream was opened. Such
	// a stream stays where it is; a stream that is opened now goes with the session.
	Astray() bool

	// Budgets returns the bounds of what the session's peer makes this side hold on the stream: kept is of what can wait, and arrived is of
	// what cannot. They are nil on a session that this side has opened, where nothing counts.
	Budgets() (kept, arrived Budget)

	// AwaitCoder waits until it is the turn of the session's peer to have n bytes unpacked, or for the end of the session. done ends the turn.
	AwaitCoder(n int) (done func())

	// CloseTimeout returns how long Close of the stream waits without progress.
	CloseTimeout() time.Duration
}
