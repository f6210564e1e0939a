package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/peerlane/peerlane/transfer"
)

// How often a display is renewed: bars on a terminal, lines elsewhere.
const (
	barEvery  = 150 * time.Millisecond
	lineEvery = 5 * time.Second
)

// display shows how far transfers are: with bars on a terminal, and otherwise with a line now and then. It is safe for concurrent use.
type display struct {
	out   io.Writer
	tty   bool
	every time.Duration // between lines, where there are no bars
	paths *paths        // of the peers; nil: not known

	mu   sync.Mutex
	bars *mpb.Progress // while there is a bar
	n    int           // bars
	lost string        // the last loss that was written: attempts that fail alike are one line

	told    map[transfer.EventKind]int // events since a transfer has ended last
	running map[string]bool            // states of transfers that are received
	named   map[string]bool            // states of others that were named
}

func newDisplay(out io.Writer) *display {
	return &display{
		out: out, tty: hasRoom(out), every: lineEvery, told: make(map[transfer.EventKind]int), running: make(map[string]bool),
		named: make(map[string]bool),
	}
}

// hasRoom reports whether a writer is a terminal that has lines and columns.
func hasRoom(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(w) {
		return false
	}
	columns, lines, err := term.GetSize(int(f.Fd()))
	return err == nil && columns > 0 && lines > 1
}

// isTerminal reports whether a reader or writer is one.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printf writes a line, above the bars if there are any.
func (d *display) printf(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	line := fmt.Sprintf(format, args...) + "\n"
	if d.bars != nil {
		if _, err := d.bars.Write([]byte(line)); err == nil {
			return
		}
	}
	fmt.Fprint(d.out, line)
}

// follow shows a transfer until it is over. label, if not empty, stands before its name.
func (d *display) follow(t *transfer.Transfer, label string) {
	defer d.tellRest()
	if d.paths != nil {
		defer func() { d.paths.showAgain(t.Snapshot().Peer) }()
	}
	if d.tty {
		d.bar(t, label)
		return
	}
	d.lines(t, label)
}

// lines writes how far t is, now and then, where that has changed.
func (d *display) lines(t *transfer.Transfer, label string) {
	last := ""
	first := true
	for p := range t.Watch(context.Background(), d.every) { // ends with the transfer
		over := p.Phase == transfer.PhaseDone || p.Phase == transfer.PhaseFailed
		if line := progressText(p, t.Snapshot().Receiving); !first && !over && line != last {
			d.printf("%s", lineText(label, t.Snapshot(), line)+d.pathText(t.Snapshot().Peer))
			last = line
		}
		first = false
	}
}

// lineText puts before a line of progress which transfer it is of, as far as that is known.
func lineText(label string, s transfer.Snapshot, line string) string {
	if of := strings.TrimSpace(label + " " + short(safe(s.Name), 40)); of != "" {
		return of + ": " + line
	}
	return line
}

// pathText returns the path to a peer for a progress line, or "" if it is not known.
func (d *display) pathText(peer string) string {
	if d.paths == nil {
		return ""
	}
	if path := d.paths.path(peer); path.Transport != "" {
		return ", " + pathText(path)
	}
	return ""
}

// kindOfPath is the same for a bar, in a word.
func (d *display) kindOfPath(peer string) string {
	if d.paths == nil {
		return ""
	}
	switch path := d.paths.path(peer); {
	case path.Transport == "":
		return ""
	case path.Relayed:
		return " relayed"
	}
	return " direct"
}

// bar shows t as a bar.
func (d *display) bar(t *transfer.Transfer, label string) {
	var now atomic.Pointer[transfer.Progress]
	now.Store(&transfer.Progress{Phase: transfer.PhaseStart})
	name := func(decor.Statistics) string {
		return short(strings.TrimSpace(label+" "+safe(cmp.Or(t.Snapshot().Name, "..."))), 24)
	}
	tail := func(decor.Statistics) string {
		return " " + barText(*now.Load(), t.Snapshot().Receiving) + d.kindOfPath(t.Snapshot().Peer)
	}
	bar := d.begin(mpb.PrependDecorators(decor.Any(name)), mpb.AppendDecorators(decor.Any(tail)))
	for p := range t.Watch(context.Background(), barEvery) { // ends with the transfer
		now.Store(&p)
		bar.SetTotal(max(1, p.Bytes), false)
		bar.SetCurrent(p.Verified)
		bar.SetRefill(p.Resumed)
	}
	if _, err := t.Wait(); err == nil {
		bar.SetTotal(-1, true)
	} else {
		bar.Abort(false)
	}
	d.end()
}

