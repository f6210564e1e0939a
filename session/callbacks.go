package session

import (
	"slices"
	"sync"

	"github.com/peerlane/peerlane/internal/hook"
)

// callbacks are the functions to call once the session has ended. They have their own lock.
type callbacks struct {
	mu    sync.Mutex
	all   []callback // in the order added
	ended bool       // they run, or have run
}

// callback is one of them, named by two values of the application's.
type callback struct {
	handler, key any
	fn           func()
}

func (c callback) is(handler, key any) bool { return c.handler == handler && c.key == key }

// AddCloseCallback makes fn be called once when the session has ended, however it ends. The functions are called in the order in which they
// were added, in one goroutine of their own. One that panics, or ends its goroutine, holds up none of the others. handler and key name fn: a
// second function of the same two takes the place of the first, in the order too. Close does not wait for the functions. A session of the peer
// keeps its place in the Quota until they have returned.
//
// AddCloseCallback reports whether fn is taken. It returns false, and fn is never called, if handler or key cannot be compared, as a slice,
// if fn is nil, and once the session has ended.
func (s *Session) AddCloseCallback(handler, key any, fn func()) bool {
	if !isKey(handler) || !isKey(key) || fn == nil {
		return false
	}
	c := &s.callbacks
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	if i := slices.IndexFunc(c.all, func(old callback) bool { return old.is(handler, key) }); i >= 0 {
		c.all[i].fn = fn
		return true
	}
	c.all = append(c.all, callback{handler, key, fn})
	return true
}

// RemoveCloseCallback removes the function that AddCloseCallback has added for handler and key. It does nothing if there is none, and once the
// session has ended.
func (s *Session) RemoveCloseCallback(handler, key any) {
	if !isKey(handler) || !isKey(key) {
		return
	}
	c := &s.callbacks
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.all = slices.DeleteFunc(c.all, func(old callback) bool { return old.is(handler, key) })
	}
}

// end takes no more functions, and reports whether there are any to call.
func (c *callbacks) end() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	return len(c.all) > 0
}

// runCallbacks calls the functions. It runs in its own goroutine, which ends with the last of them.
func (s *Session) runCallbacks() {
	defer func() {
		if len(s.callbacks.all) > 0 { // one of them has ended this goroutine
			go s.runCallbacks()
			return
		}
		s.endUse()
	}()
	for len(s.callbacks.all) > 0 { // no other goroutine uses them after end
		next := s.callbacks.all[0]
		s.callbacks.all = s.callbacks.all[1:]
		hook.Run(next.fn, func(why *hook.Failure) { logHook(s.cfg.Logger, why, "close callback", s.peer) })
	}
}
