package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/frame"
)

// The ends of a dedicated stream are exchanged over its session, because its own connection carries only the application's bytes (spec
// 5.10):
//
//	writer                                      reader
//	Write ═══════ the stream's own conn ══════> Read
//	                            <── STREAM_TAKEN: bytes read so far ──
//	Close ── STREAM_END: total bytes written ──>
//	                            <── STREAM_TAKEN, final ──
//	Close returns
type streamEnds struct {
	s      *Session
	number uint64

	wrote  atomic.Uint64 // bytes written by this side's application
	took   atomic.Uint64 // bytes read by this side's application
	sayAt  atomic.Uint64 // the peer must be notified once took reaches this
	saidAt atomic.Int64  // when the peer was last notified, as Session.elapsed

	// Guarded by s.mu.
	saidDone bool   // the peer knows that this side reads no more
	theirEnd uint64 // where the peer's direction ends; noEnd: not known
	peerTook uint64 // bytes read by the peer's application
	peerDone bool   // the peer reads no more
}

const (
	noEnd    = ^uint64(0)
	sayEvery = 4 << 20                // bytes after which a reader reports unasked
	sayAfter = 250 * time.Millisecond // or the time after which it does
	sayOften = 64 << 10               // bytes, once the writer waits for the report
)

// number assigns a number to a dedicated stream that this side opens. It returns 0 when the peer does not exchange ends.
func (s *Session) number(st *Stream) uint64 {
	number := s.nextNumber()
	if number != 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.addEndsLocked(st, number)
	}
	return number
}