// begin adds a bar.
func (d *display) begin(options ...mpb.BarOption) *mpb.Bar {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bars == nil {
		d.bars = mpb.New(mpb.WithOutput(d.out), mpb.ForceTTY(), mpb.WithAutoRefresh(), mpb.WithRefreshRate(barEvery))
	}
	d.n++
	return d.bars.AddBar(0, options...)
}

// end ends a bar. What the last one has shown stays.
func (d *display) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n--; d.n == 0 {
		d.bars.Wait()
		d.bars = nil
	}
}

// stateText says what a transfer is doing, if that is not to move bytes.
func stateText(p transfer.Progress, receiving bool) string {
	switch p.Phase {
	case transfer.PhaseStart:
		return "looking for the peer"
	case transfer.PhaseList:
		if !receiving {
			return "waiting for the peer to take it"
		}
		return "comparing"
	case transfer.PhaseWaiting:
		return "peer lost, looking for it"
	case transfer.PhasePaused:
		return "paused: the receiver's disk is full"
	case transfer.PhaseFinish:
		return "finishing"
	}
	return ""
}

// progressText is a transfer on a line of its own.
func progressText(p transfer.Progress, receiving bool) string {
	if p.Phase == transfer.PhaseStart && p.Files == 0 { // what will come is not known
		return stateText(p, receiving)
	}
	parts := []string{
		fmt.Sprintf("%d%%", percent(p)), fmt.Sprintf("%d of %s", p.FilesDone, filesText(p.Files)),
		bytesText(float64(p.Verified)) + " of " + bytesText(float64(p.Bytes)),
	}
	if state := stateText(p, receiving); state != "" {
		parts = append(parts, state)
	} else {
		parts = append(parts, bytesText(p.RateSlow)+"/s")
	}
	if p.ETA > 0 && p.Phase == transfer.PhaseData {
		parts = append(parts, timeText(p.ETA)+" left")
	}
	if p.Resumed > 0 {
		parts = append(parts, bytesText(float64(p.Resumed))+" were here")
	}
	if p.FilesBad > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", p.FilesBad))
	}
	return strings.Join(parts, ", ")
}

// barText is what stands behind a bar: the same, shorter.
func barText(p transfer.Progress, receiving bool) string {
	text := fmt.Sprintf("%3d%% %s/%s %d/%d", percent(p), bytesText(float64(p.Verified)), bytesText(float64(p.Bytes)), p.FilesDone, p.Files)
	if state := stateText(p, receiving); state != "" {
		return text + " " + state
	}
	if p.Phase != transfer.PhaseData {
		return text
	}
	text += " " + bytesText(p.Rate) + "/s"
	if p.ETA > 0 {
		text += " " + timeText(p.ETA)
	}
	if p.Resumed > 0 {
		text += " (" + bytesText(float64(p.Resumed)) + " were here)"
	}
	return text
}

// percent returns how much has come. All of nothing is all, when it is over.
func percent(p transfer.Progress) int {
	if p.Bytes > 0 {
		return int(100 * float64(p.Verified) / float64(p.Bytes))
	}
	if p.Phase == transfer.PhaseDone {
		return 100
	}
	return 0
}

// mostAlike is how many events of one kind are written, each on its line. The rest are counted.
const mostAlike = 20

// tooMany counts an event and reports whether mostAlike of its kind were written already.
func (d *display) tooMany(kind transfer.EventKind) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told[kind]++
	return d.told[kind] > mostAlike
}

// tellRest writes how many events were not written, and starts counting anew.
func (d *display) tellRest() {
	d.mu.Lock()
	told := d.told
	d.told = make(map[transfer.EventKind]int)
	d.mu.Unlock()
	for _, kind := range slices.Sorted(maps.Keys(told)) {
		switch more := told[kind] - mostAlike; {
		case more <= 0:
		case kind == transfer.EventFileFailed:
			d.printf("failed   %s more", filesText(more))
		default:
			d.printf("note     %s: %d more times", kind, more)
		}
	}
}

