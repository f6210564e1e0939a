package session

import (
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// A session is a tenant of its quota: relief.go.

func (s *Session) holder() *fair.Holder { return s.part.holder }

// use returns how the session is used, and since when.
func (s *Session) use() (use, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.useLocked()
}

func (s *Session) useLocked() (use, time.Time) {
	switch {
	case s.err != nil || s.servesLocked():
		return busy, s.started
	case s.owesLocked() && s.carriers.state != StateDetached:
		return busy, s.started
	case s.streamsLocked():
		if s.isStillLocked() {
			return still, s.activeAt()
		}
		return busy, s.started
	case s.isUnusedLocked() && !s.part.holder.IsKnown() && s.elapsed() >= reliefYoung:
		return unused, s.started
	case s.carriers.state == StateDetached:
		return detached, s.carriers.since
	}
	return idle, s.activeAt()
}

// isStillLocked reports whether nothing has moved on the session's streams for long, and no data waits for this side's application.
func (s *Session) isStillLocked() bool {
	if s.elapsed()-time.Duration(s.activity.last.Load()) < reliefStill {
		return false
	}
	for _, st := range s.shared.open {
		if st.in.unread() {
			return false
		}
	}
	return true
}

// isUnusedLocked reports whether neither side has done anything on the session.
func (s *Session) isUnusedLocked() bool {
	return s.ids.ours == 0 && s.ids.theirs == 0 && len(s.dedicated.open) == 0 && s.activity.lastCall.Load() == 0
}

// isAbandoned reports whether the session has lost its carrier, and when, and no handler runs in it. A peer whose network has just changed is
// given some time.
func (s *Session) isAbandoned() (since time.Time, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since = s.carriers.since
	return since, s.err == nil && s.carriers.state == StateDetached && time.Since(since) >= reliefYoung &&
		s.requests.running == 0 && !s.messages.in.running && s.shared.handlers == 0
}

// abandon ends the session for others who want the memory that it may hold.
func (s *Session) abandon() {
	if _, is := s.isAbandoned(); is {
		s.fail(s.lost("session", failed(noRoom("others want the memory of this session, which has lost its connection"))))
	}
}

// makeRoom ends the session for others who want its place, in order if it has a carrier. It leaves a session that is in use again, and
// reports that.
func (s *Session) makeRoom() (stays bool) {
	f := noRoom("others want the place of this session, which is not used")
	s.mu.Lock()
	u, _ := s.useLocked()
	if u != busy && u != detached {
		s.drainLocked(frame.Failure{Code: codes.GoingAway, RetryAfter: f.RetryAfter, Text: f.Text})
	}
	s.mu.Unlock()
	if u != busy && u != detached && waitUntil(s.ended, time.Now().Add(reliefWait/2)) {
		return false
	}
	if u != busy {
		u, _ = s.use() // what had left before the peer knew is completed
	}
	if u != busy {
		s.fail(s.lost("session", failed(f)))
	}
	return s.Err() == nil
}
