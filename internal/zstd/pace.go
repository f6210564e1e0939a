package zstd

import (
	"maps"
	"sync"
	"time"
)

// How fast bodies are unpacked that expand greatly. What such a body costs its receiver, in memory to clear and to collect, has nothing to
// do with what it costs its sender.
const (
	greatly   = 64        // times its size on the wire; a log with times and numbers expands 17 times
	unpaced   = 16 << 10  // bytes, unpacked, up to which a body may expand as it likes
	peerRate  = 64 << 20  // bytes a second that one peer has at most
	totalRate = 128 << 20 // bytes a second that the networks share whose peers have such bodies, and the peers of each

	burst    = 500 * time.Millisecond // of its rate, that a peer has at once
	mostWait = 5 * time.Second        // of a body
	mostCost = time.Minute            // of a body, in time of its peer
	recount  = 100 * time.Millisecond // between two looks for peers that have nothing to wait for
)

// A Pacer bounds the bytes that peers have this side unpack in bodies that expand greatly.
type Pacer struct {
	mu      sync.Mutex
	paid    map[string]map[string]time.Time // when the rate of a peer, by network and ID, has made up for what it has taken
	counted time.Time                       // when those of the past were forgotten
}

// OfProcess is the Pacer of all sessions of this process, but for tests with a clock of their own.
var OfProcess = NewPacer()

// NewPacer returns a Pacer to which no peer owes anything.
func NewPacer() *Pacer { return &Pacer{paid: make(map[string]map[string]time.Time)} }

// Take returns how long a body of peer, of packed bytes that unpack to raw, has to wait before it is unpacked, and counts it. If that is
// too long, it counts nothing, and returns false.
func (p *Pacer) Take(peer Peer, packed, raw int) (wait time.Duration, ok bool) {
	if raw <= unpaced || raw/greatly <= packed {
		return 0, true
	}
	return p.take(peer, raw, time.Now())
}

func (p *Pacer) take(peer Peer, n int, now time.Time) (wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if since := now.Sub(p.counted); since < 0 || since >= recount {
		p.counted = now
		p.forget(now)
	}
	paid := p.paid[peer.Network][peer.ID]
	if !isDue(paid, now) {
		paid = now
	}
	if wait = paid.Sub(now) - burst; wait > mostWait {
		return wait, false
	}
	of := p.paid[peer.Network]
	if of == nil {
		of = make(map[string]time.Time)
		p.paid[peer.Network] = of
	}
	of[peer.ID] = paid // it counts
	rate := min(peerRate, float64(totalRate)/float64(len(p.paid))/float64(len(of)))
	cost := time.Duration(float64(n) / rate * float64(time.Second))
	of[peer.ID] = paid.Add(min(cost, mostCost))
	return max(0, wait), true
}

// forget forgets the peers that have made up for what they have taken.
func (p *Pacer) forget(now time.Time) {
	for network, of := range p.paid {
		maps.DeleteFunc(of, func(_ string, paid time.Time) bool { return !isDue(paid, now) })
		if len(of) == 0 {
			delete(p.paid, network)
		}
	}
}

// isDue reports whether a peer has not made up yet for what it has taken. If that is further off than can be, the clock was set back, as it
// is at the start of a synctest bubble.
func isDue(paid, now time.Time) bool {
	return paid.After(now) && paid.Sub(now) <= burst+mostWait+mostCost
}
