package session

import "sync/atomic"

// A Quota bounds what the sessions that share it may run and hold together. It is safe for concurrent use.
type Quota struct {
	maxCalls int64 // handlers at once; 0: no bound
	maxBytes int64 // bytes of requests, messages and replies held; 0: no bound

	calls   atomic.Int64
	bytes   atomic.Int64
	refused atomic.Uint64
}

// NewQuota returns a Quota of at most calls handlers at once and bytes held; zero means no bound.
func NewQuota(calls int, bytes int64) *Quota {
	return &Quota{maxCalls: int64(calls), maxBytes: bytes}
}

// Calls returns how many handlers run now.
func (q *Quota) Calls() int { return int(q.calls.Load()) }

// Bytes returns how many bytes are held now.
func (q *Quota) Bytes() int64 { return q.bytes.Load() }

// Refused returns how many calls and messages have been refused for want of room.
func (q *Quota) Refused() uint64 { return q.refused.Load() }

// startCall takes the place of one handler, or reports that there is none.
func (q *Quota) startCall() bool {
	if n := q.calls.Add(1); q.maxCalls > 0 && n > q.maxCalls {
		q.calls.Add(-1)
		q.refused.Add(1)
		return false
	}
	return true
}

func (q *Quota) endCall() { q.calls.Add(-1) }

// take reserves n bytes, or reports that they are not to be had.
func (q *Quota) take(n int) bool {
	if held := q.bytes.Add(int64(n)); q.maxBytes > 0 && held > q.maxBytes {
		q.bytes.Add(-int64(n))
		q.refused.Add(1)
		return false
	}
	return true
}

// force reserves n bytes whatever the bound: for replies, which exist already.
func (q *Quota) force(n int) { q.bytes.Add(int64(n)) }

func (q *Quota) release(n int) { q.bytes.Add(-int64(n)) }
