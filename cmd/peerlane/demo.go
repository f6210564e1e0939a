package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/node"
)

// demoCmd is peerlane demo.
type demoCmd struct {
	JSON bool `name:"json" help:"Print one JSON object per step instead of text."`
	monitorFlags
}

// stepTime bounds each step.
const stepTime = 20 * time.Second

// demoTransport is what the hosts of a lab share.
type demoTransport struct {
	name   string
	listen string // where the hosts listen
	path   string // the Path.Transport of their conns
}

var demoTransports = []demoTransport{
	{"tcp", "/ip4/127.0.0.1/tcp/0", "tcp"},
	{"quic", "/ip4/127.0.0.1/udp/0/quic-v1", "quic-v1"},
}

// A step proves one thing and returns its figure. Steps share the hosts of a lab and leave nothing on them.
type step struct {
	name string
	run  func(ctx context.Context, l *lab) (figure string, err error)
}

// steps run in this order on each transport. The last one closes the hosts.
var steps = []step{
	{"raw conn", rawConn},
	{"request/response", callsInSequence},
	{"parallel requests", callsInParallel},
	{"ordered messages", orderedMessages},
	{"message and reply", messageAndReply},
	{"objects", objects},
	{"shared stream", sharedStream},
	{"dedicated stream", dedicatedStream},
	{"psk: sealed", pskSealed},
	{"psk: wrong key", pskWrongKey},
	{"psk: missing key", pskMissingKey},
	{"typed errors", typedErrors},
	{"net/http", httpOverPeers},
	{"old wire: served", oldWireServed},
	{"old wire: called", oldWireCalled},
	{"cut and resumed", cutAndResumed},
	{"moved in order", movedInOrder},
	{"records applied", recordsApplied},
	{"bulk lanes", bulkLanes},
	{"killed and resumed", killedAndResumed},
	{"drain", drainInOrder},
	{"nothing left", nothingLeft},
}

// result is one line of the report.
type result struct {
	Transport string  `json:"transport"`
	Step      string  `json:"step"`
	Figure    string  `json:"figure,omitempty"`
	Millis    float64 `json:"ms"`
	OK        bool    `json:"ok"`
	Error     string  `json:"error,omitempty"`
}

// Run runs all steps, whatever fails, and returns an error if any did.
func (c *demoCmd) Run(ctx context.Context, std stdio) error {
	report := textReport(std.out)
	if c.JSON {
		report = jsonReport(std.out)
	}
	beside := std
	if c.JSON {
		beside.out = std.err // the page's address is no object
	}
	m, err := c.monitor(beside, "demo", inDemo.sources)
	if err != nil {
		return err
	}
	defer m.close()
	began, failed := time.Now(), 0
	err = runSteps(ctx, func(row []result) error {
		for _, r := range row {
			if !r.OK {
				failed++
			}
		}
		return report(row)
	})
	if err != nil {
		return err
	}
	total := len(steps) * len(demoTransports)
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d steps", errFailed, failed, total)
	}
	if c.JSON {
		return nil
	}
	_, err = fmt.Fprintf(std.out, "in total           %s\n%d steps, all ok, in %s\n", inDemo.summary(), total, shortTime(time.Since(began)))
	return err
}

// runSteps runs each step on one transport after the other, each of which has a lab of its own, and reports the results of a step together.
// It fails when there is no lab, when report does, and when ctx ends.
func runSteps(ctx context.Context, report func([]result) error) error {
	goroutines := runtime.NumGoroutine()
	var labs []*lab
	for _, tr := range demoTransports {
		l, err := newLab(ctx, tr)
		if err != nil {
			return err
		}
		defer func() { _ = l.close() }() // the last step has looked at its error
		labs = append(labs, l)
	}
	labs[len(labs)-1].goroutines = goroutines
	for _, s := range steps {
		var row []result
		for i, l := range labs {
			if err := ctx.Err(); err != nil {
				return err
			}
			r := runStep(ctx, l, s)
			r.Transport = demoTransports[i].name
			row = append(row, r)
		}
		if err := report(row); err != nil {
			return err
		}
	}
	return nil
}

