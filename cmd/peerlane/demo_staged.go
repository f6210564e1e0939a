package main

import (
	"fmt"
	"slices"
	"sync"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/diagnostics"
)

// inDemo has the clients and servers of the step that runs.
var inDemo staged

// staged is what the page of the demo shows. It is safe for concurrent use.
type staged struct {
	mu    sync.Mutex
	all   diagnostics.Sources
	ended diagnostics.Totals // of those that have left
}

// show adds a client and a server, either of which may be nil.
func (s *staged) show(c *peerlane.Client, v *peerlane.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.Clients, s.all.Servers = append(s.all.Clients, c), append(s.all.Servers, v)
}

// hide removes what show has added, once it is closed, and keeps its totals.
func (s *staged) hide(c *peerlane.Client, v *peerlane.Server) {
	ended := diagnostics.Summary(diagnostics.OfClient(c), diagnostics.OfServer(v)).Totals
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended.Add(&ended)
	s.all.Clients = slices.DeleteFunc(s.all.Clients, func(one *peerlane.Client) bool { return one == nil || one == c })
	s.all.Servers = slices.DeleteFunc(s.all.Servers, func(one *peerlane.Server) bool { return one == nil || one == v })
}

// sources returns what is there now.
func (s *staged) sources() diagnostics.Sources {
	s.mu.Lock()
	defer s.mu.Unlock()
	return diagnostics.Sources{Clients: slices.Clone(s.all.Clients), Servers: slices.Clone(s.all.Servers)}
}

// summary returns a line with the totals of both sides of all that has left.
func (s *staged) summary() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.ended
	return fmt.Sprintf("%d sessions, %d calls, %d messages, %d records, %s; %d resumed, %d moved, %d refused",
		t.Opened, t.RequestsOut, t.MessagesOut, t.RecordsOut, bytesText(float64(t.BytesOut)), t.Resumes, t.Migrations, t.Failed)
}
