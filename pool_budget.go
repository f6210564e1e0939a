package peerlane

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"github.com/peerlane/peerlane/internal/budget"
	"github.com/peerlane/peerlane/internal/punch"
	"github.com/peerlane/peerlane/session"
)

// A limited relay cuts a connection after so many bytes each way, or so much time, and with it what is on the way. The
// dialing side of a session leaves such a circuit before: it stops writing, gives what is under way the time to arrive,
// closes the connection, and resumes over a new one. What the accepting side does is in server_budget.go.

// settleTime bounds how long what is under way is given to arrive.
const (
	minSettleTime = 20 * time.Millisecond
	maxSettleTime = time.Second
)

// budgetOf returns the budget of the connection that c runs on, or nil where there is no limit, or none is kept: for a
// client that does not resume.
func (p *pool) budgetOf(c *Conn) *budget.Budget {
	path := c.Path()
	if !path.Limited || p.cfg.ResumeWindow < 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	under := c.under
	b := p.budgets[under]
	if b == nil && !p.closed {
		b = budget.New(path.RelayData, path.RelayDuration, path.Expires, func() { p.spawn(func() { p.leaveCircuit(under) }) })
		if under.IsClosed() { // forgetBudget has been, and does not come again
			b.Stop()
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
		b.Stop()
		delete(p.budgets, under)
	}
}

// leaveCircuit closes a relayed connection whose budget is spent, unless others than sessions of this client use it: then
// it is left to be cut. It is a goroutine of its own.
func (p *pool) leaveCircuit(under network.Conn) {
	awaitPunch(p.ctx, p.host, under)
	if !p.ownsAll(under) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if b := p.budgets[under]; b != nil {
			b.Release()
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

// punchHold is how long after its begin a circuit is kept, spent as its budget may be, for a direct connection that is looked for over it.
const punchHold = 5 * time.Second

// awaitPunch waits for a direct connection to the peer of a new circuit, unless the attempts have failed in this network. Much data would spend
// one circuit after the other before an attempt is over, and stay on the relay for good.
func awaitPunch(ctx context.Context, h host.Host, under network.Conn) {
	s := punch.Of(h)
	if s == nil {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, under.Stat().Opened.Add(punchHold))
	defer cancel()
	_ = s.Direct(ctx, under.RemotePeer()) // the circuit is left in any case
}

// ownsAll reports whether every stream on a connection is libp2p's own, or of a session of this client.
func (p *pool) ownsAll(under network.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	tags := map[string]bool{identify.ID: true, identify.IDPush: true, ping.ID: true, "": true}
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
	for s := range p.to[under.RemotePeer()] {
		if c, ok := s.Conn().(*carrier); ok && c.under == under {
			all = append(all, s)
		}
	}
	return all
}
