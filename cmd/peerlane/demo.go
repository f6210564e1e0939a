package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	began, failed, total := time.Now(), 0, 0
	for _, tr := range demoTransports {
		err := runSteps(ctx, tr, func(r result) error {
			total++
			if !r.OK {
				failed++
			}
			return report(r)
		})
		if err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d steps", errFailed, failed, total)
	}
	if c.JSON {
		return nil
	}
	_, err := fmt.Fprintf(std.out, "%d steps, all ok, in %s\n", total, shortTime(time.Since(began)))
	return err
}

// runSteps runs the steps on a lab of their own. It fails when there is no lab, when report does, and when ctx ends.
func runSteps(ctx context.Context, tr demoTransport, report func(result) error) error {
	l, err := newLab(ctx, tr)
	if err != nil {
		return err
	}
	defer func() { _ = l.close() }() // the last step has looked at its error
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := runStep(ctx, l, s)
		r.Transport = tr.name
		if err := report(r); err != nil {
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

// textReport prints a line for each step.
func textReport(w io.Writer) func(result) error {
	return func(r result) error {
		if r.OK {
			_, err := fmt.Fprintf(w, "%-5s %-18s %-62s ok\n", r.Transport, r.Step, r.Figure)
			return err
		}
		_, err := fmt.Fprintf(w, "%-5s %-18s FAILED: %s\n", r.Transport, r.Step, r.Error)
		return err
	}
}

// jsonReport prints an object for each step.
func jsonReport(w io.Writer) func(result) error {
	e := json.NewEncoder(w)
	return func(r result) error { return e.Encode(r) }
}

// A lab is two hosts on loopback that share one transport. a knows where b is.
type lab struct {
	a, b       *node.Node
	dialer     host.Host // a's, or a tap on it
	path       string    // demoTransport.path
	goroutines int       // before it began
}

func newLab(ctx context.Context, tr demoTransport) (*lab, error) {
	l := &lab{path: tr.path, goroutines: runtime.NumGoroutine()}
	var err error
	if l.a, err = node.New(ctx, node.Options{ListenAddrs: []string{tr.listen}}); err != nil {
		return nil, err
	}
	if l.b, err = node.New(ctx, node.Options{ListenAddrs: []string{tr.listen}}); err != nil {
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
