package main

import (
	"strings"
	"sync"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
)

// pathFlags say over what a command reaches its peer.
type pathFlags struct {
	AllowRelay bool `help:"Where no direct path to the peer is found, go through the relay; its limits may end that."`
}

// policy returns what the flags allow.
func (f pathFlags) policy() peerlane.PathPolicy {
	if f.AllowRelay {
		return peerlane.PreferDirect
	}
	return peerlane.PathAuto
}

// paths says on a display over what sessions run, whenever that changes.
type paths struct {
	display *display
	name    bool // the peer: there may be several

	mu   sync.Mutex
	last map[string]string // by peer
}

func newPaths(d *display, name bool) *paths {
	return &paths{display: d, name: name, last: make(map[string]string)}
}

// onState is for ClientConfig.OnState and ServerConfig.OnState.
func (p *paths) onState(s *session.Session, change session.StateChange) {
	peer, line := s.Peer(), ""
	switch change.State {
	case session.StateConnected, session.StateResumed, session.StateMigrated:
		path := peerlane.PathOf(s)
		line = path.String()
		if path.Relayed {
			line += "; looking for a direct path"
		}
	case session.StateDetached:
		line = "lost; looking for another"
	default:
		return
	}
	p.say(peer, line)
}

// say writes a line for a peer, unless it is the last one again.
func (p *paths) say(peer, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last[peer] == line {
		return
	}
	if len(p.last) >= 10*maxPeers { // those of an endpoint come and go
		clear(p.last)
	}
	p.last[peer] = line
	if p.name {
		line = strings.Join([]string{tail(peer), line}, " ")
	}
	p.display.printf("path     %s", line)
}
