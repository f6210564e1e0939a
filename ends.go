package peerlane

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/internal/cause"
	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/session"
)

// endings follows the sessions of a Client or Server to their ends. It remembers the last sessions that have ended, and adds up what all of
// them have counted. The zero value is ready. It is safe for concurrent use.
type endings struct {
	observers registry.Observers

	mu   sync.Mutex
	open map[*session.Session]*followed
	tags map[protocol.ID]*tagCounts // at most registry.MaxTags, and registry.OtherTag
	last registry.Ring
}

// follow records the end of s, once it comes.
func (e *endings) follow(s *session.Session, tag protocol.ID) {
	f := &followed{tag: tag}
	if PathOf(s).Relayed {
		f.relayed = time.Now()
	}
	e.mu.Lock()
	if e.open == nil {
		e.open = make(map[*session.Session]*followed)
	}
	f.to = e.tagLocked(tag)
	f.to.past[registry.SessionsOpened]++
	e.open[s] = f
	e.mu.Unlock()
	s.ForDiagnostics().SetWatch(&f.to.watch)
	context.AfterFunc(s.Context(), func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.addLocked(s)
	})
}

// addLocked records that s has ended, unless that is done.
func (e *endings) addLocked(s *session.Session) {
	f, open := e.open[s]
	if !open {
		return
	}
	delete(e.open, s)
	err := s.Err()
	f.to.past.Add(f.end(s))
	f.to.past[by(err, registry.SessionsEndedLocal, registry.SessionsEndedPeer, registry.SessionsEndedNetwork)]++
	e.last.Add(registry.Event{At: time.Now(), Peer: s.Peer(), Tag: string(f.tag), Session: s.ID().String(), Path: pathText(PathOf(s)), Err: err})
}

// by returns which of three counters counts err.
func by(err error, local, peer, network registry.Counter) registry.Counter {
	switch who, _ := cause.Of(err); who {
	case cause.Local:
		return local
	case cause.Peer:
		return peer
	}
	return network
}

// all returns the last ends, the oldest first. Each session that has ended by now is among them: those too whose AfterFunc has yet to run.
func (e *endings) all() []registry.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.catchUpLocked()
	return e.last.All()
}

// catchUpLocked records the ends of sessions whose AfterFunc has yet to run.
func (e *endings) catchUpLocked() {
	for s := range e.open {
		select {
		case <-s.Done():
			e.addLocked(s)
		default:
		}
	}
}
