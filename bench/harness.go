package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// settings say how long and how often to measure.
type settings struct {
	Rounds  int           `json:"rounds"`
	Cell    time.Duration `json:"cell_ns"`    // the measured time of one cell
	WarmUp  time.Duration `json:"warm_up_ns"` // runs before it, unmeasured
	Payload string        `json:"payload"`    // kind, see newPayload
}

// grace is how long a call may take beyond the time of its cell.
const grace = 20 * time.Second

// A sample is what one cell measured. The allocation figures come from
// runtime.MemStats and so cover both sides, and a broker if there is one.
type sample struct {
	Calls         int           `json:"calls"`
	CallsPerSec   float64       `json:"calls_per_sec"`
	P50           time.Duration `json:"p50_ns"`
	P99           time.Duration `json:"p99_ns"`
	AllocsPerCall float64       `json:"allocs_per_call"`
	BytesPerCall  float64       `json:"bytes_per_call"`
}

// An entry is a contender on one of its transports, started.
type entry struct {
	name      string
	transport transport
	service   service
}

// startAll starts each contender on each of its transports. On failure it stops
// those it had started.
func startAll(cs []contender) ([]entry, *cleanups, error) {
	var entries []entry
	running := new(cleanups)
	for _, c := range cs {
		for _, t := range c.Transports() {
			s, err := c.Start(t)
			if err != nil {
				return nil, nil, running.fail(fmt.Errorf("start %s over %s: %w", c.Name(), t, err))
			}
			running.push(s.Stop)
			entries = append(entries, entry{name: c.Name(), transport: t, service: s})
		}
	}
	return entries, running, nil
}

// measureAll returns the results of all entries under all loads, load by load.
// It fails at the first call that fails or echoes something else.
func measureAll(entries []entry, loads []load, set settings, progress func(string)) ([]result, error) {
	results := newResults(entries, loads)
	for round := range set.Rounds {
		for i, l := range loads {
			progress(fmt.Sprintf("round %d/%d, %s", round+1, set.Rounds, l))
			row := results[i*len(entries):]
			for k := range entries {
				j := (k + round) % len(entries) // each round starts at another entry
				s, err := measure(entries[j].service, l, set)
				if err != nil {
					return nil, fmt.Errorf("%s over %s, %s: %w", entries[j].name, entries[j].transport, l, err)
				}
				row[j].Rounds = append(row[j].Rounds, s)
			}
		}
	}
	summarize(results)
	return results, nil
}

// measure returns one sample of s under l: warm-up, collection, measured loop.
func measure(s service, l load, set settings) (sample, error) {
	ctx, cancel := context.WithTimeout(context.Background(), set.WarmUp+set.Cell+grace)
	defer cancel()
	workers, closers, err := newWorkers(ctx, s, l, set)
	if err != nil {
		return sample{}, err
	}
	if _, err := runWorkers(workers, set.WarmUp, cancel); err != nil {
		return sample{}, closers.fail(fmt.Errorf("warm-up: %w", err))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	elapsed, err := runWorkers(workers, set.Cell, cancel)
	if err != nil {
		return sample{}, closers.fail(err)
	}
	runtime.ReadMemStats(&after)
	return newSample(workers, elapsed, &before, &after), closers.run()
}

// newSample sums up what workers did in elapsed.
func newSample(workers []*worker, elapsed time.Duration, before, after *runtime.MemStats) sample {
	total := new(histogram)
	for _, w := range workers {
		total.add(&w.latency)
	}
	calls := float64(total.count)
	return sample{
		Calls:         total.count,
		CallsPerSec:   calls / elapsed.Seconds(),
		P50:           total.quantile(0.50),
		P99:           total.quantile(0.99),
		AllocsPerCall: float64(after.Mallocs-before.Mallocs) / calls,
		BytesPerCall:  float64(after.TotalAlloc-before.TotalAlloc) / calls,
	}
}

// runWorkers lets every worker call for d, and returns the time until the last
// call ended. The first error calls abort, which ends the calls of the others.
func runWorkers(workers []*worker, d time.Duration, abort func()) (time.Duration, error) {
	var wg sync.WaitGroup
	var failed sync.Once
	var first error
	start := time.Now()
	for _, w := range workers {
		wg.Go(func() {
			if err := w.run(start, start.Add(d)); err != nil {
				failed.Do(func() { first = err; abort() })
			}
		})
	}
	wg.Wait()
	return time.Since(start), first
}