// nextNumber returns the number for a resumable stream that this side opens, or 0 when the peer does not exchange ends.
func (s *Session) nextNumber() uint64 {
	if !s.exchangesEnds() {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dedicated.lastNumber++
	return s.dedicated.lastNumber
}

// addEndsLocked registers the ends of st under their number.
func (s *Session) addEndsLocked(st *Stream, number uint64) {
	if s.dedicated.numbered == nil {
		s.dedicated.numbered = make(map[uint64]*streamEnds)
	}
	st.ends = &streamEnds{s: s, number: number, theirEnd: noEnd}
	st.ends.sayAt.Store(sayEvery)
	s.dedicated.numbered[number] = st.ends
}

// read notes the result of a Read of the stream, and reports to the writer when a report is due. The end of the direction, and any error
// other than a deadline's, makes it the last report.
func (e *streamEnds) read(n int, err error) {
	took := e.took.Add(uint64(n))
	last := err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	if last || n > 0 && (took >= e.sayAt.Load() || e.s.elapsed()-time.Duration(e.saidAt.Load()) >= sayAfter) {
		e.s.mu.Lock()
		defer e.s.mu.Unlock()
		e.sayLocked(last)
	}
}

// isRead reports whether the peer has ended and the application will have read everything the peer wrote, with n more bytes included.
func (e *streamEnds) isRead(n int) bool {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	return e.took.Load()+uint64(n) == e.theirEnd
}

// sayLocked reports to the writer how much has been read.
func (e *streamEnds) sayLocked(last bool) {
	if e.saidDone || e.s.err != nil {
		return
	}
	took := e.took.Load()
	h := frame.Header{Type: frame.TypeStreamTaken, ID: e.number}
	if e.saidDone = last; last {
		h.Flags = frame.FlagFin
	}
	e.s.controlLocked(h, frame.AppendOffset(nil, took))
	e.saidAt.Store(int64(e.s.elapsed()))
	switch {
	case e.theirEnd == noEnd:
		e.sayAt.Store(took + sayEvery)
	case took < e.theirEnd:
		e.sayAt.Store(min(took+sayOften, e.theirEnd))
	default:
		e.sayAt.Store(noEnd)
	}
}

// onTaken handles the report of a dedicated stream's reader. s.mu is held.
func (s *Session) onTaken(h frame.Header, p []byte) error {
	took, err := frame.ConsumeOffset(p)
	if err != nil || !s.exchangesEnds() {
		return errors.Join(frame.ErrMalformed, err)
	}
	e := s.dedicated.numbered[h.ID]
	if e == nil {
		return s.checkNumberLocked(h)
	}
	if took < e.peerTook || took > e.wrote.Load() {
		return fmt.Errorf("STREAM_TAKEN of %d bytes after %d, of %d: %w", took, e.peerTook, e.wrote.Load(), frame.ErrMalformed)
	}
	if took > e.peerTook {
		s.end.moved++
	}
	e.peerTook = took
	e.peerDone = e.peerDone || h.Flags&frame.FlagFin != 0
	s.stirLocked()
	return nil
}

// onStreamEnd handles the notice of a dedicated stream's writer that it has ended. s.mu is held.
func (s *Session) onStreamEnd(h frame.Header, p []byte) error {
	end, err := frame.ConsumeOffset(p)
	if err != nil || !s.exchangesEnds() {
		return errors.Join(frame.ErrMalformed, err)
	}
	e := s.dedicated.numbered[h.ID]
	if e == nil {
		return s.checkNumberLocked(h)
	}
	e.theirEnd = end
	e.sayLocked(false)
	return nil
}

// checkNumberLocked refuses a frame about a dedicated stream that was never opened.
func (s *Session) checkNumberLocked(h frame.Header) error {
	if h.ID == 0 || s.dialer && h.ID > s.dedicated.lastNumber {
		return fmt.Errorf("%v of number %d, which was never opened: %w", h.Type, h.ID, frame.ErrMalformed)
	}
	return nil
}

// Close implements Stream.
func (d *dedicated) Close() error {
	e := &d.ending
	if e.begun.Swap(true) {
		<-e.done
		return e.err
	}
	defer close(e.done)
	e.err = d.closeNow()
	return e.err
}

func (d *dedicated) closeNow() error {
	if d.closed.Swap(true) { // by Reset
		return nil
	}
	s := d.s
	s.mu.Lock()
	lost := s.err
	s.end.closings++
	if d.ends != nil {
		d.ends.sayLocked(true)
		if lost == nil { // also where nothing is waited for: the peer's Read need not wait for the conn to end
			s.controlLocked(frame.Header{Type: frame.TypeStreamEnd, ID: d.ends.number}, frame.AppendOffset(nil, d.ends.wrote.Load()))
		}
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endClosingLocked(nil, nil) // the caller has the error
	}()
	switch {
	case !d.hasUnread():
		return d.Conn.Close()
	case lost != nil:
		_ = d.Conn.Close() // its error would say less than the one below
		return d.undelivered(&Error{Outcome: Unknown, Code: lost.Code, Err: lost.cause()})
	case d.ends == nil:
		_ = d.Conn.Close() // same
		return d.undelivered(&Error{Outcome: Unknown, Text: "the peer does not say what it has read"})
	}
	_ = d.Conn.SetReadDeadline(deadline.Past) // wakes Read
	err := d.awaitTaken()
	_ = d.Conn.Close() // the peer has read everything, or err says that it has not
	return err
}

// awaitTaken ends the writing direction and waits until the peer's application has read it.
func (d *dedicated) awaitTaken() error {
	s, e := d.s, d.ends
	_ = d.Conn.SetWriteDeadline(time.Time{}) // it may have passed
	ended := make(chan struct{})
	go func() { // the end record of a keyed conn may have to wait for room
		defer close(ended)
		_ = d.CloseWrite() // the peer's reports count, not this error
	}()
	s.awaitProgress(func() bool { return d.cut.Load() || e.peerDone || e.peerTook >= e.wrote.Load() }, func() uint64 { return e.peerTook })
	d.endWrite(ended)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.peerTook >= e.wrote.Load(), d.cut.Load():
		return nil
	case e.peerDone:
		return d.undelivered(&Error{Outcome: Rejected, Remote: true, Code: codes.Unread})
	case s.err != nil:
		return d.undelivered(&Error{Outcome: Unknown, Code: s.err.Code, Err: s.err.cause()})
	}
	return d.undelivered(&Error{Outcome: Unknown, Code: codes.Timeout, Err: fmt.Errorf("no progress for %v", s.cfg.CloseTimeout)})
}

// cutClose ends a Close that is waiting for the peer.
func (d *dedicated) cutClose() {
	if !d.ending.begun.Load() || d.cut.Swap(true) {
		return
	}
	drop(d.raw, codes.Cancelled)
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.s.stirLocked()
}

// endWrite waits for CloseWrite to return, and cuts it short when it blocks.
func (d *dedicated) endWrite(ended <-chan struct{}) {
	grace := time.NewTimer(partingGrace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
		d.wakeWriter()
	}
	grace.Reset(partingGrace)
	select {
	case <-ended:
	case <-grace.C: // a conn that ignores deadlines
		drop(d.raw, codes.Cancelled)
		<-ended
	}
}

