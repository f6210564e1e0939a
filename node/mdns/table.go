package mdns

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Limits of a table. Any host in the local network can claim anything about any peer.
const (
	maxWanted  = 256
	maxSources = 4  // IP addresses that sent claims about one peer; the oldest is dropped
	maxAddrs   = 16 // per claim
)

// fresh is how long a claim is used without another query.
const fresh = 2 * time.Second

// A table stores claims about the peers that this host looks up, and about no others.
type table struct {
	mu  sync.Mutex
	all map[peer.ID]*wanted
}

// wanted stores the claims about one peer.
type wanted struct {
	seekers int
	sources []source
	changed chan struct{} // closed at the next claim
}

type source struct {
	ip    netip.Addr
	addrs []ma.Multiaddr
	heard time.Time
}

func newTable() *table { return &table{all: make(map[peer.ID]*wanted)} }

// want starts to store claims about a peer, until release. It returns false if there are too many peers.
func (t *table) want(id peer.ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.all[id]
	if w == nil {
		if len(t.all) >= maxWanted {
			t.sweepLocked()
		}
		if len(t.all) >= maxWanted {
			return false
		}
		w = &wanted{changed: make(chan struct{})}
		t.all[id] = w
	}
	w.seekers++
	return true
}

// release undoes one want.
func (t *table) release(id peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.all[id]; w.seekers > 1 || len(w.freshAddrs()) > 0 {
		w.seekers--
		return
	}
	delete(t.all, id)
}

// sweepLocked drops the peers that are not being looked up. t.mu is held.
func (t *table) sweepLocked() {
	for id, w := range t.all {
		if w.seekers == 0 {
			delete(t.all, id)
		}
	}
}

// addrs returns the recently claimed addresses of a peer, and a channel that is closed on the next claim. The peer must be wanted.
func (t *table) addrs(id peer.ID) ([]ma.Multiaddr, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.all[id]
	return w.freshAddrs(), w.changed
}

// learn stores a claim that was received from the IP address from.
func (t *table) learn(c claim, from netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.all[c.id]
	if w == nil {
		return
	}
	w.sources = slices.DeleteFunc(w.sources, func(s source) bool { return s.ip == from })
	if len(c.addrs) == 0 {
		return
	}
	if len(w.sources) == maxSources {
		w.sources = slices.Delete(w.sources, 0, 1)
	}
	w.sources = append(w.sources, source{from, c.addrs, time.Now()})
	close(w.changed)
	w.changed = make(chan struct{})
}

// freshAddrs returns the recently claimed addresses. Those that a host claimed about itself come first.
func (w *wanted) freshAddrs() []ma.Multiaddr {
	var own, others []ma.Multiaddr
	for _, s := range w.sources {
		if time.Since(s.heard) >= fresh {
			continue
		}
		for _, a := range s.addrs {
			switch ip, _ := ipOf(a); {
			case ma.Contains(own, a) || ma.Contains(others, a): // the IPv4 and the IPv6 packet have the same content
			case ip == s.ip:
				own = append(own, a)
			default:
				others = append(others, a)
			}
		}
	}
	return append(own, others...)
}
