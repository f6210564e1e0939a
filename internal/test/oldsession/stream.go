package oldsession

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
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
