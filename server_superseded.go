package peerlane

import (
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/peerlane/peerlane/session"
)

// A silent connection stays in a libp2p host for half a minute or more, and counts against its limits: by default a host admits eight from
// one peer. So a server closes the connection of a carrier that a session had to give up, if nothing else is on it and it answers no ping.

// onState follows the steps of a session, and reports them to the application.
func (t *servedTag) onState(s *session.Session, change session.StateChange) {
	t.server.ends.step(s, change)
	switch change.State {
	case session.StateDetached:
		t.remember(s, change)
	case session.StateResumed, session.StateMigrated, session.StateEnded:
		t.closeSuperseded(s, change)
	}
	if t.server.cfg.OnState != nil {
		t.server.cfg.OnState(s, change)
	}
	if t.server.cfg.OnPath != nil {
		t.hookOf(s, change.State).onState(s, change)
	}
}

// hookOf returns what calls OnPath for a session, and forgets it when the session has ended.
func (t *servedTag) hookOf(s *session.Session, state session.State) *pathHook {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hooks[s]
	if h == nil {
		h = &pathHook{call: t.server.cfg.OnPath}
		t.hooks[s] = h
	}
	if state == session.StateEnded {
		delete(t.hooks, s)
	}
	return h
}

// remember records the connection of the carrier that a session has lost.
func (t *servedTag) remember(s *session.Session, change session.StateChange) {
	c, ok := change.Conn.(*carrier)
	if !ok || c.under == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost[s] = c.under
}

// closeSuperseded closes the connection of a session's lost carrier, once the session is on another connection, if no stream is left on it
// and it answers no ping.
func (t *servedTag) closeSuperseded(s *session.Session, change session.StateChange) {
	t.mu.Lock()
	old := t.lost[s]
	delete(t.lost, s)
	t.mu.Unlock()
	c, ok := change.Conn.(*carrier)
	if old == nil || !ok || change.State == session.StateEnded || c.under == old || len(old.GetStreams()) > 0 {
		return
	}
	go func() { // ends after answerTime, or with the session
		if !areAlive(s.Context(), []network.Conn{old}, answerTime) && s.Context().Err() == nil && len(old.GetStreams()) == 0 {
			_ = old.Close() // the peer has given it up
		}
	}()
}
