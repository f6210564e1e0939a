package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/peerlane/peerlane/diagnostics"
	"github.com/peerlane/peerlane/internal/admin"
)

// processArg names the process that a command asks.
type processArg struct {
	Process string `arg:"" optional:"" help:"Process to ask: its number, or what it runs, as in serve. It may be left out if there is only one."`
}

// errNoProcess: no command runs that has an admin socket.
var errNoProcess = errors.New("no peerlane serve, relay, send or receive of this user is running")

// find returns the process that is meant.
func (a processArg) find(folder string) (admin.Process, error) {
	all, err := admin.List(folder)
	if err != nil {
		return admin.Process{}, err
	}
	var named []admin.Process
	for _, p := range all {
		if a.Process == "" || a.Process == p.Name || a.Process == strconv.Itoa(p.PID) {
			named = append(named, p)
		}
	}
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(all) == 0:
		return admin.Process{}, errNoProcess
	case len(named) == 0:
		return admin.Process{}, fmt.Errorf("%w: no %q is running; these are: %s", errUsage, a.Process, namesOf(all))
	}
	return admin.Process{}, fmt.Errorf("%w: several are running, name one by its number: %s", errUsage, namesOf(named))
}

// namesOf returns the names of processes, for an error.
func namesOf(all []admin.Process) string {
	var names []string
	for _, p := range all {
		names = append(names, p.String())
	}
	return strings.Join(names, ", ")
}

// The bounds of an answer. A snapshot of 10,000 sessions has some 20 MB.
const (
	maxSnapshot = 1 << 30
	maxRefusal  = 1 << 10          // of the text of an error
	askTime     = 30 * time.Second // a profile takes 10 s by default
)

// ask requests path from a process, and returns the answer, if it is complete within the given time.
func ask(ctx context.Context, p admin.Process, path string, within time.Duration) ([]byte, error) {
	limited, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("%s does not answer: it is stopped, or very busy", p))
	defer cancel()
	r, err := http.NewRequestWithContext(limited, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := p.Client().Do(r)
	if err != nil {
		return nil, unanswered(limited, err)
	}
	defer func() { _ = answer.Body.Close() }() // it has been read
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, maxRefusal)) // as far as it goes
		return nil, fmt.Errorf("%s: %s", p, strings.TrimSpace(string(text)))
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxSnapshot+1))
	switch {
	case err != nil:
		return nil, unanswered(limited, err)
	case len(body) > maxSnapshot:
		return nil, fmt.Errorf("%s: its answer is larger than %s", p, bytesText(maxSnapshot))
	}
	return body, nil
}

