package metrics

import (
	"maps"

	"github.com/peerlane/peerlane/diagnostics"
	"github.com/peerlane/peerlane/internal/registry"
)

// totals are the figures of several clients and servers.
type totals struct {
	tags   map[tagKey]*row
	limits map[limitKey]limitRow
}

type tagKey struct{ role, tag string }

type limitKey struct{ role, limit string }

type limitRow [numLimitValues]float64

// row is the figures of a role and tag.
type row struct {
	counts registry.Counts
	gauges [numGauges]float64
}

func newTotals() totals { return totals{make(map[tagKey]*row), make(map[limitKey]limitRow)} }

func (t *totals) clone() totals {
	c := totals{make(map[tagKey]*row, len(t.tags)), maps.Clone(t.limits)}
	for key, r := range t.tags {
		own := *r
		c.tags[key] = &own
	}
	return c
}

// settle drops everything that is not counted up.
func (t *totals) settle() {
	for _, r := range t.tags {
		r.gauges = [numGauges]float64{}
	}
	for key, r := range t.limits {
		t.limits[key] = limitRow{limitRefusals: r[limitRefusals]}
	}
}

func (t *totals) row(role, tag string) *row {
	key := tagKey{role, tag}
	r := t.tags[key]
	if r == nil {
		r = new(row)
		t.tags[key] = r
	}
	return r
}

// addLimits adds limits. Those of one peer are left out: there are as many as peers.
func (t *totals) addLimits(role string, all []diagnostics.Limit) {
	for _, l := range all {
		if l.Peer != "" {
			continue
		}
		key := limitKey{role, l.Name}
		r := t.limits[key]
		r[limitUsed] += float64(l.Used)
		r[limitMax] += float64(l.Max)
		r[limitRefusals] += float64(l.Refused)
		t.limits[key] = r
	}
}

func (t *totals) addSessions(role string, all []diagnostics.SessionSnapshot, known knownTags) {
	for i := range all {
		t.row(role, known.name(all[i].Tag)).addSession(&all[i])
	}
}

func (r *row) addSession(s *diagnostics.SessionSnapshot) {
	switch {
	case s.Path == nil:
		r.gauges[sessionsDetached]++
	case s.Path.Relayed:
		r.gauges[sessionsRelayed]++
	default:
		r.gauges[sessionsDirect]++
	}
	r.gauges[callsIn] += float64(s.InFlightIn)
	r.gauges[callsOut] += float64(s.InFlightOut)
	r.gauges[replayBytes] += float64(s.ReplayUsed)
	for i := range s.Streams {
		switch s.Streams[i].Kind {
		case "shared":
			r.gauges[streamsShared]++
		case "dedicated":
			r.gauges[streamsDedicated]++
		case "resumable":
			r.gauges[streamsResumable]++
		}
	}
	r.gauges[recordStreams] += float64(len(s.Records))
	for i := range s.Records {
		r.gauges[recordsOutstanding] += float64(s.Records[i].Outstanding)
		r.gauges[recordsPending] += float64(s.Records[i].PendingApply)
	}
	r.gauges[bulkLanes] += float64(len(s.Bulk))
	for i := range s.Transfers {
		if s.Transfers[i].Receiving {
			r.gauges[transfersIn]++
		} else {
			r.gauges[transfersOut]++
		}
	}
}
