package chaos

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// losses are the errors that an error names a link or stream in.
type losses map[string][]*session.Error

// lossesOf returns what err names.
func lossesOf(err error) losses {
	found := losses{}
	found.add(err)
	return found
}

func (l losses) add(err error) {
	if e, ok := err.(*session.Error); ok && e.Link != "" { //nolint:errorlint // the tree is walked
		l[e.Link] = append(l[e.Link], e)
	}
	switch e := err.(type) { //nolint:errorlint // likewise
	case interface{ Unwrap() []error }:
		for _, cause := range e.Unwrap() {
			l.add(cause)
		}
	case interface{ Unwrap() error }:
		l.add(e.Unwrap())
	}
}

// says reports whether a loss has one of these outcomes.
func says(named []*session.Error, outcomes ...session.Outcome) bool {
	return slices.ContainsFunc(named, func(e *session.Error) bool { return slices.Contains(outcomes, e.Outcome) })
}

// check looks at all of it, after everything has ended.
func (m *model) check() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.talks {
		for side := range k.sides {
			k.lost[side] = lossesOf(k.closed[side])
			if side == accepting {
				k.lost[side].add(m.shutdownErr)
			}
		}
	}
	for name, x := range m.messages {
		if fault := x.fault(name); fault != "" {
			m.t.Errorf("seed %d: %s: %s: %s; Close: %s", m.plan.seed, name, fault, x, x.closeText())
		}
	}
	for _, w := range m.ways {
		if fault := w.fault(); fault != "" {
			m.t.Errorf("seed %d: %s: %s: %s; Close: %s", m.plan.seed, w.name, fault, w, brief(w.talk.closed[w.writer]))
		}
	}
	for _, l := range m.logs {
		if fault := l.fault(); fault != "" {
			m.t.Errorf("seed %d: %s: %s: %s; Close: %s", m.plan.seed, l.name, fault, l, brief(l.talk.closed[l.writer]))
		}
	}
	m.sum.runs.Add(1)
	m.sum.ran(m.plan)
}

func (x *message) closeText() string {
	if x.talk == nil {
		return "none"
	}
	return brief(x.talk.closed[x.sender])
}

// fault returns which rule is broken, or "".
func (x *message) fault(name string) string {
	switch {
	case x.handled > 1:
		return "handled twice"
	case x.garbled:
		return "came as something else"
	case x.early:
		return "came behind a later one"
	case !x.done:
		return "the call has not returned"
	}
	if x.call {
		return x.callFault()
	}
	return x.oneWayFault(name)
}

// callFault is fault of a call: nil says that it was handled, and NotSent and Rejected that it was not.
func (x *message) callFault() string {
	if x.err == nil {
		if x.handled == 0 || x.refused {
			return "answered, and its handler has not"
		}
		return ""
	}
	var e *session.Error
	if !errors.As(x.err, &e) {
		return "an error without an outcome"
	}
	switch e.Outcome {
	case session.NotSent, session.Rejected:
		if x.handled > 0 {
			return "handled, and said not to be"
		}
	case session.Delivered:
		if x.handled == 0 {
			return "not handled, and said to be"
		}
	}
	return ""
}

// oneWayFault is fault of a one-way message: what Send refuses is not handled, and of what it accepts all is handled or named.
func (x *message) oneWayFault(name string) string {
	if x.err != nil {
		if x.handled > 0 {
			return "refused by Send, and handled"
		}
		return ""
	}
	named := slices.Concat(x.told, x.talk.lost[x.sender][name])
	switch {
	case x.handled == 0 && len(named) == 0:
		return "LOST SILENTLY"
	case x.handled > 0 && says(named, session.NotSent, session.Rejected):
		return "handled, and said not to be"
	}
	return ""
}

func (w *way) String() string {
	return fmt.Sprintf("by %s on %d: wrote %d (%v), ended %v (%v), aborted %v, own reading (%v); served %v, read %d, eof %v (%v), quit %v, dropped %v; named %v",
		sideNames[w.writer], w.talk.id, w.wrote, w.writeErr, w.ended, w.endErr, w.aborted, w.backErr, w.served, w.read, w.eof, w.readErr, w.quit, w.dropped,
		w.talk.lost[w.writer][w.name])
}

