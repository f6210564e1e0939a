package peerlane

import (
	"github.com/peerlane/peerlane/frame"
	"github.com/peerlane/peerlane/session"
)

// carrier is a conn as the session floor knows it: one that can be reset with a code.
type carrier struct{ *Conn }

// Reset drops the conn at once and tells the peer code.
func (c carrier) Reset(code frame.Code) error {
	c.resetWith(code)
	return nil
}

// PathOf returns over what a session's carrier runs.
func PathOf(s *session.Session) Path {
	if c, ok := s.Conn().(carrier); ok {
		return c.Path()
	}
	return Path{}
}
