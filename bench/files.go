package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
)

// A mover is one system's way to bring the files of a folder to another place.
type mover interface {
	// Name returns the mover's name as the table and -only know it.
	Name() string
	// Missing returns the program that the mover needs and this machine has not,
	// or nothing.
	Missing() string
	// Start starts what stands ready before files are asked for. It fails when
	// that does not come up; nothing is left running then.
	Start(t *fileTree) (runningMover, error)
}

// A runningMover is a started mover. One goroutine uses it.
type runningMover interface {
	// Move returns when the tree is in the directory to, which is empty before.
	Move(ctx context.Context, to string) error
	// Stop ends both sides.
	Stop() error
}

// movers returns every mover in the order of the table; the others are compared
// with the first.
func movers() []mover {
	return []mover{
		fetchMover{},
		pushMover{},
		laneMover{},
		fetchMover{sealed: true},
		rsyncMover{},
		cpMover{},
	}
}

// moveTimeout bounds one move, so that one that hangs ends the run.
const moveTimeout = 5 * time.Minute

// A moveSample is what one run of a mover measured.
type moveSample struct {
	Elapsed     time.Duration `json:"elapsed_ns"`
	MBPerSec    float64       `json:"mb_per_sec"` // 10^6 bytes
	FilesPerSec float64       `json:"files_per_sec"`
	CPUPerByte  float64       `json:"cpu_ns_per_byte,omitempty"` // of both sides; zero if it is not known
}

// A moveResult is everything measured of one mover under one load.
type moveResult struct {
	Load      fileLoad     `json:"load"`
	Contender string       `json:"contender"`
	NotRun    string       `json:"not_run,omitempty"` // why there is nothing else
	Rounds    []moveSample `json:"rounds,omitempty"`
	Median    moveSample   `json:"median,omitzero"` // each field by itself
	Ratio     *ratio       `json:"ratio,omitempty"`
	RatioOf   string       `json:"ratio_of,omitempty"` // whose MB/s by this mover's
}

// measureMove returns one sample: a new mover, a collection, the time until the
// files are in a new directory, and then whether they are the same.
func measureMove(ctx context.Context, m mover, t *fileTree, base string) (s moveSample, err error) {
	to, err := os.MkdirTemp(base, "to-")
	if err != nil {
		return moveSample{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	running, err := m.Start(t)
	if err != nil {
		return moveSample{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	runtime.GC()
	self, children := cpuTimes()
	began := time.Now()
	err = running.Move(ctx, to)
	elapsed := time.Since(began)
	selfAfter, _ := cpuTimes()
	err = errors.Join(err, running.Stop())
	_, childrenAfter := cpuTimes() // a daemon's counts when it has ended
	if err == nil {
		err = t.check(to)
	}
	if err != nil {
		return moveSample{}, err
	}
	return newMoveSample(t.load, elapsed, selfAfter-self+childrenAfter-children), nil
}

// newMoveSample returns what a load in elapsed, with that much CPU, comes to.
func newMoveSample(l fileLoad, elapsed, cpu time.Duration) moveSample {
	bytes := float64(l.bytes())
	return moveSample{
		Elapsed: elapsed, CPUPerByte: float64(cpu) / bytes,
		MBPerSec:    bytes / 1e6 / elapsed.Seconds(),
		FilesPerSec: float64(l.Files) / elapsed.Seconds(),
	}
}

// measureMoves returns the results of all movers under all loads, load by load.
func measureMoves(ctx context.Context, ms []mover, trees []*fileTree, base string, rounds int, progress func(string)) ([]moveResult, error) {
	results := newMoveResults(ms, trees)
	for round := range rounds {
		for i, t := range trees {
			progress(fmt.Sprintf("round %d/%d, %s", round+1, rounds, t.load))
			for k := range ms {
				j := (k + round) % len(ms) // each round starts at another mover
				r := &results[i*len(ms)+j]
				if r.NotRun != "" {
					continue
				}
				s, err := measureMove(ctx, ms[j], t, base)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", ms[j].Name(), t.load, err)
				}
				r.Rounds = append(r.Rounds, s)
			}
		}
	}
	for i := range trees {
		summarizeMoves(results[i*len(ms) : (i+1)*len(ms)])
	}
	return results, nil
}

// newMoveResults returns an empty result for each mover under each load, which
// says so where a program is missing.
func newMoveResults(ms []mover, trees []*fileTree) []moveResult {
	results := make([]moveResult, 0, len(ms)*len(trees))
	for _, t := range trees {
		for _, m := range ms {
			r := moveResult{Load: t.load, Contender: m.Name()}
			if program := m.Missing(); program != "" {
				r.NotRun = program + " is not installed"
			}
			results = append(results, r)
		}
	}
	return results
}

// summarizeMoves fills in the medians and the ratios of the results of one load.
func summarizeMoves(results []moveResult) {
	var first *moveResult
	for i := range results {
		r := &results[i]
		if r.NotRun != "" {
			continue
		}
		if first == nil {
			first = r
		}
		ratios := make([]float64, len(r.Rounds))
		for k := range ratios {
			ratios[k] = first.Rounds[k].MBPerSec / r.Rounds[k].MBPerSec
		}
		of := spread(ratios)
		r.Ratio, r.RatioOf = &of, first.Contender
		r.Median = medianMove(r.Rounds)
	}
}

// medianMove returns the medians of the fields of rounds.
func medianMove(rounds []moveSample) moveSample {
	of := func(field func(moveSample) float64) float64 {
		values := make([]float64, len(rounds))
		for i, s := range rounds {
			values[i] = field(s)
		}
		return median(values)
	}
	return moveSample{
		Elapsed:     time.Duration(of(func(s moveSample) float64 { return float64(s.Elapsed) })),
		MBPerSec:    of(func(s moveSample) float64 { return s.MBPerSec }),
		FilesPerSec: of(func(s moveSample) float64 { return s.FilesPerSec }),
		CPUPerByte:  of(func(s moveSample) float64 { return s.CPUPerByte }),
	}
}
