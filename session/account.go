package session

import (
	"sync"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
)

// A lender is where what a stream holds is taken from, and goes back to: a QuotaPart, or an account of it.
type lender interface {
	take(k fair.Kind, n int) frame.Failure
	release(k fair.Kind, n int)
}

// An account is the bytes that this side's streams of one session hold of the quota. The application may never read or close such a stream,
// and one that has ended is in no table: so it is the account that gives everything back when the session ends. What is kept then can still
// be read.
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

// add counts n bytes that have been taken already, in the credit of the session.
func (a *account) add(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held += n
}

// less counts n bytes less, which are to be given back. It reports false if that has been done, by close.
func (a *account) less(n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.held -= n
	}
	return !a.closed
}

// close gives back what is held, and what is released later counts no more.
func (a *account) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.part.release(fair.Bytes, a.held)
	a.held = 0
}
