package peerlane

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"github.com/peerlane/peerlane/internal/budget"
	"github.com/peerlane/peerlane/internal/pause"
)

// A limited relay cuts a connection right behind its last byte. libp2p drops received bytes that were not read before the cut. So a server, too,
// stops writing earlier: the client reads everything, finds its own budget spent, and leaves the circuit (pool_budget.go). A client that counts fewer
// bytes stays, and the server closes the connection.

// A client has four round trips to leave a circuit, within these bounds: twice its own settleTime.
const (
	minServerSettleTime = time.Second / 4
	maxServerSettleTime = 2 * maxSettleTime
)

// circuits are the budgets of limited connections.
type circuits struct {
	watched sync.Once // conns are registered, or the circuits are closed
	conns   network.NotifyBundle

	mu      sync.Mutex
	closed  bool
	budgets map[network.Conn]*budget.Budget
	leaving sync.WaitGroup
}

// budgetOf returns the budget of the connection that c runs on, or nil where there is no limit, or none is kept: for a server whose sessions do not
// resume.
func (s *Server) budgetOf(c *Conn) *budget.Budget {
	path := c.Path()
	if path.RelayData == 0 || s.cfg.ResumeWindow < 0 {
		return nil
	}
	k := &s.circuits
	k.watched.Do(func() {
		k.conns.DisconnectedF = func(_ network.Network, under network.Conn) { k.forget(under) }
		s.host.Network().Notify(&k.conns) // calls back under its own lock
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.budgets[c.under]
	if b != nil || k.closed || c.under.IsClosed() { // forget has been, and does not come again
		return b
	}
	b = budget.NewSending(path.RelayData, func() { s.leaveCircuit(c.under) })
	if k.budgets == nil {
		k.budgets = make(map[network.Conn]*budget.Budget)
	}
	k.budgets[c.under] = b
	return b
}

// forget ends the budget of a connection that has closed.
func (k *circuits) forget(under network.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if b := k.budgets[under]; b != nil {
		b.Stop()
		delete(k.budgets, under)
	}
}

// release ends the wait of writes on a connection.
func (k *circuits) release(under network.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if b := k.budgets[under]; b != nil {
		b.Release()
	}
}

// enter reports whether a connection may be left: the circuits are not closed. Then the caller calls leaving.Done.
func (k *circuits) enter() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.leaving.Add(1)
	}
	return !k.closed
}

// close ends all budgets, after the ctx of the server has ended.
func (k *circuits) close(h host.Host) {
	k.watched.Do(func() {})
	h.Network().StopNotify(&k.conns)
	k.mu.Lock()
	k.closed = true
	for _, b := range k.budgets {
		b.Stop()
	}
	clear(k.budgets)
	k.mu.Unlock()
	k.leaving.Wait()
}

// leaveCircuit closes a relayed connection whose budget is spent, unless the client does so first. A connection with other streams than those of
// sessions that resume is left for the relay to cut. It runs in its own goroutine.
func (s *Server) leaveCircuit(under network.Conn) {
	if !s.circuits.enter() {
		return
	}
	defer s.circuits.leaving.Done()
	rtt, resume := s.resumeOn(under)
	if !resume {
		s.circuits.release(under)
		return
	}
	awaitPunch(s.ctx, s.host, under)
	if pause.For(s.ctx, min(max(minServerSettleTime, 4*rtt), maxServerSettleTime)) == nil {
		_ = under.Close() // the sessions on it resume over another
	}
}

// resumeOn returns the longest round trip of the sessions on a connection, and whether every stream on it is libp2p's own, or of a session of this
// server that resumes.
func (s *Server) resumeOn(under network.Conn) (rtt time.Duration, resume bool) {
	tags := map[string]bool{identify.ID: true, identify.IDPush: true, ping.ID: true, "": true}
	for _, t := range s.openTags() {
		tags[string(sessionTag(t.tag))] = true
		for _, c := range t.acceptor.Sessions() {
			if on, ok := c.Conn().(*carrier); !ok || on.under != under {
				continue
			}
			if !c.Snapshot().Resumable {
				return 0, false
			}
			rtt = max(rtt, c.RTT())
		}
	}
	for _, stream := range under.GetStreams() {
		if !tags[string(stream.Protocol())] {
			return 0, false
		}
	}
	return rtt, true
}