// fault is that of the model in virtual time, with readers that stop and writers that drop the stream.
func (w *way) fault() string {
	if w.garbled {
		return "came as something else"
	}
	most := w.wrote
	if !strings.HasPrefix(w.name, "shared") && !strings.HasPrefix(w.name, "resumable") {
		most += w.rest // of a Write that was cut off QUIC and the seal count less than may have left: its outcome is not known
	}
	if w.read > most {
		return "more came than was written"
	}
	if w.eof && w.read < w.wrote {
		return "an end in order before the end"
	}
	named := slices.Concat(lossesOf(w.endErr)[w.name], w.talk.lost[w.writer][w.name])
	// Its reader has closed the session before it came to the end, or had all of it when the stream's own connection broke.
	ownEnd := errors.Is(w.readErr, session.ErrClosed) ||
		(strings.HasPrefix(w.name, "dedicated") || strings.HasPrefix(w.name, "bulk")) && w.readErr != nil
	missing := w.read < w.wrote || w.ended && !w.eof && !ownEnd && w.served
	switch {
	case w.quit || w.dropped || w.aborted: // what the reader does not want, and what the writer drops, is theirs
	case w.talk.cut[1-w.writer] && errors.Is(w.readErr, session.ErrClosed): // Abort drops what waits to be read on its side, and is the reader's
	case missing && len(named) == 0 && w.endErr == nil:
		return "LOST SILENTLY"
	case w.eof && says(w.saidOf(named), session.NotSent, session.Rejected):
		return "read to its end, and said not to be sent"
	}
	return ""
}

// saidOf returns the errors that speak of what was written to the lane itself. The session names the streams of a lane of bulk, also one
// whose hello alone was not read because the lane was over before: a strand that has carried nothing of it.
func (w *way) saidOf(named []*session.Error) []*session.Error {
	if strings.HasPrefix(w.name, "bulk") {
		return lossesOf(w.endErr)[w.name]
	}
	return named
}

func (l *log) String() string {
	return fmt.Sprintf("by %s on %d: wrote %d, closed %v (%v), aborted %v, barrier %d; served %v, read %d, applied %d, eof %v (%v), quit %v",
		sideNames[l.writer], l.talk.id, l.wrote, l.closed, l.closeErr, l.aborted, l.barrier, l.served, l.read, l.applied, l.eof, l.readErr, l.quit)
}

// fault is that of record's own model, and: a Barrier that was met says that the records were applied.
func (l *log) fault() string {
	if l.garbled || l.disorder {
		return "came as something else"
	}
	if l.read > l.wrote+1 { // one may have been cut off in WriteRecord
		return "more came than was written"
	}
	if l.eof && l.read < l.wrote {
		return "an end in order before the end"
	}
	if l.barrier > l.applied {
		return "a barrier was met, and the records were not applied"
	}
	if !l.closed { // nobody has come to use it at this side: OpenStream failed, or the session ended before
		return map[bool]string{true: "written and never closed"}[l.wrote > 0]
	}
	// Who closes his side reads no more of what has come: record.Stream.Close says so, and Session.Close calls it.
	ownEnd := errors.Is(l.readErr, record.ErrClosed)
	if l.closeErr == nil {
		if l.read < l.wrote && !l.quit && !l.aborted && !ownEnd {
			return "LOST SILENTLY"
		}
		return ""
	}
	var e *record.Error
	if !errors.As(l.closeErr, &e) {
		return "an error that does not say how far the peer is"
	}
	if e.Applied > l.applied {
		return "not applied, and said to be"
	}
	return ""
}

// totals count what has run.
type totals struct {
	runs, messages, calls, streams, lanes, logs, records, bytes, resumes, ends, drains, aborts, cuts, freezes, otherFaults, moves, late atomic.Uint64
	tcp, quic, sealed, bare, mortal                                                                                                     atomic.Uint64
}

func (s *totals) fault(name string) {
	switch name {
	case "cut", "cut after some bytes":
		s.cuts.Add(1)
	case "freeze":
		s.freezes.Add(1)
	default:
		s.otherFaults.Add(1)
	}
}

func (s *totals) ran(p plan) {
	for is, n := range map[*atomic.Uint64]bool{&s.tcp: p.transport != "quic", &s.quic: p.transport == "quic", &s.sealed: p.sealed, &s.bare: p.bare,
		&s.mortal: p.mortal} {
		if n {
			is.Add(1)
		}
	}
}

func (s *totals) String() string {
	return fmt.Sprintf("%d runs (%d TCP, %d QUIC, %d sealed, %d on bare conns, %d without a resume window), %d messages, %d calls, %d streams, "+
		"%d bulk lanes, %d record streams, %d bytes, %d records, %d cuts, %d freezes, %d other faults, %d hand-overs, %d resumes, %d ends, %d drains, %d aborts, %d handlers that outlived their sessions",
		s.runs.Load(), s.tcp.Load(), s.quic.Load(), s.sealed.Load(), s.bare.Load(), s.mortal.Load(), s.messages.Load(), s.calls.Load(),
		s.streams.Load(), s.lanes.Load(), s.logs.Load(), s.bytes.Load(), s.records.Load(), s.cuts.Load(), s.freezes.Load(), s.otherFaults.Load(), s.moves.Load(),
		s.resumes.Load(), s.ends.Load(), s.drains.Load(), s.aborts.Load(), s.late.Load())
}
