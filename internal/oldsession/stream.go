package oldsession

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// A Stream is an ordered byte lane: shared, dedicated, or dedicated and resumable.
type Stream struct {
	lane
	Name string
	s    *Session
}

// lane is what carries a Stream.
type lane interface {
	io.ReadWriteCloser
	CloseWrite() error       // ends this side's direction
	Reset(code uint32) error // drops both directions
	fail(err error)          // the session has ended
}

// Session returns the stream's session.
func (st *Stream) Session() *Session { return st.s }

// CloseRead says that nothing more is read.
func (st *Stream) CloseRead() error {
	if c, ok := st.lane.(interface{ CloseRead() error }); ok {
		return c.CloseRead()
	}
	return errors.ErrUnsupported
}

// shared is a stream on the session's carrier. Session.mu guards it.
type shared struct {
	s        *Session
	id       uint64
	mine     bool
	accepted bool
	err      error // why it has ended other than by FINs
	gone     bool  // out of the table
	dropped  bool  // what has come is not read any more

	in               []byte
	window, owed     int // what the other side may still send, and what was read and not granted again
	peerFin, deaf    bool
	credit           int
	finSent, stopped bool
}

func (s *Session) newShared(id uint64, mine bool) *shared {
	st := &shared{s: s, id: id, mine: mine, accepted: !mine, window: int(s.cfg.Limits.StreamWindow), credit: int(s.theirs.StreamWindow)}
	s.streams[id] = st
	return st
}

// OpenStream opens a shared stream.
func (s *Session) OpenStream(ctx context.Context, name string) (*Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refusal(); err != nil {
		return nil, err
	}
	if s.shared >= int(s.theirs.MaxStreams) {
		return nil, &Failure{Code: CodeUnavailable, NotSent: true}
	}
	s.shared++
	st := s.newShared(s.newID(), true)
	s.post(typeOpen, 0, st.id, []byte(name))
	err := s.wait(ctx, func() bool { return st.accepted || st.err != nil })
	switch {
	case st.err != nil:
		return nil, st.err
	case err != nil:
		st.reset(CodeCancelled, err)
		return nil, err
	}
	return &Stream{st, name, s}, nil
}

// onOpen takes a stream that the other side opens. mu is held.
func (s *Session) onOpen(f frame) error {
	theirs := 0
	for _, st := range s.streams {
		if !st.mine {
			theirs++
		}
	}
	switch {
	case s.draining || s.closing:
		s.postFailure(typeReset, f.id, CodeGoingAway, "")
	case s.cfg.OnStream == nil:
		s.postFailure(typeReset, f.id, CodeNotFound, "")
	case theirs >= int(s.cfg.Limits.MaxStreams):
		s.postFailure(typeReset, f.id, CodeUnavailable, "")
	default:
		st := &Stream{s.newShared(f.id, false), string(f.payload), s}
		s.post(typeAccept, 0, f.id, nil)
		s.handlers++
		s.running.Go(func() { s.handle(st) })
	}
	return nil
}

// handle runs the handler of a stream, and closes it. The caller has counted it.
func (s *Session) handle(st *Stream) {
	s.cfg.OnStream(st)
	_ = st.Close() // the handler has left it
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers--
	s.changed.Broadcast()
}

// onStreamFrame takes a frame about a shared stream. mu is held.
func (s *Session) onStreamFrame(f frame) error {
	st := s.streams[f.id]
	if st == nil {
		return nil // it has ended
	}
	switch f.typ {
	case typeAccept:
		if st.accepted {
			return breach("STREAM_ACCEPT of %d", f.id)
		}
		st.accepted = true
	case typeData:
		return st.onData(f)
	case typeCredit:
		n := int(binary.BigEndian.Uint32(f.payload))
		if st.credit += n; n == 0 || st.credit > 1<<30 {
			return breach("credit of %d bytes, %d in all", n, st.credit)
		}
	default:
		why, err := parseFailure(f.payload)
		switch {
		case err != nil:
			return err
		case f.typ == typeReset:
			st.dropped = true
			st.fail(why)
		default:
			st.stopped = true
			st.finish()
		}
	}
	return nil
}

