package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// natsFeed is NATS core publish and subscribe through a server in this process,
// over TLS, with no limits on what waits: a slow reader would lose messages.
type natsFeed struct{}

// Name returns the feed's name.
func (natsFeed) Name() string { return "nats pub/sub" }

// Start returns a publisher and a subscriber.
func (natsFeed) Start(got func([]byte) error) (runningFeed, error) {
	pair, err := newTLSPair()
	if err != nil {
		return nil, err
	}
	s := &runningNATS{more: make(chan struct{}, 1), failed: make(chan error, 1)}
	if err := s.start(pair); err != nil {
		return nil, s.fail(err)
	}
	err = s.subscribe(pair, func(m *nats.Msg) {
		if err := got(m.Data); err != nil {
			select {
			case s.failed <- err:
			default:
			}
		}
		if s.received.Add(1) == s.wanted.Load() {
			select {
			case s.more <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return nil, s.fail(err)
	}
	return s, nil
}

// runningNATS is a started natsFeed.
type runningNATS struct {
	natsService
	written  uint64
	received atomic.Uint64
	wanted   atomic.Uint64 // whom await waits for
	more     chan struct{}
	failed   chan error
}

// subscribe adds the reader.
func (s *runningNATS) subscribe(pair tlsPair, fn nats.MsgHandler) error {
	c, err := s.connect(s.broker, pair)
	if err != nil {
		return err
	}
	sub, err := c.Subscribe("bench.feed", fn)
	if err != nil {
		return err
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	return c.FlushTimeout(startTimeout)
}

// natsAhead is how many records the writer may be ahead of the reader: NATS has
// no window of its own, and drops what a slow reader leaves.
const natsAhead = 1 << 16

// Write publishes each record.
func (s *runningNATS) Write(ctx context.Context, records [][]byte) error {
	for _, r := range records {
		if err := s.requester.Publish("bench.feed", r); err != nil {
			return err
		}
	}
	s.written += uint64(len(records))
	if s.written-s.received.Load() < natsAhead {
		return nil
	}
	if err := s.requester.FlushTimeout(startTimeout); err != nil {
		return err
	}
	return s.await(ctx, s.written-natsAhead/2)
}

// Settle waits until the reader has had n records.
func (s *runningNATS) Settle(ctx context.Context, n uint64) error {
	if err := s.requester.FlushTimeout(startTimeout); err != nil {
		return err
	}
	return s.await(ctx, n)
}

func (s *runningNATS) await(ctx context.Context, n uint64) error {
	s.wanted.Store(n)
	for s.received.Load() < n {
		select {
		case <-s.more:
		case <-time.After(100 * time.Millisecond): // wanted may have been stored too late
		case err := <-s.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
