package session

import (
	"time"

	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/flow"
)

// memory is a QuotaPart as a flow asks it for memory. A refusal is no work that was refused: the flow makes do with less.
type memory QuotaPart

// A flow that makes do with less asks again with each batch. After a refusal, the quota, which all peers share, is not asked for so long.
const refusedFor = 20 * time.Millisecond

// Take implements flow.Budget.
func (m *memory) Take(n int) bool {
	if last := m.refusedAt.Load(); last != 0 && time.Now().UnixNano()-last < int64(refusedFor) {
		return false
	}
	v := m.holder.TakeSpare(fair.Bytes, int64(n))
	switch {
	case v != fair.Granted:
		m.refusedAt.Store(time.Now().UnixNano())
	case m.refusedAt.Load() != 0:
		m.refusedAt.Store(0)
	}
	return m.granted(v)
}

func (m *memory) granted(v fair.Verdict) bool {
	m.quota.wantBytes(v, m.holder)
	return v == fair.Granted
}

// Give implements flow.Budget.
func (m *memory) Give(n int) { m.holder.Give(fair.Bytes, int64(n)) }

// Scarce implements flow.Budget.
func (m *memory) Scarce(n int) bool { return m.holder.Scarce(fair.Bytes, int64(n)) }

// arrived is memory for what has been received already, and cannot wait.
type arrived struct{ *memory }

// Take implements flow.Budget.
func (a arrived) Take(n int) bool { return a.granted(a.holder.Take(fair.Bytes, int64(n))) }

// budget returns the bound of what this side keeps to send again: the share of the peer that opened the session. What this side keeps for a
// session of its own is not the peer's doing, and counts nowhere.
func (s *Session) budget() flow.Budget {
	if s.dialer {
		return nil
	}
	return (*memory)(s.part)
}
