// Package handler runs handlers of the application and tells a function whether one of them calls it. The end of a session, a server or a
// listener waits for running handlers, but not for the one that asks for that end: it would wait for itself.
package handler

import "sync"

// A Kind is what a handler serves.
type Kind uint8

// The kinds.
const (
	Call   Kind = iota // a request
	OneWay             // a one-way message
	Stream             // a stream
	Conn               // a conn
	Kinds              // how many there are
)

// An Owner is what waits for its handlers when it ends.
type Owner interface {
	// Exempt makes the end not wait for one handler of a kind.
	Exempt(Kind)
	// Is reports whether the handlers belong to x: a session, a listener or a tag of a server.
	Is(x any) bool
}

// A Caller is a running handler, until it returns. The nil Caller belongs to nothing.
type Caller struct {
	mu       sync.Mutex
	owner    Owner // nil: it does not run
	kind     Kind
	exempted bool
}

// Of reports whether the handler belongs to x.
func (c *Caller) Of(x any) bool { return c != nil && c.owner.Is(x) }

// Exempt makes the end of the handler's owner not wait for it. Later calls do nothing.
func (c *Caller) Exempt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.exempted {
		c.exempted = true
		c.owner.Exempt(c.kind)
	}
}

func (c *Caller) set(owner Owner, kind Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owner, c.kind, c.exempted = owner, kind, false
}

// running has the handlers by their numbers, which begin with 1 and are used again.
var running struct {
	mu    sync.Mutex
	byNum []*Caller
	free  []uint32 // numbers of those that do not run
}

// Run calls fn as a handler of owner.
//
//go:noinline
func Run(owner Owner, kind Kind, fn func()) {
	n, c := enter()
	c.set(owner, kind)
	defer leave(n, c)
	mark(n, fn)
}

func enter() (uint32, *Caller) {
	running.mu.Lock()
	defer running.mu.Unlock()
	last := len(running.free) - 1
	if last < 0 {
		running.byNum = append(running.byNum, new(Caller))
		return uint32(len(running.byNum)), running.byNum[len(running.byNum)-1]
	}
	n := running.free[last]
	running.free = running.free[:last]
	return n, running.byNum[n-1]
}

func leave(n uint32, c *Caller) {
	c.set(nil, 0)
	running.mu.Lock()
	defer running.mu.Unlock()
	running.free = append(running.free, n)
}

// Here returns the handler that the calling goroutine runs, or nil.
func Here() *Caller {
	n := marked()
	if n == 0 {
		return nil
	}
	running.mu.Lock()
	defer running.mu.Unlock()
	return running.byNum[n-1]
}
