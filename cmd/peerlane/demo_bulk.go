package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/session"
)

// bulkSize is what goes over each lane.
const bulkSize = 16 << 20

// bulkLanes: the same many bytes over a shared lane, a dedicated one, and one of four compressed strands.
func bulkLanes(ctx context.Context, l *lab) (figure string, err error) {
	x, err := newExchange(l, demoTag+"bulk", reverseHandler, keys{})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	came := make(chan hashes, 1)
	bulk.Handle(x.server, "sink", nil, func(l *bulk.Lane) {
		h := sha256.New()
		_, err := io.Copy(h, l)
		came <- hashes{got: [sha256.Size]byte(h.Sum(nil)), err: err}
	})
	s, err := x.connect(ctx)
	if err != nil {
		return "", err
	}
	body := make([]byte, bulkSize)
	_, _ = rand.Read(body[bulkSize/2:]) // never fails; half of it shrinks
	var saved float64
	for _, o := range []bulk.Options{{}, {Mode: bulk.Dedicated}, {Mode: bulk.Dedicated, Strands: 4, Compress: true}} {
		v, err := pour(ctx, s, o, body, came)
		if err != nil {
			return "", fmt.Errorf("%v lane: %w", o.Mode, err)
		}
		if v.Compressed {
			saved = 100 * (1 - float64(v.Wire)/float64(v.Raw))
		}
	}
	return fmt.Sprintf("%d MiB shared, dedicated, by 4 strands, %.0f%% saved", bulkSize>>20, saved), nil
}

// pour sends body over a lane of its own, and compares with what came.
func pour(ctx context.Context, s *session.Session, o bulk.Options, body []byte, came <-chan hashes) (v bulk.Snapshot, err error) {
	l, err := bulk.Open(ctx, s, "sink", &o)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	deadline, _ := ctx.Deadline() // every step has one
	if err := l.SetDeadline(deadline); err != nil {
		return v, err
	}
	if _, err := l.Write(body); err != nil {
		return v, err
	}
	if err := l.CloseWrite(); err != nil {
		return v, err
	}
	select {
	case h := <-came:
		if h.err != nil || h.got != sha256.Sum256(body) {
			return v, errors.Join(h.err, errors.New("the bytes that came are not those that were sent"))
		}
	case <-ctx.Done():
		return v, ctx.Err()
	}
	v = l.Snapshot()
	if v.Mode != o.Mode || v.FellBack != nil || v.Strands != max(1, o.Strands) || v.Compressed != o.Compress {
		return v, fmt.Errorf("not as asked for: %+v", v)
	}
	return v, nil
}
