package session

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/peerlane/peerlane/codes"
)

// maxLost bounds how many errors closeError wraps.
const maxLost = 256

// lost is a message or stream that did not arrive, or is not known to have arrived.
type lost struct {
	of  streamConn // nil if it is not a stream
	err *Error
	at  time.Duration // Session.elapsed
}

// noteLost records lost work for closeError. It records a stream once. s.mu is held.
func (s *Session) noteLost(of streamConn, err *Error) {
	if of != nil && slices.ContainsFunc(s.lostThings, func(l lost) bool { return l.of == of }) {
		return
	}
	if p, ok := of.(interface{ isEmpty() bool }); ok && p.isEmpty() {
		return // the lane on it has written nothing but headers
	}
	closing := s.phase >= phaseClosing || s.err != nil
	if !closing {
		s.forgetUnwanted()
	}
	if len(s.lostThings) == maxLost && err.Remote && !closing {
		return // the error lists enough of them already
	}
	if s.lostCount++; len(s.lostThings) < maxLost {
		s.lostThings = append(s.lostThings, lost{of, err, s.elapsed()})
	}
}

// forget takes back the noted things that match. s.mu is held.
func (s *Session) forget(match func(lost) bool) {
	n := len(s.lostThings)
	s.lostThings = slices.DeleteFunc(s.lostThings, match)
	s.lostCount -= n - len(s.lostThings)
}

// forgetErrors removes errors that noteLost has recorded and the application has now. s.mu is held.
func (s *Session) forgetErrors(errs []error) {
	s.forget(func(l lost) bool { return slices.Contains(errs, error(l.err)) })
}

// forgetLost takes back what noteLost has noted of a stream. s.mu is held.
func (s *Session) forgetLost(of streamConn) {
	s.forget(func(l lost) bool { return l.of == of })
}

// unwantedFor is how long it is remembered that the peer did not want the rest of a stream: perhaps because it is closing the session, which
// it says behind all that it had queued.
const unwantedFor = 10 * time.Minute

// forgetUnwanted forgets the streams whose rest the peer refused more than unwantedFor ago. s.mu is held.
func (s *Session) forgetUnwanted() {
	before := s.elapsed() - unwantedFor
	s.forget(func(l lost) bool { return l.err.Remote && l.at < before })
}

// closeError returns the result of Close for a session that has ended.
func (s *Session) closeError() error {
	<-s.finished
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lostCount == 0 {
		return nil
	}
	failed := &Error{Op: "close", Peer: s.peer, Outcome: Unknown}
	if len(s.lostThings) > 0 {
		failed.Outcome = s.lostThings[0].err.Outcome
	}
	all := make([]error, 0, len(s.lostThings)+2)
	for _, l := range s.lostThings {
		if l.err.Outcome != failed.Outcome {
			failed.Outcome = Unknown
		}
		all = append(all, l.err)
	}
	if more := s.lostCount - len(s.lostThings); more > 0 {
		failed.Outcome = Unknown
		all = append(all, fmt.Errorf("and %d more", more))
	}
	switch {
	case s.gaveUp && s.err.Code == codes.Closed:
		failed.Code = codes.Timeout
		failed.Text = fmt.Sprintf("no progress for %v", s.cfg.CloseTimeout)
	case !errors.Is(s.err, ErrClosed):
		failed.Code = s.err.Code
		if cause := s.err.cause(); cause != nil && !slices.ContainsFunc(all, func(err error) bool { return errors.Is(err, cause) }) {
			all = append(all, cause)
		}
	}
	failed.Err = &lostErrors{all}
	return failed
}

// lostErrors joins errors as errors.Join does, but lists those with the same text once.
type lostErrors struct{ all []error }

func (l *lostErrors) Unwrap() []error { return l.all }

func (l *lostErrors) Error() string {
	times := make(map[string]int, len(l.all))
	var texts []string
	for _, err := range l.all {
		text := err.Error()
		if times[text]++; times[text] == 1 {
			texts = append(texts, text)
		}
	}
	for i, text := range texts {
		if n := times[text]; n > 1 {
			texts[i] = fmt.Sprintf("%d times: %s", n, text)
		}
	}
	return strings.Join(texts, "\n")
}
