package diagnostics

import (
	"cmp"
	"slices"
	"strings"
)

// The bounds of a view, however much there is.
const (
	maxRows  = 100 // sessions
	maxPeers = 60  // on the map
	maxItems = 100 // of each other list
	maxLanes = 50  // of each list of a session
)

// maxSearch is how many bytes a search can have. Each session is searched for each of its words.
const maxSearch = 256

// orders are the orders in which sessions are listed.
var orders = map[string]func(a, b *row) int{
	"peer": func(a, b *row) int { return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Tag, b.Tag)) },
	"active": func(a, b *row) int {
		return b.LastActive.Compare(a.LastActive)
	},
	"age":   func(a, b *row) int { return a.Started.Compare(b.Started) },
	"bytes": func(a, b *row) int { return cmp.Compare(b.BytesIn+b.BytesOut, a.BytesIn+a.BytesOut) },
	"rtt":   func(a, b *row) int { return cmp.Compare(b.RTT, a.RTT) },
	"state": func(a, b *row) int { return cmp.Compare(a.State, b.State) },
}

// A query selects the sessions of a view.
type query struct {
	words []string // in lower case; a session must match all of them
	order string   // a key of orders
	first int      // of the sessions that match
	count int      // at most
}

// A view is a snapshot as a page shows it: the sessions that the page asks for, and a bounded part of the rest.
type view struct {
	Version      int                `json:"version"`
	Summary      *SummarySnapshot   `json:"summary"`
	Hosts        []string           `json:"hosts"`
	Explains     bool               `json:"explains"`         // there is a client to explain with
	Served       []string           `json:"served,omitempty"` // tags
	Keys         []string           `json:"keys,omitempty"`
	Matching     int                `json:"matching"` // sessions that match the query
	First        int                `json:"first"`    // of them, that Sessions begins with
	Sessions     []row              `json:"sessions,omitempty"`
	Peers        []peerView         `json:"peers,omitempty"` // of the sessions that match
	MorePeers    int                `json:"more_peers,omitempty"`
	Limits       []Limit            `json:"limits,omitempty"` // those with a Warning first
	Keepers      []KeeperSnapshot   `json:"keepers,omitempty"`
	Calls        []CallSnapshot     `json:"calls,omitempty"`
	Transfers    []TransferSnapshot `json:"transfers,omitempty"`
	MoreWarnings int                `json:"more_warnings,omitempty"` // than Summary has
	Ended        []Event            `json:"ended,omitempty"`         // the newest first
	Refused      []Event            `json:"refused,omitempty"`       // and those that this side could not open, the newest first
}

// A row is a session on this side.
type row struct {
	*SessionSnapshot
	Server bool           `json:"server"`         // it is one of a Server
	More   map[string]int `json:"more,omitempty"` // how many the lists lack, by their names
}

// bounded returns r with the newest maxLanes of each list. The peer chooses how many there are.
func (r row) bounded() row {
	s := *r.SessionSnapshot
	r.SessionSnapshot, r.More = &s, make(map[string]int)
	s.Streams = newest(s.Streams, "streams", r.More)
	s.Records = newest(s.Records, "records", r.More)
	s.Bulk = newest(s.Bulk, "bulk", r.More)
	s.Transfers = newest(s.Transfers, "transfers", r.More)
	return r
}

// newest returns the last maxLanes of all, and counts the others in more.
func newest[T any](all []T, name string, more map[string]int) []T {
	n := max(0, len(all)-maxLanes)
	if n > 0 {
		more[name] = n
	}
	return all[n:]
}

// A peerView is a peer on the map, with its sessions taken together.
type peerView struct {
	Peer     string   `json:"peer"`
	Sessions int      `json:"sessions"`
	Detached int      `json:"detached,omitempty"` // sessions without a connection
	Direct   bool     `json:"direct,omitempty"`   // a session is on a direct connection
	Relay    string   `json:"relay,omitempty"`    // a session is on a connection of this relay
	Path     string   `json:"path,omitempty"`     // of one of them, a direct one if there is one
	RTT      Duration `json:"rtt_ms,omitempty"`   // the shortest
	BytesIn  uint64   `json:"bytes_in"`
	BytesOut uint64   `json:"bytes_out"`
}

