package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/session"
)

// A besideSample is what one cell of Client.Send measured.
type besideSample struct {
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	MBPerSec float64       `json:"mb_per_sec"` // of what ran beside it, 10^6 bytes
}

// A besideResult is Client.Send beside something else on its connection.
type besideResult struct {
	Beside string         `json:"beside"` // empty: it was alone
	Rounds []besideSample `json:"rounds"`
	Median besideSample   `json:"median"` // each field by itself
	Ratio  ratio          `json:"ratio"`  // of the p99 to that of Send alone, round by round
}

// A neighbour is what runs beside the calls until ctx ends. It returns how many
// bytes it has moved, and no error because of ctx.
type neighbour struct {
	name string
	run  func(ctx context.Context) (int64, error)
}

// besideSize is a call's, each way.
const besideSize = 128

const fillName = "fill" // of the lane

// measureBeside takes turns between Send alone and its neighbours, all on one
// connection of two hosts. What comes, goes below base.
func measureBeside(ctx context.Context, t *fileTree, base string, set settings) ([]besideResult, error) {
	s, err := startFetch(t, false)
	if err != nil {
		return nil, err
	}
	payload, err := newPayload(set.Payload, besideSize)
	if err != nil {
		return nil, s.fail(err)
	}
	send := func(ctx context.Context) error {
		_, err := s.client.Send(ctx, s.listener.ID(), filesTag, payload)
		return err
	}
	if err := send(ctx); err != nil { // so that its session is there
		return nil, s.fail(err)
	}
	bulk.Handle(s.client, fillName, nil, func(l *bulk.Lane) { _, _ = io.Copy(io.Discard, l) }) // the lane's other end says what failed
	neighbours := []neighbour{
		{"", func(ctx context.Context) (int64, error) { <-ctx.Done(); return 0, nil }},
		{"a shared bulk lane", s.fill},
		{"a fetch", func(ctx context.Context) (int64, error) { return s.fetchAgain(ctx, base, t.load.bytes()) }},
	}
	results := make([]besideResult, len(neighbours))
	for range set.Rounds {
		for i, n := range neighbours {
			sample, err := measureSend(ctx, set, send, n)
			if err != nil {
				return nil, s.fail(fmt.Errorf("Send beside %q: %w", n.name, err))
			}
			results[i].Beside = n.name
			results[i].Rounds = append(results[i].Rounds, sample)
		}
	}
	summarizeBeside(results)
	return results, s.Stop()
}

// measureSend calls for a cell's time, while the neighbour runs.
func measureSend(ctx context.Context, set settings, send func(context.Context) error, n neighbour) (besideSample, error) {
	beside, stop := context.WithCancel(ctx)
	defer stop()
	var moved int64
	ended := make(chan error, 1)
	began := time.Now()
	go func() {
		var err error
		moved, err = n.run(beside)
		ended <- err
	}()
	times, err := timed(set, send)
	stop()
	if err := errors.Join(err, <-ended, ctx.Err()); err != nil {
		return besideSample{}, err
	}
	return besideSample{
		P50: times.quantile(0.5), P99: times.quantile(0.99),
		MBPerSec: float64(moved) / 1e6 / time.Since(began).Seconds(),
	}, nil
}

// fill is a neighbour: the server writes without end to a shared lane of the
// session that Client.Send uses, which is not the one of Client.Connect.
func (s *runningFetch) fill(ctx context.Context) (int64, error) {
	sessions := s.server.Sessions()
	i := slices.IndexFunc(sessions, func(one *session.Session) bool { return one.ID() != s.session.ID() })
	if i < 0 {
		return 0, errors.New("the server has no session of Client.Send")
	}
	lane, err := bulk.Open(context.WithoutCancel(ctx), sessions[i], fillName, &bulk.Options{Mode: bulk.Shared})
	if err != nil {
		return 0, err
	}
	block := make([]byte, copyBuffer)
	var written int64
	for ctx.Err() == nil {
		n, err := lane.Write(block)
		written += int64(n)
		if err != nil {
			return written, errors.Join(err, lane.Close())
		}
	}
	return written, lane.Close()
}

// fetchAgain is a neighbour: the client fetches the tree again and again. Between
// two fetches, what has come is removed.
func (s *runningFetch) fetchAgain(ctx context.Context, base string, size int64) (int64, error) {
	var moved int64
	for ctx.Err() == nil {
		to, err := os.MkdirTemp(base, "beside-")
		if err != nil {
			return moved, err
		}
		t := s.fetch(ctx, to)
		err = wait(t)
		moved += min(t.Progress().Verified, size)
		if ctx.Err() != nil {
			err = nil
		}
		if err := errors.Join(err, os.RemoveAll(to)); err != nil {
			return moved, err
		}
	}
	return moved, nil
}

// summarizeBeside fills in the medians, and the ratios to the first result.
func summarizeBeside(results []besideResult) {
	for i := range results {
		r := &results[i]
		var p50s, p99s []time.Duration
		var speeds, ratios []float64
		for k, s := range r.Rounds {
			p50s, p99s, speeds = append(p50s, s.P50), append(p99s, s.P99), append(speeds, s.MBPerSec)
			ratios = append(ratios, float64(s.P99)/float64(results[0].Rounds[k].P99))
		}
		r.Median = besideSample{P50: median(p50s), P99: median(p99s), MBPerSec: median(speeds)}
		r.Ratio = spread(ratios)
	}
}
