package session

import (
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
)

// handlers is a Session as the owner of its handlers of one-way messages and streams.
type handlers Session

// Exempt makes the end of the session not wait for one handler of a kind, which waits for that end itself.
func (h *handlers) Exempt(kind handler.Kind) {
	s := (*Session)(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exemptLocked(kind)
}

// Is reports whether x is the session.
func (h *handlers) Is(x any) bool { return x == any((*Session)(h)) }

// callHandler is a request as the owner of its handler.
type callHandler Message

// Exempt makes the end of the session not wait for the request's handler. The request is answered, since its handler no longer can, once
// the peer has been told of the end.
func (h *callHandler) Exempt(kind handler.Kind) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.s.exemptLocked(kind)
	h.s.toRefuse = append(h.s.toRefuse, (*Message)(h))
	if h.s.saidGoAway >= phaseDraining || !h.s.exchangesEnds() {
		h.s.answerExempted()
	}
}

// Is reports whether x is the session of the request.
func (h *callHandler) Is(x any) bool { return x == any(h.s) }

// answerExempted answers the requests whose handlers wait for the end of the session. s.mu is held.
func (s *Session) answerExempted() {
	for _, m := range s.toRefuse {
		_ = m.refuseLocked(frame.Failure{Code: codes.Closed, Text: "its handler has closed the session"}) // it may have its answer
	}
	s.toRefuse = nil
}

// exemptLocked counts a handler that the end of the session does not wait for. s.mu is held.
func (s *Session) exemptLocked(kind handler.Kind) {
	s.exempted[kind]++
	s.checkIdle()
	s.stirLocked()
}
