package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/session"
)

const (
	messageCount = 5000
	replyCount   = 1000
	objectCount  = 500
)

// orderedMessages: Send queues, the peer handles them one at a time in order, each once, and Flush waits for the last.
func orderedMessages(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, demoTag+"messages", reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	var seen, wrong atomic.Uint64
	x.server.SetLink("log", func(m *session.Message) {
		if len(m.Value) != callSize || binary.BigEndian.Uint64(m.Value) != seen.Load() {
			wrong.Add(1)
		}
		seen.Add(1)
	})
	s, err := x.connect(ctx)
	if err != nil {
		return "", err
	}
	began := time.Now()
	for i := range messageCount {
		if err := s.Send(ctx, "log", numbered(i, callSize)); err != nil {
			return "", err
		}
	}
	if err := s.Flush(ctx); err != nil {
		return "", err
	}
	took := time.Since(began)
	if seen.Load() != messageCount || wrong.Load() != 0 {
		return "", fmt.Errorf("%d of %d messages were handled, %d out of order", seen.Load(), messageCount, wrong.Load())
	}
	return fmt.Sprintf("%d sent, %d handled in order, %.0f messages/s",
		messageCount, seen.Load(), messageCount/took.Seconds()), nil
}

// messageAndReply: SendWait gets the Reply to its own message.
func messageAndReply(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, demoTag+"replies", reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	x.server.SetLink("greet", func(m *session.Message) { _ = m.Reply(reversed(m.Value)) }) // the sender sees what fails
	s, err := x.connect(ctx)
	if err != nil {
		return "", err
	}
	for i := range replyCount {
		body := numbered(i, callSize)
		reply, err := s.SendWait(ctx, "greet", body)
		if err != nil {
			return "", err
		}
		if string(reply.Value) != string(reversed(body)) {
			return "", fmt.Errorf("message %d: another reply came back", i)
		}
	}
	return fmt.Sprintf("%d sent, %d replies", replyCount, replyCount), nil
}

// reading is a value as an application sends it.
type reading struct {
	Sensor string
	N      int
	Values []float64
}

// objects: a value is the same value at the peer, and so is the one it answers with.
func objects(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, demoTag+"objects", reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	var sum atomic.Int64
	x.server.SetLink("store", func(m *session.Message) { store(m, &sum) })
	x.server.SetLink("next", next)
	s, err := x.connect(ctx)
	if err != nil {
		return "", err
	}
	for i := range objectCount {
		if err := sendObject(ctx, s, i); err != nil {
			return "", err
		}
	}
	if err := s.Flush(ctx); err != nil {
		return "", err
	}
	if want := int64(objectCount * (objectCount - 1) / 2); sum.Load() != want {
		return "", fmt.Errorf("the peer stored other objects: sum %d, want %d", sum.Load(), want)
	}
	return fmt.Sprintf("%d sent one-way, %d with an answer", objectCount, objectCount), nil
}

// store adds up what comes whole.
func store(m *session.Message, sum *atomic.Int64) {
	var r reading
	if m.Object(&r) == nil && r.Sensor == "north" && len(r.Values) == 2 {
		sum.Add(int64(r.N))
	}
}

// next answers a reading with the next one.
func next(m *session.Message) {
	var r reading
	if err := m.Object(&r); err != nil {
		_ = m.Refuse(err) // the sender sees what fails
		return
	}
	r.N++
	_ = m.ReplyObj("", r) // likewise
}

// sendObject sends reading n both ways.
func sendObject(ctx context.Context, s *session.Session, n int) error {
	sent := reading{"north", n, []float64{1.5, -2}}
	if err := s.SendObj(ctx, "store", "", sent); err != nil {
		return err
	}
	var got reading
	if err := s.SendWaitObj(ctx, "next", "", sent, &got); err != nil {
		return err
	}
	if got.N != n+1 || got.Sensor != sent.Sensor || !slices.Equal(got.Values, sent.Values) {
		return fmt.Errorf("object %d came back as %+v", n, got)
	}
	return nil
}
