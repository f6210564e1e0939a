package session

import (
	"context"
	"time"

	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/internal/zstd"
)

// laneStream is a Stream as the lane on it sees it.
type laneStream Stream

var _ lane.Stream = (*laneStream)(nil)

func (st *laneStream) SetBulk(bulk bool) {
	if m, ok := st.conn.(*muxed); ok {
		st.s.mu.Lock()
		defer st.s.mu.Unlock()
		m.bulk = bulk
		if !bulk && st.s.releaseHeldLocked((*writing)(m)) {
			m.queued = false
			m.offerLocked()
		}
	}
}

func (st *laneStream) WriteProgress() uint64 {
	switch c := st.conn.(type) {
	case *muxed:
		st.s.mu.Lock()
		defer st.s.mu.Unlock()
		if len(c.out) > 0 && c.credit == 0 {
			return c.sent
		}
		return c.sent + st.s.progressLocked()
	case *dedicated:
		if c.ends == nil {
			return c.sent.Load()
		}
		st.s.mu.Lock()
		defer st.s.mu.Unlock()
		return c.ends.wrote.Load() + c.ends.peerTook
	case *resumable:
		n, _ := c.Acked()
		return n
	}
	return 0
}

func (st *laneStream) Unread() (n uint64, known bool) {
	c, ok := st.conn.(*dedicated)
	if !ok || c.ends == nil {
		return 0, false
	}
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	return c.ends.wrote.Load() - c.ends.peerTook, true
}

func (st *laneStream) SetPayload(payload func() uint64) {
	if c, ok := st.conn.(interface{ setPayload(func() uint64) }); ok && payload != nil {
		c.setPayload(payload)
	}
}

func (st *laneStream) Astray() bool {
	c, ok := st.conn.(*dedicated)
	now := st.s.Conn()
	return ok && !sameConnection(c.raw, now) && !sameConnection(c.beside, now)
}

func (st *laneStream) Budgets() (kept, arrives lane.Budget) {
	if st.s.dialer {
		return nil, nil
	}
	m := (*memory)(st.s.part)
	return m, arrived{m}
}

func (st *laneStream) AwaitCoder(n int) (done func()) {
	turn, _ := zstd.Await(st.s.coder, st.s, n, false) // without one, the session has ended, and the stream with it
	return turn.Done
}

func (st *laneStream) CloseTimeout() time.Duration { return st.s.cfg.CloseTimeout }

func (st *laneStream) FlushOnClose(flush func(ctx context.Context) error) (remove func()) {
	return st.s.flushOnClose(flush)
}
