package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/internal/registry"
)

// A lane runs on top of a stream and buffers data written to it: blocks or records. Close makes each lane write its buffered data to its
// stream, and waits for that before it ends the streams.

// lanes are the lanes of a session.
type lanes struct {
	open  map[*openLane]struct{}
	shown registry.Registry[*shownLane] // has its own lock

	counting sync.Mutex       // held from the removal of a lane from shown until its counts are in past, and from the report of a lane until it is shown
	past     *registry.Counts // of the lanes that have been removed; nil: 0
	over     bool             // the ends of all lanes have been reported to hooks; guarded by counting
}

// shownLane is a lane that diagnostics list.
type shownLane struct {
	kind, name string
	snapshot   func() any
	count      func(*registry.Counts) // adds the lane's counts; nil: none
	ended      atomic.Bool            // OnLaneClose has been told
}

// announceShown reports to hooks that a lane is open, or has ended. That it has ended is reported once.
func (s *Session) announceShown(l *shownLane, open bool) {
	if open || !l.ended.Swap(true) {
		s.hookLane(Lane{Kind: l.kind, Name: l.name}, open)
	}
}

// openLane is one such lane.
type openLane struct {
	flush func(context.Context) error
}

// flushOnClose is the FlushOnClose of a stream of the session.
func (s *Session) flushOnClose(flush func(ctx context.Context) error) (remove func()) {
	if flush == nil {
		return func() {}
	}
	l := &openLane{flush}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes.open == nil {
		s.lanes.open = make(map[*openLane]struct{})
	}
	s.lanes.open[l] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.lanes.open, l)
	}
}

// flushLanes calls the flush functions of all lanes, once, and waits for them. The session refuses new work from then on.
func (s *Session) flushLanes() {
	s.mu.Lock()
	if flushed := s.end.flushed; flushed != nil {
		s.mu.Unlock()
		<-flushed
		return
	}
	flushed := make(chan struct{})
	defer close(flushed)
	lanes := s.lanes.open
	s.lanes.open, s.end.flushed = nil, flushed
	s.mu.Unlock()
	if len(lanes) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	left := len(lanes)
	var all sync.WaitGroup
	for l := range lanes {
		all.Go(func() {
			var err error
			hook.Run(func() { err = hook.Err(l.flush(ctx)) }, func(why *hook.Failure) {
				if why != nil {
					err = fmt.Errorf("flush %w", why)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				left--
				if err != nil {
					s.noteLostLocked(nil, s.laneError(err))
				}
				s.stirLocked()
			})
		})
	}
	s.awaitProgress(func() bool { return left == 0 }, s.progressLocked)
	cancel()
	all.Wait()
}

// laneError returns the error of a flush as a session error.
func (s *Session) laneError(err error) *Error {
	failed := &Error{Op: "lane", Peer: s.peer, Outcome: Unknown, Err: err}
	var e *Error
	if errors.As(err, &e) {
		failed.Link, failed.Outcome = e.Link, e.Outcome
	}
	return failed
}
