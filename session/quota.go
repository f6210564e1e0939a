package session

import "sync/atomic"

// A Quota limits the work and memory of all sessions that share it. It is safe for concurrent use.
type Quota struct {
	max QuotaLimits

	sessions atomic.Int64
	calls    atomic.Int64
	bytes    atomic.Int64
	refused  atomic.Uint64
}

// QuotaLimits are the limits of a Quota. Zero or less means no limit.
type QuotaLimits struct {
	Sessions int   // sessions that peers have open at once
	Calls    int   // handlers of requests that run at once
	Bytes    int64 // bytes of requests, messages and replies held
}

// NewQuota returns a Quota of the given limits. Nil has the defaults.
func NewQuota(limits *QuotaLimits) *Quota {
	if limits == nil {
		limits = &QuotaLimits{}
	}
	return &Quota{max: *limits}
}

// Sessions returns how many sessions are open now.
func (q *Quota) Sessions() int { return int(q.sessions.Load()) }

// Calls returns how many handlers run now.
func (q *Quota) Calls() int { return int(q.calls.Load()) }

// Bytes returns how many bytes are held now.
func (q *Quota) Bytes() int64 { return q.bytes.Load() }

// Refused returns how many calls and messages have been refused for lack of room.
func (q *Quota) Refused() uint64 { return q.refused.Load() }

// startSession takes a place for one session, or reports that there is none.
func (q *Quota) startSession() bool { return q.add(&q.sessions, 1, int64(q.max.Sessions)) }

func (q *Quota) endSession() { q.sessions.Add(-1) }

// StartCall takes a place for one handler, or reports that there is none. EndCall releases it.
func (q *Quota) StartCall() bool { return q.add(&q.calls, 1, int64(q.max.Calls)) }

// fullOfCalls reports whether StartCall would fail now; it counts as a refusal.
func (q *Quota) fullOfCalls() bool {
	if q.max.Calls <= 0 || q.calls.Load() < int64(q.max.Calls) {
		return false
	}
	q.refused.Add(1)
	return true
}

// EndCall releases the place that StartCall took.
func (q *Quota) EndCall() { q.calls.Add(-1) }

// Take reserves n bytes, or reports that they are not available. Release releases them.
func (q *Quota) Take(n int) bool { return q.add(&q.bytes, int64(n), q.max.Bytes) }

// Release releases n bytes.
func (q *Quota) Release(n int) { q.bytes.Add(-int64(n)) }

// force reserves n bytes regardless of the limit: for replies, which already exist.
func (q *Quota) force(n int) { q.bytes.Add(int64(n)) }

// add increases used by n unless that exceeds limit; 0 means no limit.
func (q *Quota) add(used *atomic.Int64, n, limit int64) bool {
	if now := used.Add(n); limit > 0 && now > limit {
		used.Add(-n)
		q.refused.Add(1)
		return false
	}
	return true
}
