package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/peerlane/peerlane/record"
)

// A latencyResult compares a lone record, from WriteRecord until its
// acknowledgement has come, with the round trip of Client.Send, on one session.
type latencyResult struct {
	Record time.Duration `json:"record_p50_ns"` // medians over the rounds
	Send   time.Duration `json:"send_p50_ns"`
	Ratio  ratio         `json:"ratio"` // of the p50s, round by round
}

// measureLatency takes turns between the two.
func measureLatency(set settings) (latencyResult, error) {
	feed, err := recordFeed{}.Start(func([]byte) error { return nil })
	if err != nil {
		return latencyResult{}, err
	}
	running := feed.(*runningRecords)
	payload, err := newPayload(set.Payload, 100)
	if err != nil {
		return latencyResult{}, errors.Join(err, running.Stop())
	}
	var records, sends []time.Duration
	var ratios []float64
	for range set.Rounds {
		r, err1 := lone(set, func(ctx context.Context) error { return applied(ctx, running.stream, payload) })
		s, err2 := lone(set, func(ctx context.Context) error {
			_, err := running.client.Send(ctx, running.hosts.listener.ID(), recordTag, payload)
			return err
		})
		if err := errors.Join(err1, err2); err != nil {
			return latencyResult{}, errors.Join(err, running.Stop())
		}
		records, sends = append(records, r), append(sends, s)
		ratios = append(ratios, float64(r)/float64(s))
	}
	return latencyResult{Record: median(records), Send: median(sends), Ratio: spread(ratios)}, running.Stop()
}

// applied writes one record, and waits until it is acknowledged.
func applied(ctx context.Context, s *record.Stream, payload []byte) error {
	seq, err := s.WriteRecord(ctx, payload)
	if err != nil {
		return err
	}
	return s.BarrierTo(ctx, seq)
}

// lone calls once in a row for a cell's time, and returns the median time of a
// call.
func lone(set settings, once func(context.Context) error) (time.Duration, error) {
	times, err := timed(set, once)
	if err != nil {
		return 0, err
	}
	return times.quantile(0.5), nil
}

// timed calls once in a row for a cell's time, and returns the times of the
// calls.
func timed(set settings, once func(context.Context) error) (*histogram, error) {
	ctx, cancel := context.WithTimeout(context.Background(), set.WarmUp+set.Cell+grace)
	defer cancel()
	times := new(histogram)
	begin := time.Now()
	for end := begin.Add(set.WarmUp + set.Cell); begin.Before(end); {
		if err := once(ctx); err != nil {
			return nil, err
		}
		now := time.Now()
		if end.Sub(now) < set.Cell {
			times.record(now.Sub(begin))
		}
		begin = now
	}
	return times, nil
}

// writeLatency writes the result as one line.
func writeLatency(w io.Writer, r latencyResult) error {
	_, err := fmt.Fprintf(w, "\none record, written until known to be applied: p50 %s; Client.Send: p50 %s; ratio %.2f (%.2f..%.2f)\n",
		micros(r.Record), micros(r.Send), r.Ratio.Median, r.Ratio.Min, r.Ratio.Max)
	return err
}
