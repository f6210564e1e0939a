package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/pprof"
	"slices"
	"time"
)

// options are the command line, parsed.
type options struct {
	set        settings
	only       *regexp.Regexp // nil: all
	check      bool
	records    bool   // feeds of records in place of calls
	files      bool   // files in place of calls
	quick      bool   // less of all
	large      bool   // with files, a larger one
	json       string // path, or empty
	cpuProfile string // path, or empty
}

func main() {
	opts, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = profiled(opts.cpuProfile, func() error { return run(opts, os.Stdout, os.Stderr) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parseOptions returns the options in args. It fails on an unknown flag, a
// stray argument and a value that cannot be run.
func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.BoolVar(&o.quick, "quick", false, "0.4 s per cell unless -cell says otherwise; with -files, see there")
	only := fs.String("only", "", "run the contenders whose `name` matches this regular expression")
	fs.IntVar(&o.set.Rounds, "rounds", 5, "interleaved rounds")
	fs.DurationVar(&o.set.Cell, "cell", 2*time.Second, "measured time of one contender under one load")
	fs.StringVar(&o.set.Payload, "payload", "random", "kind of payload: random, text or zero")
	fs.BoolVar(&o.records, "records", false, "measure feeds of records in place of calls")
	fs.BoolVar(&o.files, "files", false, "measure transfers of files in place of calls; with -quick fewer bytes, files and rounds")
	fs.BoolVar(&o.large, "large", false, "with -files: one file of 1 GiB in place of 256 MiB")
	fs.StringVar(&o.json, "json", "", "also write the report, with every round, to this `file`")
	fs.BoolVar(&o.check, "check", false, "fail if peerlane is below the promised floors")
	fs.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile to this `file`")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	given := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if o.quick && !given["cell"] {
		o.set.Cell = 400 * time.Millisecond
		if o.files {
			o.set.Cell = time.Second // p99 wants some
		}
	}
	if o.quick && o.files && !given["rounds"] {
		o.set.Rounds = 3
	}
	o.set.WarmUp = o.set.Cell / 4
	if *only != "" {
		var err error
		if o.only, err = regexp.Compile(*only); err != nil {
			return o, fmt.Errorf("-only: %w", err)
		}
	}
	return o, o.validate(fs.Args())
}

// validate fails with the name of the first flag that cannot be run with.
func (o options) validate(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q", rest[0])
	}
	if o.set.Rounds < 1 {
		return fmt.Errorf("-rounds %d: want at least 1", o.set.Rounds)
	}
	if o.set.Cell <= 0 {
		return fmt.Errorf("-cell %s: want more than 0", o.set.Cell)
	}
	if _, err := newPayload(o.set.Payload, stampSize); err != nil {
		return fmt.Errorf("-payload: %w", err)
	}
	if err := o.validateFiles(); err != nil {
		return err
	}
	if len(o.contenders()) == 0 && !o.files {
		return fmt.Errorf("-only %s: matches no contender", o.only)
	}
	return nil
}

// validateFiles is the part of validate about -files.
func (o options) validateFiles() error {
	switch {
	case !o.files && o.large:
		return errors.New("-large: is for -files")
	case o.files && o.records:
		return errors.New("-files and -records: one at a time")
	case o.files && o.check:
		return errors.New("-check: there are no floors of -files")
	case o.files && len(o.movers()) == 0:
		return fmt.Errorf("-only %s: matches no contender of -files", o.only)
	}
	return nil
}

// movers returns the movers that -only lets run.
func (o options) movers() []mover {
	return slices.DeleteFunc(movers(), func(m mover) bool {
		return o.only != nil && !o.only.MatchString(m.Name())
	})
}

// fileLoads returns the loads of -files: one large file, and many small ones.
func (o options) fileLoads() []fileLoad {
	one, many := fileLoad{Files: 1, Size: 256 << 20}, fileLoad{Files: 10000, Size: 4 << 10}
	if o.quick {
		one.Size, many.Files = 64<<20, 2000
	}
	if o.large {
		one.Size = 1 << 30
	}
	return []fileLoad{one, many}
}

// contenders returns the contenders that -only lets run.
func (o options) contenders() []contender {
	return slices.DeleteFunc(contenders(), func(c contender) bool {
		return o.only != nil && !o.only.MatchString(c.Name())
	})
}

// run measures and writes table, report and verdicts. It fails if a contender
// does, or with -check if a floor is not met.
func run(o options, out, progress io.Writer) error {
	m := thisMachine()
	if o.records {
		return runFeeds(o, m, out, progress)
	}
	if o.files {
		return runFiles(o, m, out, progress)
	}
	entries, running, err := startAll(o.contenders())
	if err != nil {
		return err
	}
	results, err := measureAll(entries, loads, o.set, func(s string) { fmt.Fprintln(progress, s) })
	if err != nil {
		return running.fail(err)
	}
	if err := running.run(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	writeHeader(out, m, o.set)
	if err := writeTable(out, results); err != nil {
		return err
	}
	return conclude(o, out, report{Machine: m, Settings: o.set, Results: results})
}

// runFeeds is run with -records.
func runFeeds(o options, m machine, out, progress io.Writer) error {
	results, err := measureFeeds(feeds(), o.set, func(s string) { fmt.Fprintln(progress, s) })
	if err != nil {
		return err
	}
	latency, err := measureLatency(o.set)
	if err != nil {
		return err
	}
	writeHeader(out, m, o.set)
	if err := errors.Join(writeFeeds(out, results), writeLatency(out, latency)); err != nil {
		return err
	}
	if o.json != "" {
		return writeJSON(o.json, report{Machine: m, Settings: o.set, Feeds: results, Latency: &latency})
	}
	return nil
}

// conclude judges the floors if asked to, and writes what -json asks for.
func conclude(o options, out io.Writer, r report) error {
	var failed error
	if o.check {
		r.Verdicts = judge(r.Results, floors)
		fmt.Fprintln(out)
		failed = writeVerdicts(out, r.Verdicts)
	}
	if o.json != "" {
		failed = errors.Join(failed, writeJSON(o.json, r))
	}
	return failed
}

// profiled runs fn, with a CPU profile of it in a new file at path unless path
// is empty.
func profiled(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	err = fn()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}
