package session

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// The receiving side of a muxed stream.

// fate says whether received, unread data is kept.
type fate bool

const (
	keepUnread fate = true
	dropUnread fate = false
)

// onData handles data from the peer. Data beyond the credit resets only this stream. s.mu is held.
func (st *muxed) onData(h frame.Header, p []byte) error {
	if !st.accepted || len(p) == 0 && h.Flags&frame.FlagFin == 0 {
		return fmt.Errorf("STREAM_DATA of %d bytes on id %d: %w", len(p), st.id, frame.ErrMalformed)
	}
	if st.peerFin || len(p) > st.window {
		f := frame.Failure{Code: codes.FlowControl, Text: "data beyond the credit or the end"}
		st.s.controlFailureLocked(frame.TypeStreamReset, st.id, f)
		st.s.dropDataLocked(len(p))
		st.endLocked(&Error{Op: "stream", Peer: st.s.peer, Link: st.name, Code: f.Code, Text: f.Text})
		return nil
	}
	st.window -= len(p)
	st.got += uint64(len(p))
	st.s.touch()
	fin := h.Flags&frame.FlagFin != 0
	stopped, refused := st.in.arrive(p, fin)
	if refused.Code != codes.OK {
		st.refuseDataLocked(refused)
		return nil
	}
	if stopped && len(p) > 0 {
		st.s.settleLocked()
		st.sayUnreadLocked()
	}
	if fin {
		st.peerFin = true
		st.s.closeInLocked(st)
		st.leaveIfDoneLocked()
	}
	return nil
}

// refuseDataLocked ends a stream whose data the quota has no room for. What has come before can still be read.
func (st *muxed) refuseDataLocked(f frame.Failure) {
	st.s.noteRefused("stream", st.name, f)
	st.s.controlFailureLocked(frame.TypeStreamReset, st.id, f)
	err := failed(f)
	err.Op, err.Peer, err.Link = "stream", st.s.peer, st.name
	st.endLocked(err)
}

// sayUnreadLocked notifies the peer, once, that some of its bytes were dropped unread.
func (st *muxed) sayUnreadLocked() {
	if !st.saidUnread && !st.ended && st.s.exchangesEnds() {
		st.saidUnread = true
		st.s.controlFailureLocked(frame.TypeStreamStop, st.id, frame.Failure{Code: codes.Unread})
	}
}

// arrive keeps p for Read, and reports whether it was dropped because nothing more will be read, or why there is no room for it: never where
// the session has credit.
func (in *inbound) arrive(p []byte, fin bool) (stopped bool, refused frame.Failure) {
	in.mu.Lock()
	defer in.mu.Unlock()
	gone := in.stopped || in.dropped
	switch {
	case gone && in.room != nil:
		in.room.owe(len(p))
	case in.room != nil: // reserved with the credit
		in.held += len(p)
		if in.mine != nil {
			in.mine.add(len(p))
		}
		in.buf.write(p)
	case !gone:
		more := in.buf.growth(len(p))
		if f := in.part.take(fair.Bytes, more); f.Code != codes.OK {
			return false, f
		}
		in.held += more
		in.buf.write(p)
	}
	in.fin = in.fin || fin
	in.dropSpent()
	in.readable.Broadcast()
	return in.stopped, frame.Failure{}
}

// drop forgets what is in buf, and gives its memory back. mu is held.
func (in *inbound) drop() {
	in.buf.drop()
	in.giveBack()
}

// giveBack gives back all that is held for buf. mu is held.
func (in *inbound) giveBack() {
	in.less(in.held)
	if in.room != nil && !in.shut {
		in.shut = true
		in.room.leaveBuffer(in.isCounted(bufferCost))
	}
}

// isCounted reports whether n bytes of the session's credit that this stream holds still count: those of this side's streams do not after the
// end of the session. They are taken from the account. mu is held.
func (in *inbound) isCounted(n int) bool { return in.mine == nil || in.mine.less(n) }

// less notes that n bytes less are held, at most what is. mu is held.
func (in *inbound) less(n int) {
	n = min(n, in.held)
	in.held -= n
	switch {
	case in.room == nil:
		in.part.release(fair.Bytes, n)
	case in.isCounted(n):
		in.room.owe(n)
	}
}

