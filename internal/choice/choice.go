// Package choice decides which of several connections to a peer to use. It is pure: it measures nothing, and has no clock.
//
// A direct connection is preferred to a relayed one, an unlimited relay to a limited one, and through a relay TCP to QUIC, which is a third
// as fast there. These properties do not change, so a connection of a better kind is chosen immediately. Among connections of the same
// kind, the round trip and the losses decide. They change all the time, so another connection is chosen only if it has been clearly better
// for some time, and not soon after the last change.
package choice

import (
	"math"
	"time"
)

// A Path describes a connection.
type Path struct {
	Relayed bool
	Limited bool // by its relay
	Stream  bool // runs over TCP, as WebSocket does; for a relayed connection, the hop to the relay does
	Measure
}

// A Measure is the result of the pings on a connection. The zero Measure is ready for the first one.
type Measure struct {
	RTT     time.Duration // without queueing delay
	Loss    float64       // the recent share of pings that were lost at least once
	Samples int           // pings
	Silent  int           // pings in a row without an answer
}

// Weights of a new sample.
const (
	rttAging  = 16 // the weight of a longer round trip is 1/16: it may be due to a queue
	lossAging = 4
)

// lateBy is the extra delay of an answer if the ping or the answer was lost and sent again.
const lateBy = 100 * time.Millisecond

// Answered adds an answered ping. busy means that other data was in flight, which may have delayed the ping.
func (m *Measure) Answered(rtt time.Duration, busy bool) {
	m.Samples++
	m.Silent = 0
	late := m.RTT > 0 && rtt > 2*m.RTT+lateBy
	switch {
	case m.RTT == 0 || rtt < m.RTT:
		m.RTT = max(rtt, 1)
	case !busy:
		m.RTT += (rtt - m.RTT) / rttAging
	}
	if !busy {
		m.lost(late)
	}
}

// Unanswered adds a ping without an answer.
func (m *Measure) Unanswered() {
	m.Samples++
	m.Silent++
	m.lost(true)
}

func (m *Measure) lost(lost bool) {
	m.Loss -= m.Loss / lossAging
	if lost {
		m.Loss += 1.0 / lossAging
	}
}

// Dead reports whether the connection counts as dead: two pings in a row were not answered.
func (m *Measure) Dead() bool { return m.Silent >= 2 }

// cost returns the cost of a connection, in seconds, to compare connections of the same kind. A loss costs several round trips.
func (m *Measure) cost() float64 {
	if m.RTT == 0 {
		return math.Inf(1)
	}
	const lossCosts = 8
	return m.RTT.Seconds() * (1 + lossCosts*m.Loss)
}

// Less reports whether p is of a better kind than other, regardless of round trips and losses.
func (p *Path) Less(other *Path) bool { return p.class() < other.class() }

// isBetter reports whether p is of a better kind than other, or of the same kind and costs less.
func (p *Path) isBetter(other *Path) bool {
	return p.Less(other) || !other.Less(p) && p.cost() < other.cost()
}

func (p *Path) class() int {
	switch {
	case p.Dead():
		return 5
	case !p.Relayed:
		return 0
	case p.Limited && p.Stream:
		return 3
	case p.Limited:
		return 4
	case p.Stream:
		return 1
	}
	return 2
}

// Conditions for a change to a connection of the same kind.
const (
	enoughSamples = 3
	enoughRounds  = 3                    // in a row
	enoughGain    = 0.75                 // of the cost
	enoughTime    = 2 * time.Millisecond // and by no less than this

	leastPause = 30 * time.Second // after a change; it doubles with each change
	mostPause  = 10 * time.Minute
)

// A Chooser chooses between the connections to one peer, which are of type K. The zero Chooser is ready.
type Chooser[K comparable] struct {
	ahead  K             // the best connection of the last rounds, better than the one in use
	rounds int           // the number of those rounds
	moved  time.Time     // when the connection last changed to one of the same kind
	pause  time.Duration // the least time until the next such change
}

// An Option is a connection that can be chosen, by its key.
type Option[K comparable] struct {
	Key K
	*Path
}

// Next returns the connection to use, given the one in use, which may be closed, and a new measure of each. It returns the zero K if there
// are no connections. Call it once for each round of measurements, with at least a second between rounds.
func (c *Chooser[K]) Next(now time.Time, current K, all []Option[K]) K {
	inUse := find(current, all)
	best := inUse
	for i := range all {
		o := &all[i]
		mayBeDead := inUse != nil && o.RTT == 0 // no reason to leave the one in use
		if best == nil || o != inUse && !mayBeDead && o.isBetter(best.Path) {
			best = o
		}
	}
	switch {
	case best == nil:
		var none K
		return none
	case inUse == nil || best == inUse || best.Less(inUse.Path):
		c.rounds = 0
	case !c.isAhead(best, inUse) || c.isTooSoon(now):
		return current
	default:
		c.pauseAfter(now)
		c.rounds = 0
	}
	return best.Key
}

func find[K comparable](key K, all []Option[K]) *Option[K] {
	for i := range all {
		if all[i].Key == key {
			return &all[i]
		}
	}
	return nil
}

// isAhead reports whether best has been better than the connection in use for long enough.
func (c *Chooser[K]) isAhead(best, inUse *Option[K]) bool {
	gain := inUse.cost() - best.cost()
	if min(best.Samples, inUse.Samples) < enoughSamples || best.cost() > enoughGain*inUse.cost() || gain < enoughTime.Seconds() {
		c.rounds = 0
		return false
	}
	if c.ahead != best.Key {
		c.ahead, c.rounds = best.Key, 0
	}
	c.rounds++
	return c.rounds >= enoughRounds
}

func (c *Chooser[K]) isTooSoon(now time.Time) bool {
	return !c.moved.IsZero() && now.Sub(c.moved) < c.pause
}

// pauseAfter records a change and sets the pause after it. The pauses start over after a long time without a change.
func (c *Chooser[K]) pauseAfter(now time.Time) {
	if c.moved.IsZero() || now.Sub(c.moved) > 2*mostPause {
		c.pause = leastPause / 2
	}
	c.moved, c.pause = now, min(2*c.pause, mostPause)
}
