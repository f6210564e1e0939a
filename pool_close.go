package peerlane

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/peerlane/peerlane/internal/direct"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/session"
)

// close ends everything and waits for that. It returns the errors about undelivered work of the open sessions.
func (p *pool) close() error {
	p.mu.Lock()
	p.closed = true
	clear(p.entries)
	if p.reaper != nil {
		p.reaper.Stop()
	}
	for _, b := range p.budgets { // no circuit is left any more, and what closes sessions must not wait for that
		b.Stop()
	}
	clear(p.budgets)
	p.mu.Unlock()
	p.end()
	err := closeSessions(p.sessions())
	p.tasks.Wait()
	direct.Settle(p.host)
	return err
}

// sessions returns the open sessions.
func (p *pool) sessions() []*session.Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.open))
}

// exemptCaller makes the ends of sessions not wait for the handler that calls, if it is a handler of one of them.
func exemptCaller(all []*session.Session) {
	if caller := handler.Here(); slices.ContainsFunc(all, func(s *session.Session) bool { return caller.Of(s) }) {
		caller.Exempt()
	}
}

// closeSessions closes sessions concurrently, and returns the errors about undelivered work.
func closeSessions(all []*session.Session) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { errs[i] = s.Close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
