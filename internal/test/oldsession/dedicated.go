package oldsession

import (
	"context"
	"time"
)

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
