package session

import (
	"sync/atomic"
	"time"
)

// bare is the one carrier of a session without a flow, which does for itself what a flow does for the others: it notes signs of life, and
// cuts what is written into pieces. under is constant, cut belongs to the writer, and mu guards probesIn.
type bare struct {
	under      *flowConn
	cut        cutter        // of the Writes
	heardAt    atomic.Int64  // when the carrier last gave a sign of life, in nanoseconds after Session.started
	written    atomic.Uint64 // batches that held more than a heartbeat
	writeBegan atomic.Int64  // when the Write in progress began, in nanoseconds after Session.started; 0: none
	probesIn   uint64        // received PING and PONG frames
}

// A cutter estimates how many bytes a carrier's Write takes in about signEvery, from the duration of earlier Writes. It serves a session
// without a flow; a flow knows its own pace.
type cutter struct {
	n       atomic.Int64
	written uint64
}

const leastCut = 4 << 10

// piece returns the size limit of the next Write.
func (c *cutter) piece() int { return int(max(c.n.Load(), leastCut)) }

// took records that a Write of n bytes took d. A Write that did not have to wait says little, because the bytes may only be queued.
func (c *cutter) took(n int, d time.Duration) {
	c.written += uint64(n)
	piece := int64(c.piece())
	switch {
	case d > signEvery:
		piece = min(piece, int64(float64(n)*float64(signEvery)/float64(d)))
	case d < signEvery/4:
		piece = min(2*piece, int64(c.written/8), maxPart)
	}
	c.n.Store(max(piece, leastCut))
}

// hear records a sign of life of the carrier, in a session without a flow.
func (s *Session) hear(now time.Duration) { s.bare.heardAt.Store(int64(now)) }

// roomWait is the least duration of a Write that had to wait for room, which means that earlier bytes have left.
const roomWait = 100 * time.Millisecond

// signEvery is the most time between received bytes and the sign sent for them. The peer may have a shorter Heartbeat than this side.
const signEvery = 500 * time.Millisecond

// unasked returns the time between received bytes and the sign sent for them.
func (c *Config) unasked() time.Duration {
	if c.Heartbeat < 0 {
		return signEvery
	}
	return min(c.Heartbeat/2, signEvery)
}
