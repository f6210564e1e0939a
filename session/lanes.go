package session

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/peerlane/peerlane/internal/hook"
)

// A lane runs on top of a stream and buffers data written to it: blocks or records. Close makes each lane write its buffered data to its
// stream, and waits for that before it ends the streams.

// lane is one such lane.
type lane struct {
	flush func(context.Context) error
}

// AddLane registers flush, which Close calls once, before it ends the streams. flush ends the lane's writing direction, and returns when
// the stream has accepted all of it. Its error becomes part of the error of Close. ctx ends when there has been no progress for
// CloseTimeout, and with the session. remove unregisters flush. A nil flush does nothing.
func (s *Session) AddLane(flush func(ctx context.Context) error) (remove func()) {
	if flush == nil {
		return func() {}
	}
	l := &lane{flush}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes == nil {
		s.lanes = make(map[*lane]struct{})
	}
	s.lanes[l] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.lanes, l)
	}
}

// flushLanes calls the flush functions of all lanes, once, and waits for them. The session refuses new work from then on.
func (s *Session) flushLanes() {
	s.mu.Lock()
	if flushed := s.flushed; flushed != nil {
		s.mu.Unlock()
		<-flushed
		return
	}
	flushed := make(chan struct{})
	defer close(flushed)
	lanes := s.lanes
	s.lanes, s.flushed = nil, flushed
	over := s.err != nil || s.phase >= phaseClosing
	s.mu.Unlock()
	if over || len(lanes) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	left := len(lanes)
	var all sync.WaitGroup
	for l := range lanes {
		all.Go(func() {
			var err error
			hook.Run(func() { err = l.flush(ctx) }, func(why *hook.Failure) {
				if why != nil {
					err = fmt.Errorf("flush %w", why)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				left--
				if err != nil {
					s.noteLost(nil, s.laneError(err))
				}
				s.stirLocked()
			})
		})
	}
	s.awaitProgress(func() bool { return left == 0 }, s.progress)
	cancel()
	all.Wait()
}

// laneError returns the error of a flush as a session error.
func (s *Session) laneError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Op: "lane", Peer: s.peer, Outcome: Unknown, Err: err}
}
