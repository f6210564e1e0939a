package metrics

import (
	"cmp"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/diagnostics"
	"github.com/peerlane/peerlane/internal/registry"
)

// The values of the label role.
const (
	client = "client"
	server = "server"
)

// A Collector is a prometheus.Collector of clients and servers: use New. Several that are the same of a role and tag are added up. It is safe
// for concurrent use.
type Collector struct {
	tags    tagSet
	timers  map[string]*timers // by role
	vectors []*prometheus.HistogramVec

	mu      sync.Mutex // held during a scrape, so that one that starts later has counters that are no less
	clients map[*peerlane.Client]func()
	servers map[*peerlane.Server]func() // each stops its observer
	past    totals                      // of those that have been removed
}

// New returns a Collector without clients and servers.
func New() *Collector {
	c := &Collector{clients: make(map[*peerlane.Client]func()), servers: make(map[*peerlane.Server]func()), past: newTotals()}
	vectors, of := newVectors()
	c.vectors = vectors
	c.timers = map[string]*timers{client: newTimers(client, &c.tags, of), server: newTimers(server, &c.tags, of)}
	return c
}

// AddClient adds a Client. Nil, and one that has been added already, changes nothing. A Client may be in several Collectors. One that is
// closed stays, with its counters, until RemoveClient.
func (c *Collector) AddClient(cl *peerlane.Client) {
	if cl == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clients[cl] == nil {
		c.clients[cl] = cl.ForDiagnostics().Observe(c.timers[client])
	}
}

// AddServer adds a Server, as AddClient does a Client.
func (c *Collector) AddServer(s *peerlane.Server) {
	if s == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.servers[s] == nil {
		c.servers[s] = s.ForDiagnostics().Observe(c.timers[server])
	}
}

// RemoveClient removes a Client, so that the Collector no longer holds it. Its counts stay in the counters of the Collector. To add it again
// counts them twice.
func (c *Collector) RemoveClient(cl *peerlane.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stop := c.clients[cl]; stop != nil {
		stop()
		delete(c.clients, cl)
		c.past.addClient(cl, &c.tags)
		c.past.settle()
	}
}

// RemoveServer removes a Server, as RemoveClient does a Client.
func (c *Collector) RemoveServer(s *peerlane.Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stop := c.servers[s]; stop != nil {
		stop()
		delete(c.servers, s)
		c.past.addServer(s, &c.tags)
		c.past.settle()
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range byTag {
		ch <- m.desc
	}
	for _, m := range byLimit {
		ch <- m.desc
	}
	for _, v := range c.vectors {
		v.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	now := c.now() // and then without the lock, as ch may be slow
	for key, row := range now.tags {
		for _, m := range byTag {
			m.send(ch, row, key.role, key.tag)
		}
	}
	for key, row := range now.limits {
		for _, m := range byLimit {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, row[m.value], key.role, key.limit)
		}
	}
	for _, v := range c.vectors {
		v.Collect(ch)
	}
}

// now returns the figures of a scrape.
func (c *Collector) now() totals {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.past.clone()
	for cl := range c.clients {
		t.addClient(cl, &c.tags)
	}
	for s := range c.servers {
		t.addServer(s, &c.tags)
	}
	return t
}

func (t *totals) addClient(c *peerlane.Client, tags *tagSet) {
	v := diagnostics.OfClient(c) // before the counts, which then know the tags of all its sessions
	known := t.addCounts(client, c.ForDiagnostics().Counts(), tags)
	t.addSessions(client, v.Sessions, known)
	t.addLimits(client, v.Limits)
	for _, k := range v.Keepers {
		row := t.row(client, known.name(k.Tag))
		row.gauges[keeperWanted] += float64(k.Want)
		row.gauges[keeperOpen] += float64(k.Open)
	}
}

func (t *totals) addServer(s *peerlane.Server, tags *tagSet) {
	v := diagnostics.OfServer(s)
	known := t.addCounts(server, s.ForDiagnostics().Counts(), tags)
	t.addSessions(server, v.Sessions, known)
	t.addLimits(server, v.Limits)
	for _, call := range v.Calls {
		t.row(server, known.name(call.Tag)).gauges[oldCalls]++
	}
}

// addCounts adds the counts of a Client or Server, and returns its tags.
func (t *totals) addCounts(role string, all []registry.TagCounts, tags *tagSet) knownTags {
	slices.SortFunc(all, func(a, b registry.TagCounts) int { return cmp.Compare(a.Tag, b.Tag) })
	known := make(knownTags, len(all))
	for i := range all {
		name := tags.name(all[i].Tag)
		known[all[i].Tag] = name
		t.row(role, name).counts.Add(&all[i].Counts)
	}
	return known
}
