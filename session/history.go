package session

import (
	"net"
	"time"

	"github.com/peerlane/peerlane/internal/registry"
)

// maxCarriers bounds the carriers that a session remembers, the current one included.
const maxCarriers = 8

// history is the carriers of a session, for diagnostics: the current one, and the last ones before it.
type history struct {
	conn  net.Conn // the current one; nil while there is none
	since time.Time
	past  []registry.Carrier // the oldest first
}

// recordCarrierLocked updates the history at a step of the session. err is why the carrier or the session ended.
func (s *Session) recordCarrierLocked(state State, now time.Time, err error) {
	h := &s.carriers.history
	if h.conn != nil {
		if len(h.past) == maxCarriers-1 && state != StateEnded || len(h.past) == maxCarriers {
			h.past = append(h.past[:0], h.past[1:]...)
		}
		h.past = append(h.past, registry.Carrier{Path: describe(h.conn), Since: h.since, Until: now,
			Moved: state == StateMigrated, Phase: s.end.ours.String(), Err: err})
		h.conn = nil
	}
	if state != StateDetached && state != StateEnded {
		h.conn, h.since = s.Conn(), now
	}
}

// all returns the carriers, the oldest first.
func (h *history) all() []registry.Carrier {
	all := make([]registry.Carrier, 0, len(h.past)+1)
	all = append(all, h.past...)
	if h.conn != nil {
		all = append(all, registry.Carrier{Path: describe(h.conn), Since: h.since})
	}
	return all
}

// describe returns the path of a carrier that has a Describe method, or the address of another one.
func describe(conn net.Conn) string {
	if d, ok := conn.(interface{ Describe() string }); ok {
		return d.Describe()
	}
	if a := conn.RemoteAddr(); a != nil {
		return a.Network() + " " + a.String()
	}
	return ""
}
