package session

import "sync/atomic"

// counters are a session's totals.
type counters struct {
	bytesIn, bytesOut       atomic.Uint64
	requestsIn, requestsOut atomic.Uint64
	messagesIn, messagesOut atomic.Uint64
	undelivered             atomic.Uint64
	late, refused           atomic.Uint64
	cancelled               atomic.Uint64
	resumes, migrations     uint64 // guarded by Session.mu
	streams                 streamCounts
}

// streamCounts are the totals of a session's streams that have ended. Session.mu guards them.
type streamCounts struct{ ended, in, out uint64 }

// add counts a stream that ends.
func (c *streamCounts) add(in, out uint64) {
	c.ended++
	c.in += in
	c.out += out
}
