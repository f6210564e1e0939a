package netcheck

import (
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The limits of a Server. A new Peer ID costs nothing, so each network is limited as well. One check takes some ten requests, under several
// Peer IDs, and several users may be in one network.
const (
	maxOfPeer    = 12  // SEND and DIAL requests in a minute
	maxOfNetwork = 60  // requests in a minute; a network is an IPv4 address, or an IPv6 prefix of 64 bits
	maxInAll     = 600 // requests in a minute
	atATime      = 8   // running requests of a network
	atATimeInAll = 32
)

// limits bound the work of a Server.
type limits struct {
	mu       sync.Mutex
	since    time.Time // when the current minute began
	peers    map[peer.ID]int
	networks map[netip.Prefix]int
	all      int
	running  map[netip.Prefix]int
	total    int // the sum of running
}

func newLimits() *limits {
	return &limits{peers: make(map[peer.ID]int), networks: make(map[netip.Prefix]int), running: make(map[netip.Prefix]int)}
}

// begin reports whether a peer may make a request now, and counts it. The caller must call done once the request is finished.
func (l *limits) begin(pid peer.ID, ip netip.Addr) (done func(), ok bool) {
	from := networkOf(ip)
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.since) >= time.Minute {
		clear(l.peers)
		clear(l.networks)
		l.all, l.since = 0, now
	}
	if l.peers[pid] >= maxOfPeer || l.networks[from] >= maxOfNetwork || l.all >= maxInAll ||
		l.running[from] >= atATime || l.total >= atATimeInAll {
		return nil, false
	}
	l.peers[pid]++
	l.networks[from]++
	l.running[from]++
	l.all++
	l.total++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.total--
		if l.running[from]--; l.running[from] == 0 {
			delete(l.running, from)
		}
	}, true
}

// networkOf returns the network that an address belongs to.
func networkOf(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // the zero prefix if there is no address
	return p
}
