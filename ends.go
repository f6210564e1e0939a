package peerlane

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/session"
)

// endings remembers the last sessions that have ended. The zero value is ready. It is safe for concurrent use.
type endings struct {
	mu   sync.Mutex
	open map[*session.Session]protocol.ID // by their tags
	last registry.Ring
}

// follow records the end of s, once it comes.
func (e *endings) follow(s *session.Session, tag protocol.ID) {
	e.mu.Lock()
	if e.open == nil {
		e.open = make(map[*session.Session]protocol.ID)
	}
	e.open[s] = tag
	e.mu.Unlock()
	context.AfterFunc(s.Context(), func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.addLocked(s)
	})
}

// addLocked records that s has ended, unless that is done.
func (e *endings) addLocked(s *session.Session) {
	tag, open := e.open[s]
	if !open {
		return
	}
	delete(e.open, s)
	e.last.Add(registry.Event{At: time.Now(), Peer: s.Peer(), Tag: string(tag), Session: s.ID().String(), Path: pathText(PathOf(s)), Err: s.Err()})
}

// all returns the last ends, the oldest first. Each session that has ended by now is among them: those too whose AfterFunc has yet to run.
func (e *endings) all() []registry.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s := range e.open {
		select {
		case <-s.Done():
			e.addLocked(s)
		default:
		}
	}
	return e.last.All()
}