func (st *shared) onData(f frame) error {
	fin := f.flags&flagFin != 0
	switch {
	case !st.accepted || len(f.payload) == 0 && !fin:
		return breach("STREAM_DATA of %d bytes", len(f.payload))
	case st.peerFin || len(f.payload) > st.window:
		st.reset(CodeFlowControl, &Failure{Code: CodeFlowControl})
		return nil
	}
	st.window -= len(f.payload)
	if !st.deaf {
		st.in = append(st.in, f.payload...)
	}
	st.peerFin = st.peerFin || fin
	st.leaveIfDone()
	return nil
}

// fail ends the stream for a reason; what has come can still be read. mu is held.
func (st *shared) fail(err error) {
	if st.err == nil {
		st.err = err
	}
	st.leave()
}

func (st *shared) leave() {
	if !st.gone {
		st.gone = true
		delete(st.s.streams, st.id)
		if st.mine {
			st.s.shared--
		}
		st.s.changed.Broadcast()
	}
}

func (st *shared) leaveIfDone() {
	if st.finSent && st.peerFin {
		st.leave()
	}
}

// finish sends FIN. mu is held.
func (st *shared) finish() {
	if !st.finSent && !st.gone {
		st.finSent = true
		st.s.post(typeData, flagFin, st.id, nil)
		st.leaveIfDone()
	}
}

// reset sends RESET. mu is held.
func (st *shared) reset(code uint32, err error) {
	if !st.gone {
		st.s.postFailure(typeReset, st.id, code, "")
	}
	st.dropped = true
	st.fail(err)
}

// Read implements lane.
func (st *shared) Read(p []byte) (int, error) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	for {
		switch {
		case st.deaf:
			return 0, net.ErrClosed
		case st.dropped:
			return 0, st.err
		case len(st.in) > 0:
			n := copy(p, st.in)
			st.in = st.in[n:]
			st.owed += n
			st.grant(64 << 10)
			return n, nil
		case st.peerFin:
			return 0, io.EOF
		case st.err != nil:
			return 0, st.err
		}
		st.grant(4 << 10)
		st.s.changed.Wait()
	}
}

// grant gives the other side credit for what has been read, if that is as much as least, or half of the window. mu is held.
func (st *shared) grant(least int) {
	if st.owed == 0 || st.owed < min(least, int(st.s.cfg.Limits.StreamWindow)/2) || st.peerFin || st.gone {
		return
	}
	st.s.post(typeCredit, 0, st.id, binary.BigEndian.AppendUint32(nil, uint32(st.owed)))
	st.window += st.owed
	st.owed = 0
}

// Write implements lane.
func (st *shared) Write(p []byte) (int, error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := 0; ; {
		switch {
		case st.err != nil:
			return n, st.err
		case st.stopped:
			return n, syscall.EPIPE
		case st.finSent:
			return n, net.ErrClosed
		case s.saidBye:
			return n, s.leaving
		case n == len(p):
			return n, nil
		}
		if k := min(len(p)-n, st.credit, part); k > 0 && len(s.out) < 4*part {
			s.post(typeData, 0, st.id, p[n:n+k])
			st.credit -= k
			n += k
			continue
		}
		s.changed.Wait()
	}
}

// CloseWrite implements lane.
func (st *shared) CloseWrite() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.finish()
	return nil
}

// CloseRead says that nothing more is read.
func (st *shared) CloseRead() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if !st.deaf && !st.peerFin && !st.gone {
		st.s.postFailure(typeStop, st.id, CodeReadClosed, "")
	}
	st.deaf, st.in = true, nil
	st.s.changed.Broadcast()
	return nil
}

// Close implements lane.
func (st *shared) Close() error {
	_ = st.CloseWrite() // never fails
	return st.CloseRead()
}

// Reset implements lane.
func (st *shared) Reset(code uint32) error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.reset(code, net.ErrClosed)
	return nil
}

// dedicated is a stream that is a carrier of its own.
type dedicated struct {
	*carrier
	leave func()
}

// Read implements lane.
func (d *dedicated) Read(p []byte) (int, error) { return d.Conn.Read(p) }

