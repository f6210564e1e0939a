package session

import (
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
)

// exemptions are the handlers that the end of the session does not wait for.
type exemptions struct {
	count    [handler.Kinds]int // by kind
	toRefuse []*Message         // their requests, until these are answered
}

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
	h.s.exempt.toRefuse = append(h.s.exempt.toRefuse, (*Message)(h))
	if h.s.end.saidGoAway >= phaseDraining || !h.s.exchangesEnds() {
		h.s.answerExemptedLocked()
	}
}

// Is reports whether x is the session of the request.
func (h *callHandler) Is(x any) bool { return x == any(h.s) }

// answerExemptedLocked answers the requests whose handlers wait for the end of the session.
func (s *Session) answerExemptedLocked() {
	for _, m := range s.exempt.toRefuse {
		_ = m.refuseLocked(frame.Failure{Code: codes.Closed, Text: "its handler has closed the session"}) // it may have its answer
	}
	s.exempt.toRefuse = nil
}

// exemptLocked counts a handler that the end of the session does not wait for.
func (s *Session) exemptLocked(kind handler.Kind) {
	s.exempt.count[kind]++
	if s.events.line != nil {
		s.events.line.letPass()
	}
	s.checkIdleLocked()
	s.stirLocked()
}
