package session

import (
	"reflect"
	"sync"
)

// attributes are the values that the application keeps with a session. They have their own lock, and are dropped once the session has ended
// and nothing that is called at its end may look at them any more.
type attributes struct {
	mu    sync.Mutex
	all   map[any]any
	ended bool // no more are taken
	users int  // kinds of functions that are called at the end of the session, and have not returned
}

// isKey reports whether v can be a key of a map. The dynamic types within v count too.
func isKey(v any) bool { return v == nil || reflect.ValueOf(v).Comparable() }

// SetAttribute keeps value with the session under key, replacing an older value, and reports whether it did. It returns false for a key that
// cannot be compared, as a slice, and once the session has ended.
func (s *Session) SetAttribute(key, value any) bool {
	if !isKey(key) {
		return false
	}
	a := &s.attributes
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return false
	}
	if a.all == nil {
		a.all = make(map[any]any)
	}
	a.all[key] = value
	return true
}

// Attribute returns the value under key, or nil. At the end of the session, Hooks.OnClose and the functions of AddCloseCallback
// still find it. Once they have returned, all attributes are gone.
func (s *Session) Attribute(key any) any {
	if !isKey(key) {
		return nil
	}
	s.attributes.mu.Lock()
	defer s.attributes.mu.Unlock()
	return s.attributes.all[key]
}

// RemoveAttribute removes the value under key, if there is one.
func (s *Session) RemoveAttribute(key any) {
	if !isKey(key) {
		return
	}
	s.attributes.mu.Lock()
	defer s.attributes.mu.Unlock()
	delete(s.attributes.all, key)
}

// end takes no more attributes. They are dropped when leave has been called users times.
func (a *attributes) end(users int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended, a.users = true, users
	a.dropLocked()
}

// leave ends one use of the attributes at the end of the session, and reports whether that was the last.
func (a *attributes) leave() (last bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users--
	a.dropLocked()
	return a.users == 0
}

func (a *attributes) dropLocked() {
	if a.users == 0 {
		a.all = nil
	}
}

// endUse ends one use of the session by the application at its end. After the last, the place of the session is free: otherwise a peer that
// comes and goes would have any number of functions of the application wait or run.
func (s *Session) endUse() {
	if s.attributes.leave() && s.onLeft != nil {
		s.onLeft()
	}
}
