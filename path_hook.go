package peerlane

import (
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/peerlane/peerlane/session"
)

// pathHook calls OnPath for one session.
type pathHook struct {
	call func(*session.Session, Path) // OnPath; may be nil
	last network.Conn                 // the session's last known connection; nil: none
}

// onState calls OnPath if the session has moved to another connection, or has lost its connection. Calls do not overlap.
func (h *pathHook) onState(s *session.Session, change session.StateChange) {
	if h.call == nil || change.State == session.StateEnded {
		return
	}
	c, ok := change.Conn.(*carrier)
	switch {
	case change.State == session.StateDetached:
		if h.last != nil {
			h.last = nil
			h.call(s, Path{})
		}
	case ok && c.under != h.last:
		h.last = c.under
		h.call(s, c.Path())
	}
}
