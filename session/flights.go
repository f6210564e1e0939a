package session

import "time"

// watchFlightsLocked makes sure that a flight that holds up a Write is checked again.
func (s *Session) watchFlightsLocked() {
	if s.shared.watching || s.err != nil {
		return
	}
	s.shared.watching = true
	if s.shared.watch == nil {
		s.shared.watch = time.AfterFunc(leastRelax, s.relaxFlights)
	} else {
		s.shared.watch.Reset(leastRelax)
	}
}

// stopWatch ends the timers of streams with the session.
func (s *Session) stopWatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared.watch != nil {
		s.shared.watch.Stop()
	}
	if s.shared.ask != nil {
		s.shared.ask.Stop()
	}
}

// relaxFlights lets flights that hold up a Write allow more if nothing moves. A timer, which ends with the session, calls it.
func (s *Session) relaxFlights() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared.watching = false
	now, away := s.elapsed(), s.carriers.flow != nil && s.carriers.state == StateDetached
	for _, st := range s.shared.open {
		if len(st.out) > 0 && st.credit > 0 && st.flight.room() == 0 && !away {
			st.flight.relax(now)
		}
		st.offerLocked() // calls watchFlightsLocked again while it is held up
	}
}

// mostQueueForLocked returns how long the bytes of streams may queue now, if they take least without a queue.
func (s *Session) mostQueueForLocked(least time.Duration) time.Duration {
	if last := time.Duration(s.activity.lastCall.Load()); last == 0 || s.elapsed()-last > attentive {
		return mostQueue
	}
	return min(max(least, leastQueue), mostQueue)
}
