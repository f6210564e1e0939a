package peerlane

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/session"
)

// tagCounts are the counts of the sessions of one tag. endings.mu guards past.
type tagCounts struct {
	watch registry.Watch
	past  registry.Counts // of the sessions that have ended, and of openings
}

// followed is a session that endings follows.
type followed struct {
	tag protocol.ID
	to  *tagCounts

	// Guarded by endings.mu.
	detached time.Time // since when it has no carrier; zero: it has one
	relayed  time.Time // since when it has had no direct carrier; zero: it has one, or has never been relayed

	mu    sync.Mutex
	final *registry.Counts // once it has ended
}

// end returns the final counts of s. A session counts on for a moment after its end: those that come later would be in one scrape, and missing
// in the next.
func (f *followed) end(s *session.Session) *registry.Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := s.ForDiagnostics().Counts()
	f.final = &counts
	return f.final
}

// counts returns the counts of s, which no later call and no end undercuts.
func (f *followed) counts(s *session.Session) registry.Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.final != nil {
		return *f.final
	}
	return s.ForDiagnostics().Counts()
}

// tagLocked returns the counts of a tag, or those of registry.OtherTag if there are too many tags.
func (e *endings) tagLocked(tag protocol.ID) *tagCounts {
	if t := e.tags[tag]; t != nil {
		return t
	}
	if len(e.tags) >= registry.MaxTags {
		tag = registry.OtherTag
		if t := e.tags[tag]; t != nil {
			return t
		}
	}
	if e.tags == nil {
		e.tags = make(map[protocol.ID]*tagCounts)
	}
	t := &tagCounts{watch: registry.Watch{Tag: string(tag), Observers: &e.observers}}
	e.tags[tag] = t
	return t
}

// expect makes the counts of a tag be there before its first session.
func (e *endings) expect(tag protocol.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tagLocked(tag)
}

// failed counts a session of a tag that was not opened.
func (e *endings) failed(tag protocol.ID, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tagLocked(tag).past[by(err, registry.SessionsFailedLocal, registry.SessionsFailedPeer, registry.SessionsFailedNetwork)]++
}

// step follows the steps of a session, and reports how long it was detached, and how long it took to become direct.
func (e *endings) step(s *session.Session, change session.StateChange) {
	e.mu.Lock()
	f := e.open[s]
	if f == nil {
		e.mu.Unlock()
		return
	}
	var path *Path
	if c, ok := change.Conn.(*carrier); ok && change.State != session.StateEnded {
		p := c.Path()
		path = &p
	}
	away, indirect := f.stepLocked(change, path)
	e.mu.Unlock()
	if away >= 0 {
		f.to.watch.Observe(registry.ResumeTime, away)
	}
	if indirect >= 0 {
		f.to.watch.Observe(registry.DirectTime, indirect)
	}
}

// stepLocked returns how long the session was detached, if it has just been resumed, and how long it was not direct, if it has just become
// direct. Otherwise each is negative. path is that of its carrier; nil: not known.
func (f *followed) stepLocked(change session.StateChange, path *Path) (away, indirect time.Duration) {
	away, indirect = -1, -1
	switch change.State {
	case session.StateDetached:
		f.detached = change.At
		return away, indirect
	case session.StateResumed:
		if !f.detached.IsZero() {
			away = change.At.Sub(f.detached)
		}
	}
	f.detached = time.Time{}
	switch {
	case path == nil:
	case path.Relayed:
		if f.relayed.IsZero() {
			f.relayed = change.At
		}
	case !f.relayed.IsZero():
		indirect = max(change.At.Sub(f.relayed), 0)
		f.relayed = time.Time{}
	}
	return away, indirect
}

// counts returns the counts of each tag.
func (e *endings) counts() []registry.TagCounts {
	type live struct {
		s *session.Session
		f *followed
	}
	e.mu.Lock()
	e.catchUpLocked()
	sums := make(map[*tagCounts]*registry.TagCounts, len(e.tags))
	for _, t := range e.tags {
		sums[t] = &registry.TagCounts{Tag: t.watch.Tag, Counts: t.past}
	}
	open := make([]live, 0, len(e.open))
	for s, f := range e.open {
		open = append(open, live{s, f})
	}
	e.mu.Unlock()
	for _, l := range open { // without the lock: a session that ends meanwhile counts here, and is not in its tag's past
		counts := l.f.counts(l.s)
		sums[l.f.to].Add(&counts)
	}
	all := make([]registry.TagCounts, 0, len(sums))
	for _, sum := range sums {
		all = append(all, *sum)
	}
	return all
}
