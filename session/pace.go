package session

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// refuseStalledLocked refuses incomplete requests that have made no progress for ReadTimeout. If all incomplete bodies together arrive too
// slowly, it refuses the largest. Time without a carrier does not count. A one-way message cannot be refused alone, because no other can pass
// it: it ends the session.
func (s *Session) refuseStalledLocked() error {
	now := s.carriedLocked()
	for _, m := range s.requests.open {
		late := !m.ctx.deadline.IsZero() && s.elapsed() > m.ctx.deadline.Sub(s.started)
		if !m.started && (late || now-m.in.progress >= s.cfg.ReadTimeout) {
			s.refuseLateLocked(m)
		}
	}
	if m := s.messages.in.current; m != nil && now-m.in.progress >= s.cfg.ReadTimeout {
		return stalled(m)
	}
	most, over := s.requests.pace.Most(now, s.cfg.ReadTimeout)
	if !over {
		return nil
	}
	return s.refuseSlowLocked(most)
}

// refuseSlowLocked refuses the largest incomplete bodies until they hold no more than most.
func (s *Session) refuseSlowLocked(most int) error {
	var partial []*Message
	held := 0
	for _, m := range s.requests.open {
		if !m.started {
			partial = append(partial, m)
			held += m.held
		}
	}
	if m := s.messages.in.current; m != nil {
		partial = append(partial, m)
		held += m.held
	}
	slices.SortFunc(partial, func(a, b *Message) int { return cmp.Compare(b.held, a.held) })
	for _, m := range partial {
		if held <= most {
			return nil
		}
		held -= m.held
		if m.oneWay {
			return stalled(m)
		}
		s.refuseLateLocked(m)
	}
	return nil
}

// carriedLocked returns how long the session has had a carrier. A peer that changes carriers, or drops them, gets no more time by that.
func (s *Session) carriedLocked() time.Duration { return s.elapsed() - s.carriers.away }

func (s *Session) refuseLateLocked(m *Message) {
	s.refusePartialLocked(m, frame.Failure{Code: codes.Timeout,
		Text: fmt.Sprintf("%d of %d bytes came in time", m.in.got, m.in.start.Total)})
}

func stalled(m *Message) error {
	return fmt.Errorf("message %d stalled at %d of %d bytes: %w", m.id, m.in.got, m.in.start.Total, os.ErrDeadlineExceeded)
}
