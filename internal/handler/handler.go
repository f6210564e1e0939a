// Package handler runs handlers of the application and tells a function whether one of them calls it. The end of a session, a server or a
// listener waits for running handlers, but not for the one that asks for that end: it would wait for itself.
package handler

import (
	"math/rand/v2"
	"sync"
)

// A Kind is what a handler serves.
type Kind uint8

// The kinds.
const (
	Call   Kind = iota // a request
	OneWay             // a one-way message
	Stream             // a stream
	Conn               // a conn
	Hook               // an event
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

// running has the handlers by their numbers. They are in several lists, each with a lock, so that no lock is shared by all calls.
var running [lists]list

// lists is how many there are. The last octal digit of a number says in which list the handler is.
const lists = 8

// A list has some of the handlers. Their places in it are used again.
type list struct {
	mu   sync.Mutex
	all  []*Caller
	free []uint32 // indexes in all of those that do not run
	_    [64]byte // another list's lock is in another cache line
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

// enter returns a Caller and its number, which is not 0.
func enter() (uint32, *Caller) {
	l, at := lockOne()
	defer l.mu.Unlock()
	last := len(l.free) - 1
	i := uint32(len(l.all))
	if last < 0 {
		l.all = append(l.all, new(Caller))
	} else {
		i = l.free[last]
		l.free = l.free[:last]
	}
	return (i+1)*lists + at, l.all[i]
}

// lockOne locks a list that nobody else holds, if there is one.
func lockOne() (*list, uint32) {
	first := rand.Uint32()
	for i := range uint32(lists) {
		at := (first + i) % lists
		if running[at].mu.TryLock() {
			return &running[at], at
		}
	}
	at := first % lists
	running[at].mu.Lock()
	return &running[at], at
}

func leave(n uint32, c *Caller) {
	c.set(nil, 0)
	l := &running[n%lists]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, n/lists-1)
}

// Here returns the handler that the calling goroutine runs, or nil.
func Here() *Caller {
	n := marked()
	if n == 0 {
		return nil
	}
	l := &running[n%lists]
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[n/lists-1]
}