// dropSpent gives the memory back once all has been read and nothing more arrives: the application may not read as far as the error. It
// reports whether it has done so. mu is held.
func (in *inbound) dropSpent() bool {
	if in.buf.len() > 0 || !in.fin && in.err == nil {
		return false
	}
	in.drop()
	return true
}

// Read implements net.Conn.
func (st *muxed) Read(p []byte) (int, error) {
	n, credit, settle, err := st.in.read(p, st.s.cfg.StreamWindow)
	for credit > 0 || settle {
		st.grant(credit)
		if n > 0 {
			break
		}
		n, credit, settle, err = st.in.read(p, st.s.cfg.StreamWindow)
	}
	if err != nil && err != io.EOF {
		err = st.opError("read", err)
	}
	return n, err
}

// grant gives the peer room for n more bytes on the stream, and for what has been read on the session.
func (st *muxed) grant(n int) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.s.settleLocked()
	if n == 0 || st.ended || st.peerFin {
		return
	}
	st.window += n
	st.s.controlLocked(frame.Header{Type: frame.TypeStreamCredit, ID: st.id}, frame.AppendCredit(nil, uint32(n)))
}

// read waits for bytes. With them it returns the credit to grant, if that is worth a frame, and whether the session's is to be settled.
// If there is credit to grant when it would wait, it first returns without bytes, because the peer may be waiting for the credit. See flight.
func (in *inbound) read(p []byte, window int) (n, credit int, settle bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		switch {
		case in.stopped:
			return 0, 0, false, net.ErrClosed
		case in.due.Expired():
			return 0, 0, false, os.ErrDeadlineExceeded
		case in.dropped:
			return 0, 0, false, in.err
		case len(p) == 0:
			return 0, 0, false, nil
		case in.buf.len() > 0:
			n = in.buf.read(p)
			in.owed += n
			if in.room == nil {
				in.less(in.held - in.buf.memory())
			}
			return n, in.worth(in.grain(window)), in.dropSpent(), nil
		case in.fin:
			return 0, 0, false, io.EOF
		case in.err != nil:
			return 0, 0, false, in.err
		}
		if credit := in.worth(min(leastGrant, window/2)); credit > 0 {
			return 0, credit, false, nil
		}
		in.readable.Wait()
	}
}

// grain returns how many bytes must have been read for a grant while there are more to read. mu is held.
func (in *inbound) grain(window int) int {
	least := min(mostGrant, window/2)
	if in.room != nil {
		least = min(least, int(in.room.worth.Load()))
	}
	return least
}

// worth takes and returns the credit to grant if it is at least least, and returns 0 otherwise. mu is held.
func (in *inbound) worth(least int) (credit int) {
	if in.owed > 0 && in.owed >= least {
		credit, in.owed = in.owed, 0
		if in.room != nil {
			in.less(credit)
		}
	}
	return credit
}

// unread reports whether data waits for Read.
func (in *inbound) unread() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.buf.len() > 0
}

// fail makes Read return err, either at once or after the received data.
func (in *inbound) fail(err error, f fate) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil {
		in.err = err
	}
	if f == dropUnread {
		in.dropped = true
		in.drop()
	}
	in.dropSpent()
	in.readable.Broadcast()
}

// stop drops the received data and keeps nothing more. It reports whether the peer's direction had ended, and whether any data was
// dropped.
func (in *inbound) stop() (fin, unread bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	fin = in.fin || in.stopped || in.err != nil
	unread = in.buf.len() > 0
	in.stopped = true
	in.drop()
	in.due.Stop()
	in.readable.Broadcast()
	return fin, unread
}

// SetReadDeadline implements net.Conn.
func (st *muxed) SetReadDeadline(t time.Time) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.closed {
		return st.opError("set", net.ErrClosed)
	}
	st.in.mu.Lock()
	defer st.in.mu.Unlock()
	if st.in.stopped {
		return nil // Read has ended already
	}
	st.in.due.Set(&st.in.mu, t, st.in.readable.Broadcast)
	return nil
}