// undelivered fills in the error of a Close.
func (d *dedicated) undelivered(e *Error) *Error {
	e.Op, e.Peer, e.Link = "stream", d.s.peer, d.name
	took := uint64(0)
	if d.ends != nil {
		took = d.ends.peerTook
	}
	switch {
	case e.Text != "":
	case d.isFramed(): // the peer counts the headers, too
		e.Text = unknownText(d.ofAll(0))
	default:
		e.Text = fmt.Sprintf("the peer has read %d of %d bytes", took, d.wrote())
	}
	return e
}

// wrote returns the number of bytes the application has written.
func (d *dedicated) wrote() uint64 {
	if d.ends != nil {
		return d.ends.wrote.Load()
	}
	return d.sent.Load()
}

// wakeWriter ends a waiting Write.
func (d *dedicated) wakeWriter() { _ = d.Conn.SetWriteDeadline(deadline.Past) }

// retire ends the stream with its session, in order: data from the peer can still be read to its end.
func (d *dedicated) retire(cause *Error) {
	d.cause.Store(cause)
	d.retired.Store(true)
	d.wakeWriter()
	switch {
	case d.readEnded.Load():
		d.leave()
	case d.ends != nil && d.ends.isRead(0):
		_ = d.Conn.SetReadDeadline(deadline.Past) // wakes Read, which has had all
	}
}

// leave releases the conn of a retired stream that has been read to its end. A peer that still reads the conn must not mistake this for
// the end of the data.
func (d *dedicated) leave() {
	if d.writeEnded.Load() {
		_ = d.Conn.Close() // the peer has read all that it wanted
	} else {
		drop(d.raw, codes.Cancelled)
	}
}

// endWithSession ends a dedicated stream whose session ended with err.
func (st *Stream) endWithSession(err *Error, inOrder bool) {
	because := func() *Error {
		return &Error{Op: "stream", Peer: st.s.peer, Link: st.name, Code: err.Code, Outcome: Unknown, Err: err.cause()}
	}
	cause := because()
	switch c := st.conn.(type) {
	case *resumable:
		c.endWithSession(cause, inOrder)
	case *dedicated:
		if c.hasUnread() && !c.closed.Load() { // otherwise its Close reports it
			st.noteUnread(c.undelivered(because()))
		}
		if inOrder && !c.closed.Load() {
			c.retire(cause)
			return
		}
		c.cause.Store(cause)
		if !inOrder {
			st.leave()
			c.abort(codes.Closed) // a Close in progress sees that the session has ended
		}
	}
}

// noteUnread records that the peer is not known to have everything written to a dedicated stream that ended with its session.
func (st *Stream) noteUnread(cause *Error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.s.noteLostLocked(st.conn, cause)
}

// hasUnread reports whether the peer is not known to have read everything written.
func (d *dedicated) hasUnread() bool {
	if d.ends == nil {
		return d.wrote() > 0
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.ends.peerTook < d.wrote()
}

// endDedicatedLocked closes the dedicated streams with their session, each in a goroutine. The goroutine ends once the peer has the written
// data or the session has ended; Close waits for it.
func (s *Session) endDedicatedLocked() {
	for st := range s.dedicated.open {
		s.endOneDedicatedLocked(st)
	}
}

// endOneDedicatedLocked does the work of endDedicatedLocked for one stream.
func (s *Session) endOneDedicatedLocked(st *Stream) {
	if st.conn == nil || st.closing || st.closed.Load() && !isResumable(st) {
		return
	}
	st.closing = true
	s.end.closings++
	s.carriers.work.Go(func() {
		err := st.closeWithSession()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endClosingLocked(st.conn, err)
	})
}

func isResumable(st *Stream) bool {
	_, ok := st.conn.(*resumable)
	return ok
}

// closeWithSession closes a stream because its session is being closed.
func (st *Stream) closeWithSession() error {
	if r, ok := st.conn.(*resumable); ok {
		return r.closeWithSession()
	}
	d := st.conn.(*dedicated)
	d.cause.Store(&Error{Op: "stream", Peer: d.s.peer, Link: st.name, Code: codes.Closed, Err: ErrClosed})
	return st.Close()
}

var _ io.Closer = (*dedicated)(nil)
var _ net.Conn = (*dedicated)(nil)
