package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// A report is the whole run, as -json writes it. Durations are in nanoseconds.
type report struct {
	Machine  machine        `json:"machine"`
	Settings settings       `json:"settings"`
	Results  []result       `json:"results"`
	Latency  *latencyResult `json:"latency,omitempty"`  // with -records
	Feeds    []feedResult   `json:"feeds,omitempty"`    // with -records
	Files    *filesReport   `json:"files,omitempty"`    // with -files
	Verdicts []verdict      `json:"verdicts,omitempty"` // with -check
}

// A machine is where and with what the run was made.
type machine struct {
	Time       time.Time         `json:"time"`
	Go         string            `json:"go"`
	OS         string            `json:"os"`
	Arch       string            `json:"arch"`
	GOMAXPROCS int               `json:"gomaxprocs"`
	Modules    map[string]string `json:"modules"`
}

// measuredModules are the modules whose versions a figure depends on.
var measuredModules = []string{
	"github.com/libp2p/go-libp2p",
	"github.com/libp2p/go-yamux/v5",
	"github.com/quic-go/quic-go",
	"google.golang.org/grpc",
	"github.com/nats-io/nats-server/v2",
	"github.com/nats-io/nats.go",
	"storj.io/drpc",
}

// thisMachine returns a description of the running program's surroundings.
func thisMachine() machine {
	m := machine{
		Time: time.Now().UTC(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		GOMAXPROCS: runtime.GOMAXPROCS(0), Modules: make(map[string]string),
	}
	versions := make(map[string]string)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			versions[d.Path] = d.Version
		}
	}
	for _, path := range measuredModules {
		if v, ok := versions[path]; ok {
			m.Modules[path] = v
		}
	}
	return m
}

// writeMachine writes where and with what the run was made.
func writeMachine(w io.Writer, m machine) {
	fmt.Fprintf(w, "%s %s/%s, GOMAXPROCS %d, %s\n", m.Go, m.OS, m.Arch, m.GOMAXPROCS, m.Time.Format(time.RFC3339))
	for _, path := range measuredModules {
		if v, ok := m.Modules[path]; ok {
			fmt.Fprintf(w, "  %s %s\n", path, v)
		}
	}
}

// writeHeader writes what a reader must know to judge the table below it.
func writeHeader(w io.Writer, m machine, set settings) {
	writeMachine(w, m)
	fmt.Fprintf(w, "%d rounds of %s per cell after %s of warm-up; %s payload; medians over the rounds.\n",
		set.Rounds, set.Cell, set.WarmUp, set.Payload)
	fmt.Fprint(w, "allocs and B count both sides of the call (and the NATS server). The last two columns are\n"+
		"peerlane's calls/s by the row's, the median of the per-round ratios (min..max).\n\n")
}

// writeJSON writes r to a new file at path.
func writeJSON(path string, r report) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