// runStep runs one step within stepTime.
func runStep(ctx context.Context, l *lab, s step) (r result) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	r.Step = s.name
	began := time.Now()
	figure, err := s.run(ctx, l)
	r.Millis = float64(time.Since(began).Microseconds()) / 1000
	r.Figure, r.OK = figure, err == nil
	if err != nil {
		r.Error = oneLine(err)
	}
	return r
}

// textReport prints a line for each step: what the figures of the transports have in common, and what is each one's own.
func textReport(w io.Writer) func([]result) error {
	head := fmt.Sprintf("%-18s %-50s", "", "")
	for _, tr := range demoTransports {
		head += fmt.Sprintf(" %-23s", tr.name)
	}
	return func(row []result) error {
		if head != "" {
			if _, err := fmt.Fprintln(w, strings.TrimRight(head, " ")); err != nil {
				return err
			}
			head = ""
		}
		common, own := split(row)
		var line strings.Builder
		fmt.Fprintf(&line, "%-18s %-50s", row[0].Step, common)
		for i, r := range row {
			if r.OK {
				fmt.Fprintf(&line, " %-23s", strings.TrimSpace("ok  "+own[i]))
			} else {
				fmt.Fprintf(&line, " %-23s", "FAILED")
			}
		}
		_, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
		for _, r := range row {
			if err == nil && !r.OK {
				_, err = fmt.Fprintf(w, "%-18s %s: %s\n", "", r.Transport, r.Error)
			}
		}
		return err
	}
}

// measured matches a part of a figure that was measured, and is each transport's own even if it is the same by chance.
var measured = regexp.MustCompile(`^(p99 )?[0-9.]+ (ns|us|ms|s)\b|/s$|^[0-9]+ bytes$`)

// split returns the parts, between commas, that the figures of a step begin with on all transports where it succeeded, up to the first that was
// measured, and the rest of each.
func split(row []result) (common string, own []string) {
	own = make([]string, len(row))
	var parts []string
	for i, r := range row {
		if own[i] = r.Figure; !r.OK {
			continue
		}
		these := strings.Split(r.Figure, ", ")
		if parts == nil {
			parts = these
		}
		n := 0
		for n < min(len(parts), len(these)) && parts[n] == these[n] && !measured.MatchString(these[n]) {
			n++
		}
		parts = parts[:n]
	}
	common = strings.Join(parts, ", ")
	for i := range own {
		own[i] = strings.TrimPrefix(strings.TrimPrefix(own[i], common), ", ")
	}
	return common, own
}

// jsonReport prints an object for each step and transport.
func jsonReport(w io.Writer) func([]result) error {
	e := json.NewEncoder(w)
	return func(row []result) error {
		for _, r := range row {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
}

// A lab is two hosts on loopback that share one transport. a knows where b is.
type lab struct {
	a, b       *node.Node
	dialer     host.Host // a's, or a tap on it
	path       string    // demoTransport.path
	goroutines int       // before the first lab began; 0: of another lab that is still open
}

func newLab(ctx context.Context, tr demoTransport) (*lab, error) {
	l := &lab{path: tr.path}
	var err error
	if l.a, err = node.New(ctx, &node.Options{ListenAddrs: []string{tr.listen}}); err != nil {
		return nil, err
	}
	if l.b, err = node.New(ctx, &node.Options{ListenAddrs: []string{tr.listen}}); err != nil {
		return nil, errors.Join(err, l.a.Close())
	}
	l.a.Remember(l.b.Info())
	l.dialer = l.a.Host()
	return l, nil
}

func (l *lab) close() error { return errors.Join(l.a.Close(), l.b.Close()) }

// demoTag begins every tag of the demo.
const demoTag = "/demo/"

// streams returns how many streams of the demo's tags are open, on both hosts.
func (l *lab) streams() int {
	n := 0
	for _, end := range []*node.Node{l.a, l.b} {
		for _, c := range end.Host().Network().Conns() {
			for _, s := range c.GetStreams() {
				if strings.HasPrefix(string(s.Protocol()), demoTag) {
					n++
				}
			}
		}
	}
	return n
}

// handlers returns the demo's tags that are served, on both hosts.
func (l *lab) handlers() []protocol.ID {
	var all []protocol.ID
	for _, end := range []*node.Node{l.a, l.b} {
		for _, p := range end.Host().Mux().Protocols() {
			if strings.HasPrefix(string(p), demoTag) {
				all = append(all, p)
			}
		}
	}
	return all
}
