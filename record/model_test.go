package record_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/peerlane/peerlane/record"
)

// The model of one record stream, as it stands when nothing moves: lists and numbers, no frames, no goroutines. It says how each call
// has to end, and which calls have to wait.

// way is one direction in the model.
type way struct {
	window    int
	log       []string // what was written; record n is log[n-1]
	delivered uint64
	applied   uint64
	failed    *record.RecordFailure // retryable, and not resent
	ended     bool                  // CloseWrite
	saidEnd   bool
}

func (w *way) last() uint64 { return uint64(len(w.log)) }

// end is one side in the model.
type end struct {
	out, in *way
	closed  bool                  // by its own Close
	gone    bool                  // the peer has closed, and what has come can be read
	left    bool                  // the peer has closed in the middle
	over    *record.RecordFailure // a final failure, of either side
	asked   bool                  // Close has been called
	lost    error                 // what it has returned
}

// loses returns what Close returns: what was written and not given to the peer's application, which has closed, or will not get it.
func (e *end) loses(acked uint64) error {
	w := e.out
	switch {
	case max(acked, w.delivered) >= w.last():
		return nil
	case e.gone || e.left:
		return record.ErrPeerClosed
	case w.failed != nil:
		return w.failed
	}
	return nil
}

// asked is a call that has been made.
type asked struct {
	side   int
	kind   string
	parts  []string // of a write
	seq    uint64   // of a barrier, of an ack
	most   int      // of a read
	cancel context.CancelFunc

	done bool
	err  error
	last uint64          // what a write returned
	got  []record.Record // what a read returned
}

func (a *asked) String() string { return fmt.Sprintf("%d %s", a.side, a.kind) }

// dead returns what everything fails with at a side that has ended, or nil.
func (e *end) dead() error {
	switch {
	case e.over != nil:
		return e.over
	case e.closed:
		return record.ErrClosed
	case e.left:
		return record.ErrPeerClosed
	}
	return nil
}

// writes returns what a write of n records fails with, or whether it has to wait.
func (e *end) writes(n int) (wait bool, err error) {
	w := e.out
	switch {
	case n > w.window:
		return false, record.ErrTooLarge
	case e.dead() != nil:
		return false, e.dead()
	case w.ended:
		return false, record.ErrClosed
	case e.gone:
		return false, record.ErrPeerClosed
	case w.failed != nil:
		return false, w.failed
	}
	return int(w.last()-w.applied)+n > w.window, nil
}

// awaits is writes, of a barrier for seq.
func (e *end) awaits(seq, acked uint64) (wait bool, err error) {
	w := e.out
	switch {
	case seq > w.last():
		return false, record.ErrRange
	case seq <= acked:
		return false, nil
	case e.dead() != nil:
		return false, e.dead()
	case e.gone:
		return false, record.ErrPeerClosed
	case w.failed != nil && seq >= w.failed.FailedSeq:
		return false, w.failed
	}
	return true, nil
}

// reads is writes, of a read that finds nothing.
func (e *end) reads() (wait bool, err error) {
	w := e.in
	switch {
	case e.dead() != nil:
		return false, e.dead()
	case w.ended && w.failed == nil:
		return false, io.EOF
	case e.gone:
		return false, record.ErrPeerClosed
	}
	return true, nil
}

// readable returns how many records can be read.
func (e *end) readable() int {
	if e.dead() != nil || e.in.failed != nil {
		return 0
	}
	return int(e.in.last() - e.in.delivered)
}

// ack is AckRecord.
func (e *end) ack(seq uint64) error {
	switch w := e.in; {
	case e.dead() != nil:
		return e.dead()
	case seq > w.delivered || seq < w.applied:
		return record.ErrRange
	}
	e.in.applied = seq
	return nil
}

// fail is Fail, and what it does to the other side.
func (e *end) fail(peer *end, f record.RecordFailure) error {
	w := e.in
	switch {
	case e.dead() != nil:
		return e.dead()
	case f.FailedSeq > w.delivered || f.FailedSeq <= w.applied:
		return record.ErrRange
	}
	f.Applied = w.applied
	if !f.Retryable {
		e.over = &f
		if !peer.closed {
			peer.over = &f
		}
		return nil
	}
	w.delivered, w.failed = f.FailedSeq-1, &f
	return nil
}

// resend is Resend.
func (e *end) resend() error {
	if e.dead() != nil {
		return e.dead()
	}
	if !e.gone {
		e.out.failed = nil
	}
	return nil
}

