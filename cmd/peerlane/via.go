package main

import (
	"context"
	"sync"
	"time"
	"weak"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
)

// pathFlags are flags for the path to a peer.
type pathFlags struct {
	AllowRelay bool `help:"If no direct path to the peer is found, use the relay; its limits may cut the connection."`
}

// policy returns the path policy that the flags select.
func (f pathFlags) policy() peerlane.PathPolicy {
	if f.AllowRelay {
		return peerlane.PreferDirect
	}
	return peerlane.PathAuto
}

// paths shows the paths of sessions on a display, whenever they change.
type paths struct {
	display *display
	name    bool // show the peer, because there may be several

	mu   sync.Mutex
	last map[string]shown // by peer
	over bool             // nothing is shown any more
}

// shown is the last line about a peer.
type shown struct {
	kind string // the path without its variable parts, such as the round trip
	at   time.Time
	on   weak.Pointer[session.Session] // the session on the path; nil: none, or ended
}

func newPaths(d *display, name bool) *paths {
	return &paths{display: d, name: name, last: make(map[string]shown)}
}

// measureTime limits the measurement of a path's round trip.
const measureTime = time.Second

// onPath implements ClientConfig.OnPath and ServerConfig.OnPath.
func (p *paths) onPath(s *session.Session, path peerlane.Path) {
	if path == (peerlane.Path{}) {
		p.show(s.Peer(), nil, "lost; looking for another", "lost; looking for another")
		return
	}
	if path.RTT == 0 {
		ctx, cancel := context.WithTimeout(s.Context(), measureTime)
		defer cancel()
		_, _ = s.Ping(ctx) // without an answer, the line omits the round trip
		path = peerlane.PathOf(s)
	}
	p.show(s.Peer(), s, kindText(path), pathText(path))
}

// pathText describes a path.
func pathText(path peerlane.Path) string {
	text := path.String()
	if path.Relayed {
		text += ", looking for a direct path"
	}
	return text
}

// kindText describes the constant parts of a path.
func kindText(path peerlane.Path) string {
	path.RTT, path.RelayLeft, path.Expires = 0, 0, time.Time{}
	return path.String()
}

// path returns the current path to a peer, or the zero Path if it is unknown.
func (p *paths) path(peer string) peerlane.Path {
	p.mu.Lock()
	s := p.last[peer].on.Value()
	p.mu.Unlock()
	if s == nil || s.Err() != nil {
		return peerlane.Path{}
	}
	return peerlane.PathOf(s)
}

// showAgain shows the path to a peer at the end of a transfer, unless the last line is recent.
func (p *paths) showAgain(peer string) {
	path := p.path(peer)
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := p.last[peer]; path.Transport != "" && time.Since(last.at) >= p.display.every {
		last.at = time.Now()
		p.last[peer] = last
		p.writeLocked(peer, pathText(path))
	}
}

// show writes a line about a peer, unless the last one described the same kind of path. s is the session on the path, or nil.
func (p *paths) show(peer string, s *session.Session, kind, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.last[peer]
	if len(p.last) >= 10*maxPeers { // peers of an endpoint come and go
		clear(p.last)
	}
	if last.kind != kind {
		last.at = time.Now()
		p.writeLocked(peer, text)
	}
	p.last[peer] = shown{kind: kind, at: last.at, on: weak.Make(s)}
}

// end stops showing paths: a peer that goes once all is done is not lost.
func (p *paths) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

func (p *paths) writeLocked(peer, text string) {
	if p.over {
		return
	}
	if p.name {
		text = tail(peer) + " " + text
	}
	p.display.printf("path     %s", text)
}

// showPath shows the path of the client's session with its peer, if it has one.
func (c *client) showPath(ctx context.Context, d *display) {
	if s, err := c.Connect(ctx, c.peer, c.tag); err == nil { // the one of the last call
		newPaths(d, false).onPath(s, peerlane.PathOf(s))
	}
}
