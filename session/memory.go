package session

import (
	"time"

	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/flow"
)

// memory is a QuotaPart as the budget of a flow. Its refusals are not counted as refused work: the flow goes on with less.
type memory QuotaPart

// After a refusal, memory refuses for refusedFor without asking the quota, which all peers share: a flow that goes on with less asks again with each
// batch.
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

// arrived is memory for data that has already been received.
type arrived struct{ *memory }

// Take implements flow.Budget.
func (a arrived) Take(n int) bool { return a.granted(a.holder.Take(fair.Bytes, int64(n))) }

// budget returns the budget of the data that this side keeps to send again: the share of the peer that opened the session. It returns nil on
// sessions that this side has opened, where that data is not the peer's doing.
func (s *Session) budget() flow.Budget {
	if s.dialer {
		return nil
	}
	return (*memory)(s.part)
}
