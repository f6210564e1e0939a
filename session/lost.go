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

// undelivered is the work that did not arrive, or is not known to have arrived, for the error of Close.
type undelivered struct {
	things []lost // at most maxLost
	count  int    // in all
}

// lost is a message or stream that did not arrive, or is not known to have arrived.
type lost struct {
	of  any // the stream; nil if it is not one
	err *Error
	at  time.Duration // Session.elapsed
}

// noteLostLocked records lost work for closeError. It records a stream once.
func (s *Session) noteLostLocked(of any, err *Error) {
	if of != nil && slices.ContainsFunc(s.undelivered.things, func(l lost) bool { return l.of == of }) {
		return
	}
	if p, ok := of.(interface{ isEmpty() bool }); ok && p.isEmpty() {
		return // the lane on it has written nothing but headers
	}
	closing := s.end.ours >= phaseClosing || s.err != nil
	if !closing {
		s.forgetUnwantedLocked()
	}
	if len(s.undelivered.things) == maxLost && err.Remote && !closing {
		return // the error lists enough of them already
	}
	if s.undelivered.count++; len(s.undelivered.things) < maxLost {
		s.undelivered.things = append(s.undelivered.things, lost{of, err, s.elapsed()})
	}
}

// forgetLocked takes back the noted things that match.
func (s *Session) forgetLocked(match func(lost) bool) {
	n := len(s.undelivered.things)
	s.undelivered.things = slices.DeleteFunc(s.undelivered.things, match)
	s.undelivered.count -= n - len(s.undelivered.things)
}

// forgetErrorsLocked removes errors that noteLostLocked has recorded and the application has now.
func (s *Session) forgetErrorsLocked(errs []error) {
	s.forgetLocked(func(l lost) bool { return slices.Contains(errs, error(l.err)) })
}

// forgetLostLocked takes back what noteLostLocked has noted of a stream.
func (s *Session) forgetLostLocked(of any) {
	s.forgetLocked(func(l lost) bool { return l.of == of })
}

// unwantedFor is how long it is remembered that the peer did not want the rest of a stream: perhaps because it is closing the session, which
// it says behind all that it had queued.
const unwantedFor = 10 * time.Minute

// forgetUnwantedLocked forgets the streams whose rest the peer refused more than unwantedFor ago.
func (s *Session) forgetUnwantedLocked() {
	before := s.elapsed() - unwantedFor
	s.forgetLocked(func(l lost) bool { return l.err.Remote && l.at < before })
}

// closeError returns the result of Close for a session that has ended.
func (s *Session) closeError() error {
	<-s.finished
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.undelivered.count == 0 {
		return nil
	}
	failed := &Error{Op: "close", Peer: s.peer, Outcome: Unknown}
	if len(s.undelivered.things) > 0 {
		failed.Outcome = s.undelivered.things[0].err.Outcome
	}
	all := make([]error, 0, len(s.undelivered.things)+2)
	for _, l := range s.undelivered.things {
		if l.err.Outcome != failed.Outcome {
			failed.Outcome = Unknown
		}
		all = append(all, l.err)
	}
	if more := s.undelivered.count - len(s.undelivered.things); more > 0 {
		failed.Outcome = Unknown
		all = append(all, fmt.Errorf("and %d more", more))
	}
	switch {
	case s.end.ours == phaseGaveUp && s.err.Code == codes.Closed:
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
