package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// A filesReport is what -files measures.
type filesReport struct {
	Where   workspace         `json:"where"`
	Tools   map[string]string `json:"tools"` // versions of the programs that were run
	Results []moveResult      `json:"results"`
	Memory  *memoryResult     `json:"memory,omitempty"` // of peerlane fetch
	Beside  []besideResult    `json:"beside,omitempty"` // of Client.Send
}

// runFiles is run with -files. An interrupt ends it with what it has started, and
// leaves no files.
func runFiles(o options, m machine, out, progress io.Writer) error {
	loads := o.fileLoads()
	where, err := newWorkspace(roomFor(loads))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second one ends the program at once
	r, err := measureFiles(ctx, o, loads, where, func(s string) { fmt.Fprintln(progress, s) })
	if err := errors.Join(err, os.RemoveAll(where.Dir)); err != nil {
		return err
	}
	writeFilesHeader(out, m, o.set, r)
	if err := errors.Join(writeMoves(out, r.Results), writeMemory(out, r.Memory), writeBeside(out, r.Beside)); err != nil {
		return err
	}
	if o.json != "" {
		return writeJSON(o.json, report{Machine: m, Settings: o.set, Files: r})
	}
	return nil
}

// roomFor returns how many bytes the loads need: all of them, the largest once
// more where it goes, and something for the file system.
func roomFor(loads []fileLoad) int64 {
	room := int64(64 << 20)
	var largest int64
	for _, l := range loads {
		room += l.bytes()
		largest = max(largest, l.bytes())
	}
	return room + largest
}

// measureFiles measures all that -files does. Memory and Send are peerlane
// fetch's, with the first load, and left out where -only leaves that out.
func measureFiles(ctx context.Context, o options, loads []fileLoad, where workspace, progress func(string)) (*filesReport, error) {
	trees := make([]*fileTree, len(loads))
	for i, l := range loads {
		progress(fmt.Sprintf("making %s in %s", l, where.Dir))
		var err error
		if trees[i], err = newFileTree(where.Dir, l, o.set.Payload); err != nil {
			return nil, err
		}
	}
	ms := o.movers()
	r := &filesReport{Where: where, Tools: toolVersions(ctx)}
	var err error
	if r.Results, err = measureMoves(ctx, ms, trees, where.Dir, o.set.Rounds, progress); err != nil {
		return nil, err
	}
	if !slices.Contains(ms, mover(fetchMover{})) {
		return r, nil
	}
	progress("memory of a fetch")
	if r.Memory, err = measureMemory(ctx, trees[0], where.Dir); err != nil {
		return nil, fmt.Errorf("memory of a fetch: %w", err)
	}
	progress("Client.Send beside other things")
	r.Beside, err = measureBeside(ctx, trees[0], where.Dir, o.set)
	return r, err
}

// writeFilesHeader writes what a reader must know to judge the tables below it.
func writeFilesHeader(w io.Writer, m machine, set settings, r *filesReport) {
	writeMachine(w, m)
	for _, program := range []string{"rsync", "cp"} {
		if v, ok := r.Tools[program]; ok {
			fmt.Fprintf(w, "  %s: %s\n", program, v)
		}
	}
	fmt.Fprintf(w, "files in %s (%s); %d rounds; %s payload; medians over the rounds.\n", r.Where.Dir, r.Where.Note, set.Rounds, set.Payload)
	fmt.Fprint(w, "MB are 10^6 bytes; cpu is that of both sides. The last column is the first contender's MB/s by the\n"+
		"row's, the median of the per-round ratios (min..max).\n\n")
}

// The line formats of the table of files.
const (
	moveHead = "%-14s  %-22s %8s %9s %9s   %s\n"
	moveRow  = "%-14s  %-22s %8.0f %9s %9s   %.2f (%.2f..%.2f)\n"
)

// writeMoves writes the results as one table, a block for each load.
func writeMoves(w io.Writer, results []moveResult) error {
	first := ""
	if i := slices.IndexFunc(results, func(r moveResult) bool { return r.RatioOf != "" }); i >= 0 {
		first = results[i].RatioOf + " /"
	}
	_, err := fmt.Fprintf(w, moveHead, "load", "contender", "MB/s", "files/s", "cpu ns/B", first)
	for i, r := range results {
		if err != nil {
			return err
		}
		if i == 0 || r.Load != results[i-1].Load {
			fmt.Fprintln(w)
		}
		if r.NotRun != "" {
			_, err = fmt.Fprintf(w, "%-14s  %-22s not run: %s\n", r.Load, r.Contender, r.NotRun)
			continue
		}
		files, cpu := "-", "-"
		if r.Load.Files > 1 {
			files = fmt.Sprintf("%.0f", r.Median.FilesPerSec)
		}
		if r.Median.CPUPerByte > 0 {
			cpu = fmt.Sprintf("%.2f", r.Median.CPUPerByte)
		}
		_, err = fmt.Fprintf(w, moveRow, r.Load, r.Contender, r.Median.MBPerSec, files, cpu, r.Ratio.Median, r.Ratio.Min, r.Ratio.Max)
	}
	return err
}

// writeMemory writes the result, if there is one, as one line.
func writeMemory(w io.Writer, r *memoryResult) error {
	if r == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nresident memory during one peerlane fetch of %s, both sides: %.1f MiB before, at most %.1f MiB more\n",
		r.Load, float64(r.Before)/(1<<20), float64(r.growth())/(1<<20))
	return err
}

// writeBeside writes the results, if there are any, as one table.
func writeBeside(w io.Writer, results []besideResult) error {
	if len(results) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\n%-38s %9s %9s   %-22s %s\n", fmt.Sprintf("Client.Send of %d B, one at a time", besideSize),
		"p50", "p99", "p99 / alone", "MB/s beside it")
	for _, r := range results {
		if err != nil {
			return err
		}
		label, speed := "alone", "-"
		if r.Beside != "" {
			label, speed = "beside "+r.Beside, fmt.Sprintf("%.0f", r.Median.MBPerSec)
		}
		_, err = fmt.Fprintf(w, "%-38s %9s %9s   %-22s %s\n", label, micros(r.Median.P50), micros(r.Median.P99),
			fmt.Sprintf("%.2f (%.2f..%.2f)", r.Ratio.Median, r.Ratio.Min, r.Ratio.Max), speed)
	}
	return err
}