// viewOf returns what q shows of p. It changes nothing in p, and shares its parts.
func viewOf(p *ProcessSnapshot, q query) *view {
	summary := p.Summary
	v := &view{Version: Version, Summary: &summary, MoreWarnings: max(0, len(summary.Warnings)-maxItems)}
	summary.Warnings = head(summary.Warnings)
	rows := v.gather(p)
	rows = slices.DeleteFunc(rows, func(r row) bool { return !r.matches(q.words) })
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Or(orders[q.order](&a, &b), cmp.Compare(a.ID, b.ID)) })
	v.Matching, v.Explains = len(rows), len(p.Clients) > 0
	v.drawPeers(rows)
	v.First = min(q.first, max(0, (len(rows)-1)/q.count*q.count)) // the last page, if there are fewer now
	v.Sessions = rows[v.First:min(v.First+q.count, len(rows))]
	for i := range v.Sessions {
		v.Sessions[i] = v.Sessions[i].bounded()
	}
	slices.SortStableFunc(v.Limits, func(a, b Limit) int { return share(b) - share(a) })
	v.Limits, v.Keepers, v.Calls, v.Transfers = head(v.Limits), head(v.Keepers), head(v.Calls), head(v.Transfers)
	newestFirst := func(a, b Event) int { return b.At.Compare(a.At) }
	slices.SortStableFunc(v.Ended, newestFirst)
	slices.SortStableFunc(v.Refused, newestFirst)
	v.Ended, v.Refused = head(v.Ended), head(v.Refused)
	return v
}

// share returns how much of l is in use, in percent.
func share(l Limit) int {
	if l.Max <= 0 {
		return 0
	}
	return int(float64(l.Used) * 100 / float64(l.Max))
}

// head returns the first maxItems of all.
func head[T any](all []T) []T { return all[:min(len(all), maxItems)] }

// gather adds up the clients and servers, and returns their sessions.
func (v *view) gather(p *ProcessSnapshot) []row {
	var rows []row
	add := func(all []SessionSnapshot, server bool) {
		for i := range all {
			rows = append(rows, row{SessionSnapshot: &all[i], Server: server})
			v.Transfers = append(v.Transfers, all[i].Transfers...)
		}
	}
	v.Transfers = append(v.Transfers, p.Transfers...)
	for i := range p.Clients {
		c := &p.Clients[i]
		add(c.Sessions, false)
		v.Hosts, v.Keys = append(v.Hosts, c.Host), append(v.Keys, c.Keys...)
		v.Limits, v.Keepers = append(v.Limits, c.Limits...), append(v.Keepers, c.Keepers...)
		v.Ended, v.Refused = append(v.Ended, c.Ended...), append(v.Refused, c.Failed...)
	}
	for i := range p.Servers {
		s := &p.Servers[i]
		add(s.Sessions, true)
		v.Hosts, v.Keys, v.Served = append(v.Hosts, s.Host), append(v.Keys, s.Keys...), append(v.Served, s.Tags...)
		v.Limits, v.Calls = append(v.Limits, s.Limits...), append(v.Calls, s.Calls...)
		v.Ended, v.Refused = append(v.Ended, s.Ended...), append(v.Refused, s.Refused...)
	}
	v.Hosts, v.Keys, v.Served = distinct(v.Hosts), distinct(v.Keys), distinct(v.Served)
	slices.SortFunc(v.Transfers, func(a, b TransferSnapshot) int { return cmp.Compare(a.Number, b.Number) })
	v.Transfers = slices.CompactFunc(v.Transfers, func(a, b TransferSnapshot) bool { return a.Number == b.Number })
	return rows
}

// distinct returns all without those that are there twice, in order.
func distinct(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

// matches reports whether each word is in one of the fields that a user searches.
func (r *row) matches(words []string) bool {
	if len(words) == 0 {
		return true
	}
	path := ""
	if r.Path != nil {
		path = r.Path.Text + "\n" + r.Path.Relay
	}
	text := strings.ToLower(strings.Join([]string{r.Peer, r.Tag, r.ID, r.State, path, r.Agent}, "\n"))
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}

// drawPeers sets the peers of rows: those with the most sessions, if they are many, in the order of their IDs.
func (v *view) drawPeers(rows []row) {
	peers := make(map[string]*peerView)
	for _, r := range rows {
		p := peers[r.Peer]
		if p == nil {
			p = &peerView{Peer: r.Peer}
			peers[r.Peer] = p
		}
		p.add(r.SessionSnapshot)
	}
	for _, p := range peers {
		v.Peers = append(v.Peers, *p)
	}
	slices.SortFunc(v.Peers, func(a, b peerView) int { return cmp.Or(b.Sessions-a.Sessions, cmp.Compare(a.Peer, b.Peer)) })
	v.MorePeers = max(0, len(v.Peers)-maxPeers)
	v.Peers = v.Peers[:len(v.Peers)-v.MorePeers]
	slices.SortFunc(v.Peers, func(a, b peerView) int { return cmp.Compare(a.Peer, b.Peer) })
}

// add counts a session of the peer.
func (p *peerView) add(s *SessionSnapshot) {
	p.Sessions++
	p.BytesIn += s.BytesIn
	p.BytesOut += s.BytesOut
	if s.RTT > 0 && (p.RTT == 0 || s.RTT < p.RTT) {
		p.RTT = s.RTT
	}
	switch {
	case s.Path == nil:
		p.Detached++
	case s.Path.Relayed:
		p.Relay = s.Path.Relay
		if !p.Direct {
			p.Path = s.Path.Text
		}
	default:
		p.Direct, p.Path = true, s.Path.Text
	}
}
