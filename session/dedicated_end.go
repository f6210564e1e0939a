package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/frame"
)

// The ends of a dedicated stream are exchanged over its session, for its own connection carries the application's bytes and nothing else
// (spec 5.10):
//
//	writer                                      reader
//	Write ═══════ the stream's own conn ══════> Read
//	                            <── STREAM_TAKEN: so much has been read ──
//	Close ── STREAM_END: that was all of it ──>
//	                            <── STREAM_TAKEN, and nothing more will be ──
//	Close returns
type streamEnds struct {
	s      *Session
	number uint64

	wrote  atomic.Uint64 // bytes that this side's application has written
	took   atomic.Uint64 // bytes that it has read
	sayAt  atomic.Uint64 // the peer is to be told once took is here
	saidAt atomic.Int64  // when it was told last, as Session.elapsed

	// Guarded by s.mu.
	saidDone bool   // the peer knows that nothing more will be read
	theirEnd uint64 // where the peer's direction ends; noEnd: not known
	peerTook uint64 // bytes that the peer's application has read
	peerDone bool   // nothing more will be read there
}

const (
	noEnd    = ^uint64(0)
	sayEvery = 4 << 20                // bytes after which a reader says how far it is, unasked
	sayAfter = 250 * time.Millisecond // or time
	sayOften = 64 << 10               // bytes, once the writer waits for it
)

