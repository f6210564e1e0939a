package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/peerlane/peerlane/record"
)

const recordCount = 20000

// recordsApplied: records are written while the connection is cut and one of them fails at first; the barrier says that every one
// has been applied, and the other side that it was once, and in its turn.
func recordsApplied(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, demoTag+"records", reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	applied, failures := uint64(0), 0
	over := make(chan error, 1)
	record.Handle(x.server, "log", nil, func(s *record.Stream) {
		over <- record.Apply(ctx, s, func(_ context.Context, r record.Record) error {
			if r.Seq == recordCount/2 && failures == 0 {
				failures++
				return &record.RecordFailure{Code: 7, Retryable: true, Message: "not now"}
			}
			if n := binary.BigEndian.Uint64(r.Payload); n != applied {
				return fmt.Errorf("record %d where %d is due", n, applied)
			}
			applied++
			return nil
		}, nil)
	})
	session, err := x.connect(ctx)
	if err != nil {
		return "", err
	}
	s, err := record.Open(ctx, session, "log", nil)
	if err != nil {
		return "", err
	}
	if err := writeRecords(ctx, l, s); err != nil {
		return "", errors.Join(err, s.Close())
	}
	if err := errors.Join(s.Barrier(ctx), s.Close(), <-over); err != nil {
		return "", err
	}
	v := s.Snapshot()
	if applied != recordCount || failures != 1 || v.Acked != recordCount || v.FailuresIn != 1 {
		return "", fmt.Errorf("%d of %d records were applied, %d acknowledged, %d failures of 1", applied, recordCount, v.Acked, v.FailuresIn)
	}
	return fmt.Sprintf("%d applied once, in order; a cut, a failure", applied), nil
}

// writeRecords writes recordCount records, and cuts the connection on the way.
func writeRecords(ctx context.Context, l *lab, s *record.Stream) error {
	for i := 0; i < recordCount; {
		if i == recordCount/4 {
			if err := l.b.Host().Network().ClosePeer(l.a.Host().ID()); err != nil {
				return err
			}
		}
		switch _, err := s.WriteRecord(ctx, numbered(i, callSize)); {
		case err == nil:
			i++
		case !sendAgain(s, err):
			return err
		}
	}
	if err := s.Barrier(ctx); err != nil && !sendAgain(s, err) {
		return err
	}
	return nil
}

// sendAgain has a record that has failed for now sent again, and reports whether err was that.
func sendAgain(s *record.Stream, err error) bool {
	failed, ok := errors.AsType[*record.RecordFailure](err)
	return ok && failed.Retryable && s.Resend() == nil
}
