package session

import (
	"sync"

	"github.com/peerlane/peerlane/internal/registry"
)

// ForDiagnostics returns the session as package diagnostics and the lanes of this module see it. Programs have no use for it.
func (s *Session) ForDiagnostics() registry.Session { return (*inspected)(s) }

// inspected is a Session as diagnostics see it.
type inspected Session

// Show implements registry.Session.
func (i *inspected) Show(kind, name string, snapshot func() any, count func(*registry.Counts)) (remove func()) {
	s, l := (*Session)(i), &shownLane{kind: kind, name: name, snapshot: snapshot, count: count}
	s.lanes.counting.Lock()
	if s.lanes.over { // its end could come after OnClose
		l.ended.Store(true)
	} else {
		s.announceShown(l, true)
	}
	s.lanes.shown.Add(l)
	s.lanes.counting.Unlock()
	return sync.OnceFunc(func() {
		s.hide(l)
		s.announceShown(l, false)
	})
}

// hide removes l from the list, and keeps what it has counted.
func (s *Session) hide(l *shownLane) {
	s.lanes.counting.Lock()
	defer s.lanes.counting.Unlock()
	s.lanes.shown.Remove(l)
	if l.count == nil {
		return
	}
	if s.lanes.past == nil {
		s.lanes.past = new(registry.Counts)
	}
	l.count(s.lanes.past)
}

// SetWatch implements registry.Session.
func (i *inspected) SetWatch(w *registry.Watch) { i.watch.Store(w) }

// Watch implements registry.Session.
func (i *inspected) Watch() *registry.Watch { return i.watch.Load() }

// Counts implements registry.Session.
func (i *inspected) Counts() registry.Counts {
	c := (*Session)(i).counts()
	i.lanes.counting.Lock()
	defer i.lanes.counting.Unlock()
	if i.lanes.past != nil {
		c.Add(i.lanes.past)
	}
	for _, l := range i.lanes.shown.All() {
		if l.count != nil {
			l.count(&c)
		}
	}
	return c
}

// counts returns the counts of the session and its streams.
func (s *Session) counts() registry.Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, streams := s.snapshotLocked(), s.stats.streams
	for _, st := range s.shared.open {
		streams.in += st.got
		streams.out += st.sent
	}
	for st := range s.dedicated.open {
		in, out := st.moved()
		streams.in += in
		streams.out += out
	}
	return registry.Counts{
		registry.Resumes: v.Resumes, registry.Migrations: v.Migrations, registry.Resent: v.Resent,
		registry.BytesIn: v.BytesIn, registry.BytesOut: v.BytesOut,
		registry.CallsIn: v.RequestsIn, registry.CallsOut: v.RequestsOut,
		registry.MessagesIn: v.MessagesIn, registry.MessagesOut: v.MessagesOut,
		registry.Undelivered: v.Undelivered, registry.Late: v.Late, registry.Refused: v.Refused, registry.Cancelled: v.Cancelled,
		registry.StreamsEnded: streams.ended, registry.StreamBytesIn: streams.in, registry.StreamBytesOut: streams.out,
	}
}

// State implements registry.Session.
func (i *inspected) State() registry.State {
	s := (*Session)(i)
	v := s.inspect()
	for _, l := range s.lanes.shown.All() {
		if lane := l.snapshot(); lane != nil {
			v.Lanes = append(v.Lanes, lane)
		}
	}
	return v
}

// inspect returns the carriers and streams of the session.
func (s *Session) inspect() registry.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := registry.State{Snapshot: s.snapshotLocked(), Conn: s.carriers.history.conn, Carriers: s.carriers.history.all()}
	if n := len(s.shared.open) + len(s.dedicated.open); n > 0 {
		v.Streams = make([]registry.Stream, 0, n)
	}
	for _, st := range s.shared.open {
		v.Streams = append(v.Streams, st.inspectLocked())
	}
	for st := range s.dedicated.open {
		v.Streams = append(v.Streams, st.inspectLocked())
	}
	return v
}

// stateOf names the state of a stream.
func stateOf(opened, oursEnded, theirsEnded bool) string {
	switch {
	case !opened:
		return "opening"
	case oursEnded && theirsEnded:
		return "closing"
	case oursEnded:
		return "local-closed"
	case theirsEnded:
		return "peer-closed"
	}
	return "open"
}

// inspectLocked describes a shared stream.
func (st *muxed) inspectLocked() registry.Stream {
	v := registry.Stream{
		ID: st.id, Name: st.name, Kind: "shared", Local: st.mine, Bulk: st.bulk,
		State:  stateOf(st.accepted, st.finAsked || st.writeErr != nil, st.peerFin),
		Opened: st.s.started.Add(st.askedAt), In: st.got, Out: st.sent, Credit: st.credit,
	}
	st.in.mu.Lock()
	defer st.in.mu.Unlock()
	v.Unread = st.in.buf.len()
	return v
}

// inspectLocked describes a dedicated stream.
func (st *Stream) inspectLocked() registry.Stream {
	v := registry.Stream{Name: st.name, Kind: "dedicated", Local: st.s.dialer, Opened: st.s.started.Add(st.opened), State: stateOf(false, false, false)}
	if st.ends != nil {
		v.ID = st.ends.number
	}
	v.In, v.Out = st.moved()
	switch c := st.conn.(type) {
	case *dedicated:
		v.State = stateOf(true, c.writeEnded.Load() || st.closed.Load(), c.readEnded.Load() || st.closed.Load())
	case *resumable:
		v.Kind = "resumable"
		v.State = stateOf(true, c.ended.Load() || st.closed.Load(), c.over.Load() || st.closed.Load())
	}
	return v
}
