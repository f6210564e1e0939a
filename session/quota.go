package session

import "sync/atomic"

// A Quota limits the work and memory of all sessions that share it. A limit of zero or less is none; limits must not change while sessions
// use the Quota. It is safe for concurrent use.
type Quota struct {
	MaxSessions int   // sessions that peers have open at once
	MaxCalls    int   // handlers of requests that run at once
	MaxBytes    int64 // bytes of requests, messages and replies held

	sessions atomic.Int64
	calls    atomic.Int64
	bytes    atomic.Int64
	refused  atomic.Uint64
}

// A QuotaSnapshot is what of a Quota is in use at one moment.
type QuotaSnapshot struct {
	Sessions int    // open
	Calls    int    // handlers that run
	Bytes    int64  // held
	Refused  uint64 // calls and messages that were refused for lack of room
}

// Snapshot returns what is in use.
func (q *Quota) Snapshot() QuotaSnapshot {
	return QuotaSnapshot{int(q.sessions.Load()), int(q.calls.Load()), q.bytes.Load(), q.refused.Load()}
}

// startSession takes a place for one session, or reports that there is none.
func (q *Quota) startSession() bool { return q.add(&q.sessions, 1, int64(q.MaxSessions)) }

func (q *Quota) endSession() { q.sessions.Add(-1) }

// Take reserves places for handlers and bytes of memory, for work that is done beside the sessions, or reports that there is no room.
func (q *Quota) Take(calls, bytes int) bool {
	if calls != 0 && !q.add(&q.calls, int64(calls), int64(q.MaxCalls)) {
		return false
	}
	if bytes != 0 && !q.add(&q.bytes, int64(bytes), q.MaxBytes) {
		q.calls.Add(-int64(calls))
		return false
	}
	return true
}

// Release releases what Take has reserved.
func (q *Quota) Release(calls, bytes int) {
	q.calls.Add(-int64(calls))
	q.bytes.Add(-int64(bytes))
}

// startCall takes a place for one handler, or reports that there is none. endCall releases it.
func (q *Quota) startCall() bool { return q.add(&q.calls, 1, int64(q.MaxCalls)) }

// fullOfCalls reports whether startCall would fail now; it counts as a refusal.
func (q *Quota) fullOfCalls() bool {
	if q.MaxCalls <= 0 || q.calls.Load() < int64(q.MaxCalls) {
		return false
	}
	q.refused.Add(1)
	return true
}

func (q *Quota) endCall() { q.calls.Add(-1) }

// take reserves n bytes, or reports that they are not available. release releases them.
func (q *Quota) take(n int) bool { return q.add(&q.bytes, int64(n), q.MaxBytes) }

func (q *Quota) release(n int) { q.bytes.Add(-int64(n)) }

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