// closes is Close.
func (e *end) closes(peer *end) {
	if e.dead() != nil {
		return
	}
	e.closed = true
	if peer.dead() != nil {
		return
	}
	if e.out.failed != nil && !e.out.saidEnd {
		peer.left = true
		return
	}
	e.out.ended, peer.gone = true, true
}

// settle lets the model come to rest, given what has been returned, and says what is wrong with that.
func (m *model) settle() error {
	for _, kinds := range []string{"write", "barrier read"} { // a write gives reads something to read
		if err := m.settleKinds(kinds); err != nil {
			return err
		}
	}
	for _, a := range m.waiting {
		if a.done {
			return fmt.Errorf("%v: is over, with %w, and has to wait", a, a.err)
		}
	}
	return nil
}

func (m *model) settleKinds(kinds string) error {
	for progress := true; progress; {
		progress = false
		for _, w := range m.ways {
			w.saidEnd = w.saidEnd || w.ended && w.failed == nil
		}
		for _, a := range slices.Clone(m.waiting) {
			if !strings.Contains(kinds, a.kind) {
				continue
			}
			over, err := m.judge(a)
			if err != nil {
				return fmt.Errorf("%v: %w", a, err)
			}
			if over {
				m.waiting = slices.DeleteFunc(m.waiting, func(other *asked) bool { return other == a })
				progress = true
			}
		}
	}
	return nil
}

// judge reports whether a has to be over by now, and an error unless it is as it has to be.
func (m *model) judge(a *asked) (over bool, err error) {
	e := m.ends[a.side]
	var wait bool
	var want error
	switch a.kind {
	case "write":
		if m.first("write", a.side) != a && e.dead() == nil { // those before it come first
			_, want = e.writes(len(a.parts))
			wait = want == nil
			break
		}
		wait, want = e.writes(len(a.parts))
	case "barrier":
		wait, want = e.awaits(a.seq, m.acked[a.side])
	case "read":
		if n := e.readable(); n > 0 {
			return true, m.took(a, e.in, n)
		}
		wait, want = e.reads()
	}
	switch {
	case wait && a.done && errors.Is(a.err, context.Canceled):
		return true, nil
	case wait:
		return false, nil
	case !a.done:
		return true, fmt.Errorf("waits, and has to be over with %w", want)
	case !same(a.err, want):
		return true, fmt.Errorf("ended with %w, want %w", a.err, want)
	}
	if a.kind == "write" && want == nil {
		e.out.log = append(e.out.log, a.parts...)
		if a.last != e.out.last() {
			return true, fmt.Errorf("record %d, want %d", a.last, e.out.last())
		}
	}
	return true, nil
}

// took takes what a read has returned out of w, where n records can be read.
func (m *model) took(a *asked, w *way, n int) error {
	if !a.done || a.err != nil || len(a.got) < 1 || len(a.got) > min(n, a.most) {
		return fmt.Errorf("%d records, of %d, %v: %w", len(a.got), n, a.done, a.err)
	}
	for _, r := range a.got {
		w.delivered++
		if r.Seq != w.delivered || string(r.Payload) != w.log[r.Seq-1] {
			return fmt.Errorf("record %d, %q, where %d, %q, is due", r.Seq, r.Payload, w.delivered, w.log[w.delivered-1])
		}
	}
	return nil
}

// same reports whether err is what the model says.
func same(err, want error) bool {
	var f, g *record.RecordFailure
	switch {
	case want == nil || want == io.EOF:
		return err == want
	case errors.As(want, &f):
		return errors.As(err, &g) && *f == *g
	}
	var e *record.Error
	return errors.Is(err, want) && errors.As(err, &e)
}

// model is a stream in the model, and the calls that wait.
type model struct {
	ways    [2]*way
	ends    [2]*end
	acked   [2]uint64 // the last that each side, as a writer, knows to be applied
	waiting []*asked
}

func newModel(window int) *model {
	m := &model{ways: [2]*way{{window: window}, {window: window}}}
	m.ends = [2]*end{{out: m.ways[0], in: m.ways[1]}, {out: m.ways[1], in: m.ways[0]}}
	return m
}

// first returns the call of a kind that has waited longest at a side, or nil.
func (m *model) first(kind string, side int) *asked {
	for _, a := range m.waiting {
		if a.side == side && a.kind == kind {
			return a
		}
	}
	return nil
}

// learn has writers know what is applied: those that are still told.
func (m *model) learn() {
	for i, e := range m.ends {
		if e.dead() == nil && !e.gone {
			m.acked[i] = e.out.applied
		}
	}
}

// settling is longer than anything that the tests of the model let a stream wait for.
const settling = time.Second
