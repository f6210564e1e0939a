package main

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"time"
)

// A memoryResult is the resident memory of this process, which is both sides,
// during one fetch.
type memoryResult struct {
	Load   fileLoad `json:"load"`
	Before int64    `json:"before_bytes"` // both sides ready, what is free given back to the system
	Peak   int64    `json:"peak_bytes"`
}

// growth returns how much more was in use at the peak.
func (r memoryResult) growth() int64 { return r.Peak - r.Before }

// measureMemory fetches a tree once, and looks at the memory every millisecond.
// It returns nil where that cannot be looked at.
func measureMemory(ctx context.Context, t *fileTree, base string) (r *memoryResult, err error) {
	if _, ok := residentBytes(); !ok {
		return nil, nil
	}
	to, err := os.MkdirTemp(base, "to-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
	s, err := startFetch(t, false)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	debug.FreeOSMemory()
	before, _ := residentBytes()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	peak := make(chan int64, 1)
	go func() { peak <- watchMemory(watching) }()
	err = s.Move(ctx, to)
	stop()
	r = &memoryResult{Load: t.load, Before: before, Peak: max(before, <-peak)}
	return r, errors.Join(err, s.Stop())
}

// watchMemory returns the most memory that was in use until ctx ended.
func watchMemory(ctx context.Context) int64 {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var peak int64
	for {
		now, _ := residentBytes()
		peak = max(peak, now)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return peak
		}
	}
}