// unanswered returns why there is no answer: the cause of ctx's end, if it has ended, or err.
func unanswered(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// snapshotCmd is peerlane snapshot.
type snapshotCmd struct {
	processArg
	Metrics bool   `help:"Print metrics for Prometheus instead."`
	Profile string `placeholder:"NAME" enum:",goroutine,heap,allocs,block,mutex,threadcreate,profile,trace" default:"" help:"Write this profile of the process instead, for go tool pprof: goroutine, heap, allocs, block, mutex, threadcreate, profile (of the processor, for 10 s) or trace."`
}

// Run prints the snapshot of a process as JSON.
func (c *snapshotCmd) Run(ctx context.Context, std stdio) error {
	p, err := c.find(admin.Folder())
	if err != nil {
		return err
	}
	switch {
	case c.Profile != "" && c.Metrics:
		return fmt.Errorf("%w: give either --metrics or --profile", errUsage)
	case c.Profile != "" && std.isTerminal():
		return fmt.Errorf("%w: a profile is no text: write it to a file", errUsage)
	case c.Profile != "":
		return copyAnswer(ctx, std, p, "/debug/pprof/"+c.Profile)
	case c.Metrics:
		return copyAnswer(ctx, std, p, "/metrics")
	}
	text, err := ask(ctx, p, "/snapshot.json", askTime)
	if err != nil {
		return err
	}
	var lines bytes.Buffer
	if err := json.Indent(&lines, text, "", "  "); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	_, err = fmt.Fprintf(std.out, "%s\n", safeJSON(lines.String()))
	return err
}

// copyAnswer writes what a process answers to a request for path.
func copyAnswer(ctx context.Context, std stdio, p admin.Process, path string) error {
	text, err := ask(ctx, p, path, askTime)
	if err != nil {
		return err
	}
	_, err = std.out.Write(text)
	return err
}

// safeJSON returns JSON of the same value without characters that could move the cursor or change the direction of text: they are escaped.
// Package json escapes some of them.
func safeJSON(text string) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range text {
		if r == '\n' || unicode.IsPrint(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}

// statusCmd is peerlane status.
type statusCmd struct {
	processArg
	All bool `help:"Show all sessions, and not the first 20."`
}

// Run prints the status of a process.
func (c *statusCmd) Run(ctx context.Context, std stdio) error {
	p, err := c.find(admin.Folder())
	if err != nil {
		return err
	}
	v, err := snapshotOf(ctx, p)
	if err != nil {
		return err
	}
	most := 20
	if c.All {
		most = len(sessionsOf(v))
	}
	for _, line := range statusLines(p.String(), v, most) {
		fmt.Fprintln(std.out, line)
	}
	return nil
}

// snapshotOf returns the snapshot of a process.
func snapshotOf(ctx context.Context, p admin.Process) (*diagnostics.ProcessSnapshot, error) {
	text, err := ask(ctx, p, "/snapshot.json", askTime)
	if err != nil {
		return nil, err
	}
	v := new(diagnostics.ProcessSnapshot)
	if err := json.Unmarshal(text, v); err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return v, nil
}

// sessionsOf returns the sessions of a process.
func sessionsOf(v *diagnostics.ProcessSnapshot) []diagnostics.SessionSnapshot {
	var all []diagnostics.SessionSnapshot
	for i := range v.Clients {
		all = append(all, v.Clients[i].Sessions...)
	}
	for i := range v.Servers {
		all = append(all, v.Servers[i].Sessions...)
	}
	return all
}

// statusLines returns a snapshot as lines of text, with at most most sessions. Text from peers is made safe for a terminal.
func statusLines(name string, v *diagnostics.ProcessSnapshot, most int) []string {
	s := &v.Summary
	lines := []string{safe(fmt.Sprintf("process  %s, up for %s, peerlane %s", name, timeText(time.Duration(s.Uptime)), s.Module))}
	seen := make(map[string]bool)
	add := func(label, text string) {
		if line := fmt.Sprintf("%-8s %s", label, safe(text)); !seen[line] {
			seen[line] = true
			lines = append(lines, line)
		}
	}
	for i := range v.Clients {
		add("peer", v.Clients[i].Host)
	}
	for i := range v.Servers {
		add("peer", v.Servers[i].Host)
		for _, tag := range v.Servers[i].Tags {
			add("tag", tag)
		}
	}
	count := strconv.Itoa(s.Sessions)
	if s.Detached > 0 {
		count += fmt.Sprintf(", %d without a connection", s.Detached)
	}
	add("sessions", fmt.Sprintf("%s; %d calls running, %s in, %s out", count, s.InFlight, bytesText(float64(s.BytesIn)), bytesText(float64(s.BytesOut))))
	all := sessionsOf(v)
	for i := range all[:min(most, len(all))] {
		lines = append(lines, "         "+safe(sessionText(&all[i], v.Taken)))
	}
	if more := len(all) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("         and %d more; --all shows them", more))
	}
	for _, t := range transfersOf(v, all) {
		add("transfer", fmt.Sprintf("%s: %s, %d of %s, %s of %s, %s/s", t.Name, t.Phase, t.FilesDone, filesText(t.Files), bytesText(float64(t.Verified)),
			bytesText(float64(t.Bytes)), bytesText(t.Rate)))
	}
	for _, l := range s.Warnings {
		add("warning", fmt.Sprintf("the limit %s is nearly used up: %d of %d", l.Name, l.Used, l.Max))
	}
	for i := range v.Clients {
		lines = append(lines, eventLines("ended", v.Clients[i].Ended, v.Taken)...)
		lines = append(lines, eventLines("failed", v.Clients[i].Failed, v.Taken)...)
	}
	for i := range v.Servers {
		lines = append(lines, eventLines("ended", v.Servers[i].Ended, v.Taken)...)
		lines = append(lines, eventLines("refused", v.Servers[i].Refused, v.Taken)...)
	}
	return lines
}

// transfersOf returns the transfers of a process, each once, by number. A transfer is on each session that it runs on.
func transfersOf(v *diagnostics.ProcessSnapshot, sessions []diagnostics.SessionSnapshot) []diagnostics.TransferSnapshot {
	all := slices.Clone(v.Transfers)
	for i := range sessions {
		all = append(all, sessions[i].Transfers...)
	}
	slices.SortStableFunc(all, func(a, b diagnostics.TransferSnapshot) int { return cmp.Compare(a.Number, b.Number) })
	return slices.CompactFunc(all, func(a, b diagnostics.TransferSnapshot) bool { return a.Number == b.Number })
}

// sessionText returns a session as one line.
func sessionText(s *diagnostics.SessionSnapshot, taken time.Time) string {
	path := "no connection for " + timeText(taken.Sub(s.StateSince))
	if s.Path != nil {
		path = s.Path.Text
	}
	text := fmt.Sprintf("%s %s  %s", short(s.Peer, 13), s.Tag, path)
	if s.RTT > 0 {
		text += fmt.Sprintf(", %v", time.Duration(s.RTT).Round(100*time.Microsecond))
	}
	text += fmt.Sprintf("; %d calls, %s in, %s out, for %s", s.RequestsIn+s.RequestsOut, bytesText(float64(s.BytesIn)), bytesText(float64(s.BytesOut)),
		timeText(taken.Sub(s.Started)))
	if s.Resumes+s.Migrations > 0 {
		text += fmt.Sprintf("; resumed %d times, moved %d", s.Resumes, s.Migrations)
	}
	return text
}

// recentEvents is how many ends and refusals are shown of each kind.
const recentEvents = 3

// eventLines returns the last events, the newest first.
func eventLines(label string, all []diagnostics.Event, taken time.Time) []string {
	var lines []string
	for i := len(all) - 1; i >= max(0, len(all)-recentEvents); i-- {
		e := &all[i]
		text := fmt.Sprintf("%s %s  %s ago", short(e.Peer, 13), e.Tag, timeText(taken.Sub(e.At)))
		if e.Why != nil {
			text += fmt.Sprintf(", by %s: %s", e.Why.By, e.Why.Text)
		}
		lines = append(lines, fmt.Sprintf("%-8s %s", label, safe(oneLine(errors.New(text)))))
	}
	return lines
}
