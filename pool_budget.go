package peerlane

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"

	"github.com/peerlane/peerlane/session"
)

// A limited relay cuts a connection after so many bytes each way, or so much time, and with it what is on the way. The
// dialing side of a session leaves such a circuit before: it stops writing, gives what is under way the time to arrive,
// closes the connection, and resumes over a new one.

// The share of a relay's limits that is spent before a circuit is left. What libp2p adds to the bytes of its streams, and
// what else runs on the connection, takes from the rest: a relay that lets 131072 bytes through was measured to deliver
// 123904 of one stream.
const (
	budgetNumerator   = 3
	budgetDenominator = 4
)

// leaveBefore is how long before the end of its time a circuit is left, at most a quarter of that time.
const leaveBefore = 5 * time.Second

// settleTime bounds how long what is under way is given to arrive.
const (
	minSettleTime = 20 * time.Millisecond
	maxSettleTime = time.Second
)

// budget is what a limited relay lets through on one connection, which all carriers on it share.
type budget struct {
	limit int64  // bytes each way; 0: no limit
	spent func() // called once, in a goroutine, when the circuit is to be left

	mu       sync.Mutex
	in, out  int64
	over     bool
	released bool          // the circuit stays: writes do not wait any more
	freed    chan struct{} // closed by release
	timer    *time.Timer
}

// newBudget returns the budget of a connection over path.
func newBudget(path Path, spent func()) *budget {
	b := &budget{limit: path.RelayData / budgetDenominator * budgetNumerator, spent: spent, freed: make(chan struct{})}
	if !path.Expires.IsZero() {
		early := min(leaveBefore, path.RelayDuration/budgetDenominator)
		b.timer = time.AfterFunc(time.Until(path.Expires)-early, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.end()
		})
	}
	return b
}

// end makes the circuit be left. mu is held.
func (b *budget) end() {
	if !b.over {
		b.over = true
		go b.spent()
	}
}

// read counts n bytes that have come in.
func (b *budget) read(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.in += int64(n); b.limit > 0 && b.in >= b.limit {
		b.end()
	}
}

// take returns how many of n bytes may go out, and counts them. When the budget is spent it waits until that is released
// or the carrier is given up, and then lets all of them go.
func (b *budget) take(n int, gone <-chan struct{}) int {
	b.mu.Lock()
	switch {
	case b.released:
	case b.over:
		b.mu.Unlock()
		select {
		case <-gone:
		case <-b.freed:
		}
		b.mu.Lock()
	case b.limit > 0:
		n = int(min(int64(n), b.limit-b.out))
		if b.out+int64(n) >= b.limit {
			b.end()
		}
	}
	b.out += int64(n)
	b.mu.Unlock()
	return n
}

// leaving returns a channel that is closed when the circuit has been left, or stays after all; nil when it is not to be
// left. It may be called on nil.
func (b *budget) leaving() <-chan struct{} {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over || b.released {
		return nil
	}
	return b.freed
}

// release lets writes go on: the circuit is not left.
func (b *budget) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.released {
		b.released = true
		close(b.freed)
	}
}

// stop ends the timer of a connection that is gone.
func (b *budget) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
	b.release()
}

// budgetOf returns the budget of the connection that c runs on, or nil where there is no limit, or none is kept: for a
// client that does not resume.
func (p *pool) budgetOf(c *Conn) *budget {
	path := c.Path()
	if !path.Limited || p.cfg.ResumeWindow < 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	under := c.under
	b := p.budgets[under]
	if b == nil && !p.closed {
		b = newBudget(path, func() { p.spawn(func() { p.leaveCircuit(under) }) })
		if under.IsClosed() { // forgetBudget has been, and does not come again
			b.stop()
			return b
		}
		p.budgets[under] = b
	}
	return b
}

// forgetBudget ends the budget of a connection that has closed.
func (p *pool) forgetBudget(under network.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.budgets[under]; b != nil {
		b.stop()
		delete(p.budgets, under)
	}
}

// leaveCircuit closes a relayed connection whose budget is spent, unless others than sessions of this client use it: then
// it is left to be cut. It is a goroutine of its own.
func (p *pool) leaveCircuit(under network.Conn) {
	if !p.ownsAll(under) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if b := p.budgets[under]; b != nil {
			b.release()
		}
		return
	}
	settle := time.NewTimer(p.settleTime(under))
	defer settle.Stop()
	select {
	case <-settle.C:
	case <-p.ctx.Done():
		return
	}
	_ = under.Close() // the sessions on it resume over another
}

// ownsAll reports whether every stream on a connection is libp2p's own, or of a session of this client.
func (p *pool) ownsAll(under network.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	tags := map[string]bool{identify.ID: true, identify.IDPush: true, "": true}
	for _, key := range p.open {
		tags[string(sessionTag(key.tag))] = true
	}
	for key := range p.entries { // one that is being opened too
		tags[string(sessionTag(key.tag))] = true
	}
	for _, s := range under.GetStreams() {
		if !tags[string(s.Protocol())] {
			return false
		}
	}
	return true
}

// settleTime returns how long what is under way on a connection is given to arrive.
func (p *pool) settleTime(under network.Conn) time.Duration {
	longest := minSettleTime
	for _, s := range p.sessionsOn(under) {
		longest = max(longest, 2*s.RTT())
	}
	return min(longest, maxSettleTime)
}

// sessionsOn returns the sessions whose carrier runs on a connection.
func (p *pool) sessionsOn(under network.Conn) []*session.Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*session.Session
	for s := range p.open {
		if c, ok := s.Conn().(*carrier); ok && c.under == under {
			all = append(all, s)
		}
	}
	return all
}
