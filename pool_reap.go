package peerlane

import (
	"slices"
	"time"

	"github.com/peerlane/peerlane/session"
)

// trim makes the reaper look at once when there may be more sessions than may be idle.
func (p *pool) trim() {
	if !p.crowded.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaper != nil && !p.closed {
		p.reaper.Reset(0)
	}
}

// reapInterval returns how often idle sessions are looked for.
func (p *pool) reapInterval() time.Duration { return max(p.cfg.IdleConnTimeout/4, minReap) }

// minReap keeps a reaper from spinning, and from taking sessions before their first call.
const minReap = time.Millisecond

// reap closes the sessions that have been idle for IdleConnTimeout, and those over MaxIdleConns, the longest idle first.
func (p *pool) reap() {
	p.mu.Lock()
	idle := p.idleLocked()
	now := time.Now()
	var over []poolKey
	for i, v := range idle {
		if now.Sub(v.since) >= p.cfg.IdleConnTimeout || i < len(idle)-p.cfg.MaxIdleConns {
			over = append(over, v.key)
		}
	}
	drained := p.takeLocked(over)
	p.crowded.Store(len(p.entries) > p.cfg.MaxIdleConns)
	if p.reaper != nil {
		if len(p.entries) == 0 || p.closed {
			p.reaper.Stop()
			p.reaper = nil
		} else {
			p.reaper.Reset(p.reapInterval())
		}
	}
	p.mu.Unlock()
	for _, s := range drained {
		s.Drain("idle")
	}
}

// idleEntry is a session with nothing in flight.
type idleEntry struct {
	key   poolKey
	since time.Time
}

// idleLocked returns the idle sessions, the longest idle first, and forgets those that have ended.
func (p *pool) idleLocked() []idleEntry {
	var idle []idleEntry
	for key, e := range p.entries {
		if !e.isOpen() {
			continue
		}
		switch v := e.link.session.Snapshot(); {
		case v.Draining:
			delete(p.entries, key)
		case v.Idle:
			idle = append(idle, idleEntry{key, v.LastActive})
		}
	}
	slices.SortFunc(idle, func(x, y idleEntry) int { return x.since.Compare(y.since) })
	return idle
}

// takeLocked takes the sessions of keys out of the pool.
func (p *pool) takeLocked(keys []poolKey) []*session.Session {
	var taken []*session.Session
	for _, key := range keys {
		taken = append(taken, p.entries[key].link.session)
		delete(p.entries, key)
	}
	return taken
}
