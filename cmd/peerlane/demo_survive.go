package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/peerlane/peerlane/session"
)

const (
	surviveCount = 3000 // messages
	surviveCuts  = 5
)

// cutAndResumed: the connection is cut in the middle of a conversation, again and again. The session goes on over the next
// one; the application sees no error, and every message is handled once and in its turn.
func cutAndResumed(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, demoTag+"survive", reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	var seen, wrong atomic.Uint64
	x.server.SetLink("log", func(m *session.Message) {
		if binary.BigEndian.Uint64(m.Value) != seen.Add(1)-1 {
			wrong.Add(1)
		}
	})
	s, err := x.connect(ctx)
	if err != nil {
		return "", err
	}
	for i := range surviveCount {
		if i%(surviveCount/surviveCuts) == surviveCount/surviveCuts/2 {
			if err := l.b.Host().Network().ClosePeer(l.a.Host().ID()); err != nil {
				return "", err
			}
		}
		if err := s.Send(ctx, "log", numbered(i, callSize)); err != nil {
			return "", fmt.Errorf("message %d: %w", i, err)
		}
		if i%100 == 99 { // lets what is under way be cut off, too
			if _, err := s.Call(ctx, "", numbered(i, callSize)); err != nil {
				return "", fmt.Errorf("call after message %d: %w", i, err)
			}
		}
	}
	if err := s.Flush(ctx); err != nil {
		return "", err
	}
	v := s.Snapshot()
	if seen.Load() != surviveCount || wrong.Load() != 0 || v.Resumes == 0 {
		return "", fmt.Errorf("%d of %d messages were handled, %d out of order, over %d resumptions",
			seen.Load(), surviveCount, wrong.Load(), v.Resumes)
	}
	return fmt.Sprintf("%d messages in order, %d cuts, %d resumptions", seen.Load(), surviveCuts, v.Resumes), nil
}

// movedInOrder: the session moves to another carrier while the old one lives and calls are under way.
func movedInOrder(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, demoTag+"move", reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	s, err := x.connect(ctx)
	if err != nil {
		return "", err
	}
	const moves = 10
	for i := range moves {
		called := make(chan error, 1)
		go func() { // ends with ctx, at the latest
			_, err := s.Call(ctx, "", numbered(i, callSize))
			called <- err
		}()
		if err := errors.Join(s.Reconnect(ctx), <-called); err != nil {
			return "", err
		}
	}
	var v session.Snapshot
	err = eventually(ctx, func() error {
		if v = s.Snapshot(); v.Migrations != moves || v.Resumes != 0 {
			return fmt.Errorf("%d of %d moves, %d losses", v.Migrations, moves, v.Resumes)
		}
		return nil
	})
	return fmt.Sprintf("%d times to a new carrier, %d bytes sent again", v.Migrations, v.Resent), err
}
