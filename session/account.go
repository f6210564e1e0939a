package session

import (
	"sync"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// A lender lends the memory that a stream holds: a QuotaPart, or an account of it.
type lender interface {
	take(k fair.Kind, n int) frame.Failure
	release(k fair.Kind, n int)
}

// An account counts the bytes of the quota that are held by those streams of one session that this side has opened. The application may never
// read or close such a stream, and a stream that has ended is in no table, so the account returns everything when the session ends. Unread
// data can still be read then.
type account struct {
	part *QuotaPart

	mu     sync.Mutex
	held   int
	closed bool
}

func (a *account) take(k fair.Kind, n int) frame.Failure {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return frame.Failure{Code: codes.Closed}
	}
	f := a.part.take(k, n)
	if f.Code == codes.OK {
		a.held += n
	}
	return f
}

func (a *account) release(k fair.Kind, n int) {
	if a.less(n) {
		a.part.release(k, n)
	}
}

// add counts n bytes that were taken with the credit of the session.
func (a *account) add(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held += n
}

// less counts n bytes less. It reports whether the caller must return them to the quota: close has done so already if the account is closed.
func (a *account) less(n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.held -= n
	}
	return !a.closed
}

// close returns what is held to the quota. Later releases do nothing.
func (a *account) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.part.release(fair.Bytes, a.held)
	a.held = 0
}
