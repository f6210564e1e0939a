package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// A feed is one system's way to hand records to another program in order: one
// goroutine writes, one reads, over TCP with TLS.
type feed interface {
	// Name returns the feed's name as the table knows it.
	Name() string
	// Start starts both sides. The reader gives every record to got.
	Start(got func([]byte) error) (runningFeed, error)
}

// A runningFeed is a started feed. One goroutine uses it.
type runningFeed interface {
	// Write takes the records, which it may keep until Settle returns.
	Write(ctx context.Context, records [][]byte) error
	// Settle returns when the reader has had, and where the feed knows of that
	// applied, the first n records of all.
	Settle(ctx context.Context, n uint64) error
	// Stop ends both sides.
	Stop() error
}

// feeds returns every feed in the order of the table; the first is the subject.
func feeds() []feed {
	return []feed{
		recordFeed{batch: true},
		recordFeed{},
		grpcFeed{},
		natsFeed{},
	}
}

// feedGroup is how many records a writer makes before it hands them over.
const feedGroup = 64

// recordSizes are the loads of the feeds.
var recordSizes = []int{100, 1 << 10}

// A feedSample is what one cell of a feed measured.
type feedSample struct {
	Records         uint64  `json:"records"`
	RecordsPerSec   float64 `json:"records_per_sec"`
	AllocsPerRecord float64 `json:"allocs_per_record"`
}

// A feedResult is everything measured of one feed with one size of records.
type feedResult struct {
	Feed   string       `json:"feed"`
	Size   int          `json:"size"`
	Rounds []feedSample `json:"rounds"`
	Median float64      `json:"median_records_per_sec"`
	Allocs float64      `json:"median_allocs_per_record"`
	Ratio  ratio        `json:"ratio"` // the subject's records per second by this feed's
}

// sequence checks that records come once each and in order.
type sequence struct {
	size int
	next uint64
}

func (q *sequence) got(record []byte) error {
	if len(record) != q.size {
		return fmt.Errorf("record of %d bytes, want %d", len(record), q.size)
	}
	if n := binary.BigEndian.Uint64(record); n != q.next {
		return fmt.Errorf("record %d, want %d", n, q.next)
	}
	q.next++
	return nil
}

// measureFeed returns one sample: a new feed, warm-up, collection, and the time
// until the last of the records is through.
func measureFeed(f feed, size int, set settings) (feedSample, error) {
	check := sequence{size: size}
	running, err := f.Start(check.got)
	if err != nil {
		return feedSample{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), set.WarmUp+set.Cell+grace)
	defer cancel()
	w := feedWriter{feed: running}
	if w.group, err = newGroup(set.Payload, size); err != nil {
		return feedSample{}, errors.Join(err, running.Stop())
	}
	err = w.run(ctx, set.WarmUp)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began, first := time.Now(), w.written
	if err == nil {
		err = w.run(ctx, set.Cell)
	}
	elapsed := time.Since(began)
	runtime.ReadMemStats(&after)
	if err := errors.Join(err, running.Stop()); err != nil {
		return feedSample{}, err
	}
	n := w.written - first
	return feedSample{
		Records: n, RecordsPerSec: float64(n) / elapsed.Seconds(),
		AllocsPerRecord: float64(after.Mallocs-before.Mallocs) / float64(n),
	}, nil
}

// newGroup returns feedGroup records of their own bytes each.
func newGroup(kind string, size int) ([][]byte, error) {
	group := make([][]byte, feedGroup)
	for i := range group {
		var err error
		if group[i], err = newPayload(kind, size); err != nil {
			return nil, err
		}
	}
	return group, nil
}

// feedWriter is the one goroutine that writes to a feed.
type feedWriter struct {
	feed    runningFeed
	group   [][]byte
	written uint64
}

// run writes for d, and returns when all has arrived.
func (w *feedWriter) run(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		for i, record := range w.group {
			binary.BigEndian.PutUint64(record, w.written+uint64(i))
		}
		if err := w.feed.Write(ctx, w.group); err != nil {
			return err
		}
		w.written += uint64(len(w.group))
	}
	return w.feed.Settle(ctx, w.written)
}

// measureFeeds returns the results of all feeds with all sizes.
func measureFeeds(fs []feed, set settings, progress func(string)) ([]feedResult, error) {
	results := make([]feedResult, 0, len(fs)*len(recordSizes))
	for _, size := range recordSizes {
		for _, f := range fs {
			results = append(results, feedResult{Feed: f.Name(), Size: size})
		}
	}
	for round := range set.Rounds {
		for i, size := range recordSizes {
			progress(fmt.Sprintf("round %d/%d, records of %d B", round+1, set.Rounds, size))
			for k := range fs {
				j := (k + round) % len(fs) // each round starts at another feed
				s, err := measureFeed(fs[j], size, set)
				if err != nil {
					return nil, fmt.Errorf("%s, records of %d B: %w", fs[j].Name(), size, err)
				}
				r := &results[i*len(fs)+j]
				r.Rounds = append(r.Rounds, s)
			}
		}
	}
	for i := range results {
		r, first := &results[i], &results[i-i%len(fs)]
		r.Median = median(each(r.Rounds, func(s feedSample) float64 { return s.RecordsPerSec }))
		r.Allocs = median(each(r.Rounds, func(s feedSample) float64 { return s.AllocsPerRecord }))
		ratios := make([]float64, len(r.Rounds))
		for k := range ratios {
			ratios[k] = first.Rounds[k].RecordsPerSec / r.Rounds[k].RecordsPerSec
		}
		r.Ratio = spread(ratios)
	}
	return results, nil
}

// spread returns median and range of the ratios of the rounds.
func spread(ratios []float64) ratio {
	return ratio{Min: slices.Min(ratios), Max: slices.Max(ratios), Median: median(ratios)}
}

// each returns one figure of every round.
func each(rounds []feedSample, figure func(feedSample) float64) []float64 {
	figures := make([]float64, len(rounds))
	for i, s := range rounds {
		figures[i] = figure(s)
	}
	return figures
}

// writeFeeds writes the results as one table.
func writeFeeds(w io.Writer, results []feedResult) error {
	_, err := fmt.Fprintf(w, "%-8s  %-16s %12s %9s   %s\n", "records", "feed", "records/s", "allocs", "peerlane batch /")
	for _, r := range results {
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%-8s  %-16s %12.0f %9.2f   %.2f (%.2f..%.2f)\n", fmt.Sprintf("%d B", r.Size), r.Feed,
			r.Median, r.Allocs, r.Ratio.Median, r.Ratio.Min, r.Ratio.Max)
	}
	return err
}
