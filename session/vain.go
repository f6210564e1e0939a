package session

import (
	"maps"
	"time"

	"github.com/peerlane/peerlane/internal/fair"
)

// vain remembers searches that found nothing, for retryHint, the time that refused peers are told to wait. A search looks at all sessions, and
// strangers can cause one with each hello, from as many subnets as they like. So within that time, at most one search of all sessions, and one of
// each subnet, finds nothing. It is guarded by Quota.relieving.
type vain struct {
	others search         // among the sessions of other subnets
	own    map[any]search // among those of other peers of a subnet
}

// A search found nothing for subnets, or peers, that have at least a number of sessions.
type search struct {
	at    time.Time
	least int64
}

// covers reports whether a search would be in vain for a subnet, or a peer, that uses a number of places.
func (s search) covers(used int64) bool {
	return !s.at.IsZero() && time.Since(s.at) < retryHint && used >= s.least
}

const maxVain = 1024

// leaves returns where a search for a place may find something.
func (v *vain) leaves(wants *fair.Holder) (others, own bool) {
	used, ofSubnet := wants.Used(fair.Sessions), wants.UsedOfSubnet(fair.Sessions)
	return !v.others.covers(ofSubnet), ofSubnet > used && !v.own[wants.Subnet()].covers(used)
}

// add notes a search in vain. A subnet that has fewer sessions than ofSubnet, or a peer that has fewer than ofPeer, would find something.
func (v *vain) add(wants *fair.Holder, ofAll bool, ofSubnet, ofPeer int64) {
	now := time.Now()
	if ofAll {
		v.others = search{now, ofSubnet}
	}
	if len(v.own) >= maxVain {
		maps.DeleteFunc(v.own, func(_ any, s search) bool { return now.Sub(s.at) >= retryHint })
	}
	if v.own == nil || len(v.own) >= maxVain {
		v.own = make(map[any]search)
	}
	v.own[wants.Subnet()] = search{now, ofPeer}
}