// Close implements lane.
func (d *dedicated) Close() error {
	d.leave()
	return d.Conn.Close()
}

// Reset implements lane.
func (d *dedicated) Reset(code uint32) error {
	d.leave()
	d.drop(endCode(code))
	return nil
}

func (d *dedicated) fail(error) { _ = d.Reset(CodeCancelled) }

// endCode returns the code for a stream that is reset: an orderly close would look like the end of the data.
func endCode(code uint32) uint32 {
	if code == CodeOK || code == CodeClosed {
		return CodeCancelled
	}
	return code
}

// OpenDedicated opens a stream on a carrier of its own. Only the side that dialed may.
func (s *Session) OpenDedicated(ctx context.Context, name string) (*Stream, error) {
	st := &Stream{Name: name, s: s}
	if err := s.admit(st); err != nil {
		return nil, err
	}
	c, err := s.openCarrier(ctx, map[byte][]byte{fieldName: []byte(name)})
	if err != nil {
		s.forget(st)
		return nil, err
	}
	return st, s.adopt(st, &dedicated{c, func() { s.forget(st) }})
}

// openCarrier opens a carrier for a stream.
func (s *Session) openCarrier(ctx context.Context, field map[byte][]byte) (*carrier, error) {
	if s.open == nil {
		return nil, &Failure{Code: CodeUnsupported, NotSent: true}
	}
	conn, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	field[fieldRole], field[fieldSession] = []byte{roleStream}, s.id[:]
	c, _, err := s.cfg.greet(conn, s.peer, &hello{field: field})
	if err == nil && s.cfg.Keys != nil {
		_, err = c.Write([]byte{0})
	}
	return c, err
}

// admit takes a place for a stream that has carriers of its own.
func (s *Session) admit(st *Stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refusal(); err != nil {
		return err
	}
	if len(s.own) >= int(min(s.cfg.Limits.MaxStreams, s.theirs.MaxStreams)) {
		return &Failure{Code: CodeUnavailable, NotSent: true}
	}
	s.own[st] = struct{}{}
	return nil
}

func (s *Session) forget(st *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.own, st)
	s.changed.Broadcast()
}

// adopt gives a stream its lane, unless the session has ended meanwhile.
func (s *Session) adopt(st *Stream, l lane) error {
	s.mu.Lock()
	err := s.err
	st.lane = l
	s.mu.Unlock()
	if err != nil {
		l.fail(err)
	}
	return err
}

// abandon ends a stream with its session.
func (st *Stream) abandon(err error) {
	st.s.mu.Lock()
	l := st.lane
	st.s.mu.Unlock()
	if l != nil { // else adopt does it
		l.fail(err)
	}
}

// answerStream takes a carrier of a stream.
func (s *Session) answerStream(h *hello, ack func(map[byte][]byte) (*carrier, error)) (func(), error) {
	kind := h.field[fieldResumable]
	if kind != nil && !s.can(capResume|capResumeStreams) {
		return nil, &Failure{Code: CodeUnsupported}
	}
	if kind != nil && kind[0] == resumableAgain {
		c, err := ack(map[byte][]byte{})
		if err != nil {
			return nil, err
		}
		return func() { s.answerAgain(c) }, nil
	}
	st := &Stream{Name: string(h.field[fieldName]), s: s}
	if s.cfg.OnStream == nil {
		return nil, &Failure{Code: CodeNotFound}
	}
	if err := s.admit(st); err != nil {
		return nil, err
	}
	c, err := ack(map[byte][]byte{})
	if err != nil {
		s.forget(st)
		return nil, err
	}
	return func() {
		if kind != nil {
			s.answerNew(st, c)
			return
		}
		_ = c.raw.SetDeadline(time.Time{}) // a closed conn fails in the stream
		s.serveOwn(st, &dedicated{c, func() { s.forget(st) }})
	}, nil
}

// serveOwn runs the handler of a stream with carriers of its own.
func (s *Session) serveOwn(st *Stream, l lane) {
	s.mu.Lock()
	s.handlers++
	s.mu.Unlock()
	if s.adopt(st, l) == nil {
		s.handle(st)
		return
	}
	s.mu.Lock()
	s.handlers--
	s.mu.Unlock()
}
