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
}