// number gives a dedicated stream that this side opens a number, when the peer exchanges ends.
func (s *Session) number(st *Stream) uint64 {
	if !s.exchangesEnds() {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastNumber++
	s.addEnds(st, s.lastNumber)
	return s.lastNumber
}

// nextNumber gives a resumable stream that this side opens a number, when the peer knows what it is for: 0 otherwise.
func (s *Session) nextNumber() uint64 {
	if !s.exchangesEnds() {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastNumber++
	return s.lastNumber
}

// addEnds makes the ends of st known under their number. s.mu is held.
func (s *Session) addEnds(st *Stream, number uint64) {
	if s.numbered == nil {
		s.numbered = make(map[uint64]*streamEnds)
	}
	st.ends = &streamEnds{s: s, number: number, theirEnd: noEnd}
	st.ends.sayAt.Store(sayEvery)
	s.numbered[number] = st.ends
}

// read notes what a Read of the stream has brought, and tells the writer when it is time. The end of the direction, and an error that is
// not a deadline's, are the last of it.
func (e *streamEnds) read(n int, err error) {
	took := e.took.Add(uint64(n))
	last := err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	if last || n > 0 && (took >= e.sayAt.Load() || e.s.elapsed()-time.Duration(e.saidAt.Load()) >= sayAfter) {
		e.s.mu.Lock()
		defer e.s.mu.Unlock()
		e.say(last)
	}
}

// isRead reports whether the application has read all that the peer has written, n bytes more included, and the peer has ended.
func (e *streamEnds) isRead(n int) bool {
	e.s.mu.Lock()
	defer e.s.mu.Unlock()
	return e.took.Load()+uint64(n) == e.theirEnd
}

// say tells the writer how much has been read. s.mu is held.
func (e *streamEnds) say(last bool) {
	if e.saidDone || e.s.err != nil {
		return
	}
	took := e.took.Load()
	h := frame.Header{Type: frame.TypeStreamTaken, ID: e.number}
	if e.saidDone = last; last {
		h.Flags = frame.FlagFin
	}
	e.s.control(h, frame.AppendOffset(nil, took))
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

// onTaken takes the word of the reader of a dedicated stream. s.mu is held.
func (s *Session) onTaken(h frame.Header, p []byte) error {
	took, err := frame.ConsumeOffset(p)
	if err != nil || !s.exchangesEnds() {
		return errors.Join(frame.ErrMalformed, err)
	}
	e := s.numbered[h.ID]
	if e == nil {
		return s.checkNumber(h)
	}
	if took < e.peerTook || took > e.wrote.Load() {
		return fmt.Errorf("STREAM_TAKEN of %d bytes after %d, of %d: %w", took, e.peerTook, e.wrote.Load(), frame.ErrMalformed)
	}
	if took > e.peerTook {
		s.moved++
	}
	e.peerTook = took
	e.peerDone = e.peerDone || h.Flags&frame.FlagFin != 0
	s.stirLocked()
	return nil
}

// onStreamEnd takes the word of the writer of a dedicated stream that it has ended. s.mu is held.
func (s *Session) onStreamEnd(h frame.Header, p []byte) error {
	end, err := frame.ConsumeOffset(p)
	if err != nil || !s.exchangesEnds() {
		return errors.Join(frame.ErrMalformed, err)
	}
	e := s.numbered[h.ID]
	if e == nil {
		return s.checkNumber(h)
	}
	e.theirEnd = end
	e.say(false)
	return nil
}

// checkNumber refuses a frame about a dedicated stream that was never opened. s.mu is held.
func (s *Session) checkNumber(h frame.Header) error {
	if h.ID == 0 || s.dialer && h.ID > s.lastNumber {
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
	s.closings++
	if d.ends != nil {
		d.ends.say(true)
		if lost == nil { // also where nothing is waited for: the peer's Read need not wait for the conn to end
			s.control(frame.Header{Type: frame.TypeStreamEnd, ID: d.ends.number}, frame.AppendOffset(nil, d.ends.wrote.Load()))
		}
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endClosing(nil, nil) // the caller has the error
	}()
	switch {
	case !d.hasUnread():
		return d.Conn.Close()
	case lost != nil:
		_ = d.Conn.Close() // what it would say is less than what follows
		return d.undelivered(&Error{Outcome: Unknown, Code: lost.Code, Err: lost.cause()})
	case d.ends == nil:
		_ = d.Conn.Close() // likewise
		return d.undelivered(&Error{Outcome: Unknown, Text: "the peer does not say what it has read"})
	}
	_ = d.Conn.SetReadDeadline(past) // wakes Read
	err := d.awaitTaken()
	_ = d.Conn.Close() // the peer has read all of it, or err says that it has not
	return err
}

// awaitTaken ends the way out and waits until the peer's application has read it.
func (d *dedicated) awaitTaken() error {
	s, e := d.s, d.ends
	_ = d.Conn.SetWriteDeadline(time.Time{}) // it may have passed
	ended := make(chan struct{})
	go func() { // a key's end record may have to wait for room
		defer close(ended)
		_ = d.CloseWrite() // what the peer has read tells
	}()
	s.awaitProgress(func() bool { return d.cut.Load() || e.peerDone || e.peerTook >= e.wrote.Load() }, func() uint64 { return e.peerTook })
	d.endWrite(ended)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.peerTook >= e.wrote.Load(), d.cut.Load():
		return nil
	case e.peerDone:
		return d.undelivered(&Error{Outcome: Rejected, Remote: true, Code: frame.CodeUnread})
	case s.err != nil:
		return d.undelivered(&Error{Outcome: Unknown, Code: s.err.Code, Err: s.err.cause()})
	}
	return d.undelivered(&Error{Outcome: Unknown, Code: frame.CodeTimeout, Err: fmt.Errorf("no progress for %v", s.cfg.CloseTimeout)})
}

// cutClose ends a Close that waits for the peer.
func (d *dedicated) cutClose() {
	if !d.ending.begun.Load() || d.cut.Swap(true) {
		return
	}
	drop(d.raw, frame.CodeCancelled)
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.s.stirLocked()
}

// endWrite waits for the end of CloseWrite, and cuts it short where it has to wait.
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
	case <-grace.C: // a conn that heeds no deadline
		drop(d.raw, frame.CodeCancelled)
		<-ended
	}
}

// undelivered completes the error of a Close.
func (d *dedicated) undelivered(e *Error) *Error {
	e.Op, e.Peer, e.Link = "stream", d.s.peer, d.name
	took := uint64(0)
	if d.ends != nil {
		took = d.ends.peerTook
	}
	if e.Text == "" {
		e.Text = fmt.Sprintf("of %d bytes that were written the peer has read %d", d.wrote(), took)
	}
	return e
}

// wrote returns how many bytes the application has written.
func (d *dedicated) wrote() uint64 {
	if d.ends != nil {
		return d.ends.wrote.Load()
	}
	return d.sent.Load()
}

// wakeWriter ends a Write that waits.
func (d *dedicated) wakeWriter() { _ = d.Conn.SetWriteDeadline(past) }

// retire ends the stream with its session, in order: what has been written by the peer can still be read, to its end.
func (d *dedicated) retire(cause *Error) {
	d.cause.Store(cause)
	d.retired.Store(true)
	d.wakeWriter()
	switch {
	case d.readEnded.Load():
		d.leave()
	case d.ends != nil && d.ends.isRead(0):
		_ = d.Conn.SetReadDeadline(past) // wakes Read, which has had all
	}
}

// leave lets go of the conn of a retired stream that has been read to its end. A peer that still reads it must not take that for the end
// of what this side's application had to say.
func (d *dedicated) leave() {
	if d.writeEnded.Load() {
		_ = d.Conn.Close() // the peer has read what it wanted
	} else {
		drop(d.raw, frame.CodeCancelled)
	}
}

// endWithSession ends a dedicated stream with its session, which err has ended.
func (st *Stream) endWithSession(err *Error, inOrder bool) {
	because := func() *Error {
		return &Error{Op: "stream", Peer: st.s.peer, Link: st.name, Code: err.Code, Outcome: Unknown, Err: err.cause()}
	}
	cause := because()
	switch c := st.conn.(type) {
	case *resumable:
		c.endWithSession(cause, inOrder)
	case *dedicated:
		if c.hasUnread() && !c.closed.Load() { // else its Close says so
			st.noteUnread(c.undelivered(because()))
		}
		if inOrder && !c.closed.Load() {
			c.retire(cause)
			return
		}
		c.cause.Store(cause)
		if !inOrder {
			st.leave()
			c.abort(frame.CodeClosed) // a Close in progress sees that the session has ended
		}
	}
}

// noteUnread notes that the peer is not known to have all that was written to a dedicated stream which its session ended.
func (st *Stream) noteUnread(cause *Error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.s.noteLost(st.conn, cause)
}

// hasUnread reports whether the peer is not known to have read all that was written.
func (d *dedicated) hasUnread() bool {
	if d.ends == nil {
		return d.wrote() > 0
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.ends.peerTook < d.wrote()
}

// endDedicated closes the dedicated streams with their session, each in a goroutine that ends when the peer has what was written, or the
// session has ended; Close waits for it. s.mu is held.
func (s *Session) endDedicated() {
	for st := range s.dedicated {
		s.endOneDedicated(st)
	}
}

// endOneDedicated is endDedicated for one of them. s.mu is held.
func (s *Session) endOneDedicated(st *Stream) {
	if st.conn == nil || st.closing || st.closed.Load() && !isResumable(st) {
		return
	}
	st.closing = true
	s.closings++
	s.redials.Go(func() {
		err := st.closeWithSession()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endClosing(st.conn, err)
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
	d.cause.Store(&Error{Op: "stream", Peer: d.s.peer, Link: st.name, Code: frame.CodeClosed, Err: ErrClosed})
	return st.Close()
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

var _ io.Closer = (*dedicated)(nil)
var _ net.Conn = (*dedicated)(nil)