// failedText returns the path of a failed file, the reason, and which side reported it.
func failedText(e transfer.Event) string {
	err, ok := errors.AsType[*transfer.Error](e.Err)
	if !ok {
		return fmt.Sprintf("%q: %v", e.Path, e.Err)
	}
	why := err.Text
	var file *transfer.Error
	switch {
	case err.Remote && err.Op == "receive":
		why = fmt.Sprintf("the sender says %q", err.Text)
	case err.Remote:
		why = fmt.Sprintf("the receiver says %q", err.Text)
	case errors.As(err.Err, &file) && file.Area == transfer.AreaSource && file.Text != "":
		why = file.Text
	case why == "" && err.Err != nil:
		why = err.Err.Error()
	}
	return fmt.Sprintf("%q: %s (%s)", e.Path, why, err.Code)
}

// event writes what happens beside the plain course of a transfer.
func (d *display) event(e transfer.Event) {
	if d.tooMany(e.Kind) {
		return
	}
	switch e.Kind {
	case transfer.EventFileFailed:
		d.printf("failed   %s", safe(failedText(e)))
	case transfer.EventLost, transfer.EventPaused, transfer.EventSourceDropped, transfer.EventFetchedAgain:
		text := string(e.Kind)
		if e.Path != "" {
			text += fmt.Sprintf(" %q", e.Path)
		}
		if e.Err != nil {
			text += ": " + strings.TrimPrefix(safe(oneLine(e.Err)), ": ") // of an error without Op
		}
		if e.Kind == transfer.EventLost && d.toldLost(text) {
			return
		}
		d.printf("note     %s", text)
	case transfer.EventStalled, transfer.EventResumed, transfer.EventBadPiece:
		d.printf("note     %s", e.Kind)
	}
}

// toldLost reports whether text was the last loss already: who looks for a peer tries again every few seconds.
func (d *display) toldLost(text string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.lost
	d.lost = text
	return was == text
}

// sentNothing reports whether a sender knows that the receiver had all files already.
func sentNothing(p transfer.Progress) bool {
	return p.Bytes > 0 && p.Verified == p.Bytes && p.Crossed == 0
}

// gotNothing reports whether a receiver had all files already.
func gotNothing(p transfer.Progress) bool { return p.Bytes > 0 && p.Resumed == p.Bytes }

// thereText says that all files of a transfer were at place before.
func thereText(r transfer.Result, place string) string {
	return fmt.Sprintf("all of it, %s, %s, is %s already", filesText(r.Progress.Files), bytesText(float64(r.Progress.Bytes)), place)
}

// sentLine is the line of a sender whose transfer has ended.
func sentLine(r transfer.Result, to string) string {
	if sentNothing(r.Progress) {
		return fmt.Sprintf("there    %q: %s%s", r.Name, thereText(r, "at "+to), missingText(r, ""))
	}
	return fmt.Sprintf("sent     %q: %s, to %s", r.Name, sentText(r), to)
}

// sentText is what has become of a transfer at its sender, without its name. How much the receiver had before, a sender does not know.
func sentText(r transfer.Result) string {
	return movedText(r) + missingText(r, "")
}

func movedText(r transfer.Result) string {
	p := r.Progress
	return fmt.Sprintf("%s, %s in %s", filesText(p.Files-p.FilesBad), bytesText(float64(p.Verified)), timeText(r.Took))
}

// missingText returns how many files failed or were left out, or "".
func missingText(r transfer.Result, by string) (text string) {
	if r.Progress.FilesBad > 0 {
		text += fmt.Sprintf(", %d failed", r.Progress.FilesBad)
	}
	if r.LeftOut > 0 {
		text += fmt.Sprintf(", %d left out%s", r.LeftOut, by)
	}
	return text
}

// gotText is what has become of a transfer at its receiver, without its name.
func gotText(r transfer.Result) string {
	p := r.Progress
	text := movedText(r)
	if moved := p.Verified - p.Resumed; moved > 0 && r.Took > 0 {
		text += ", " + bytesText(float64(moved)/r.Took.Seconds()) + "/s"
	}
	if p.Resumed > 0 {
		text += ", " + bytesText(float64(p.Resumed)) + " were here"
	}
	return text + missingText(r, " by the sender")
}
