package session

import (
	"cmp"
	"slices"
	"time"

	"github.com/peerlane/peerlane/internal/fair"
)

// When a peer that has little finds no memory left, sessions without a carrier in which no handler runs are ended to make room, those of the peer,
// or the subnet, with the most memory first. It must have more than the peer that wants some. Otherwise a peer that leaves with much
// unacknowledged data would keep the memory for a ResumeWindow.

// At most mostAbandoned sessions are ended at a time, and none once one part in abandonedPart of the memory has become free. More are ended when a
// peer finds no room again.
const (
	mostAbandoned = 64
	abandonedPart = 16
)

// leastLead is how much more than the one who wants memory a peer, or a subnet, has of it before its sessions are ended.
const leastLead = 64 << 10

// wantBytes notes that a peer has found no memory. It does not wait, and mostly does no more than read the clock.
func (q *Quota) wantBytes(v fair.Verdict, wants *fair.Holder) {
	if v != fair.Full {
		return
	}
	now, last := time.Now().UnixNano(), q.reliefAt.Load()
	if since := now - last; since >= 0 && since < int64(retryHint) || !q.reliefAt.CompareAndSwap(last, now) {
		return
	}
	go q.relieveBytes(wants) // ends after one look at the sessions
}

// relieveBytes ends abandoned sessions that may hold memory, for a peer that wants some.
func (q *Quota) relieveBytes(wants *fair.Holder) {
	type abandoned struct {
		tenant
		lead  int64
		since time.Time
	}
	var all []abandoned
	for _, s := range q.tenants() {
		lead := s.holder().Lead(wants, fair.Bytes)
		if s.holder() == wants || lead < leastLead {
			continue
		}
		if since, is := s.isAbandoned(); is {
			all = append(all, abandoned{s, lead, since})
		}
	}
	slices.SortFunc(all, func(a, b abandoned) int { return cmp.Or(cmp.Compare(b.lead, a.lead), a.since.Compare(b.since)) })
	before := q.all().Used(fair.Bytes)
	for _, s := range all[:min(len(all), mostAbandoned)] {
		s.abandon()
		if before-q.all().Used(fair.Bytes) >= q.MaxBytes/abandonedPart {
			return
		}
	}
}
