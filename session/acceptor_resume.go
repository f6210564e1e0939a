package session

import (
	"context"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// answerResume accepts a further carrier for a session.
func (a *Acceptor) answerResume(h *frame.Hello, ack func(*frame.Hello) (carrier, error), peer string) (func(), error) {
	s := a.find(h.SessionID)
	if s == nil || s.peer != peer || s.carriers.flow == nil { // only its own peer may name a session
		return nil, &Error{Code: codes.NotFound, Text: "no such session"}
	}
	ctx, cancel := context.WithTimeout(s.ctx, a.cfg.HandshakeTimeout)
	defer cancel()
	if err := s.takeTurn(ctx); err != nil {
		return nil, &Error{Code: codes.Unavailable, RetryAfter: retryHint, Text: "another carrier is being taken"}
	}
	defer s.giveTurn()
	if h.Resume.Attempt <= s.carriers.attempt {
		return nil, &Error{Code: codes.Unavailable, Text: "a later attempt has been made"}
	}
	if err := s.checkReceived(h.Resume.Received); err != nil {
		return nil, &Error{Code: codes.Protocol, Text: err.Error()}
	}
	s.carriers.attempt = h.Resume.Attempt
	if h.Resume.Live {
		_ = s.carriers.flow.AwaitSettled(ctx) // the end of an earlier move may be in progress; if it does not come, this is no move
	}
	received, live := s.carriers.flow.Received()
	if live = live && h.Resume.Live; !live {
		if err := s.carriers.flow.Pause(); err != nil {
			return nil, &Error{Code: codes.NotFound, Text: "no such session"}
		}
		s.onLost(errSuperseded)
		received, _ = s.carriers.flow.Received()
	}
	c, err := ack(&frame.Hello{Resume: &frame.Resume{Received: received, Attempt: s.carriers.attempt, Live: live}})
	if err != nil {
		return nil, err
	}
	_ = s.attach(c, h.Resume.Received, live) // without a carrier the session waits for the next one, if it has not ended
	return func() {}, nil
}
