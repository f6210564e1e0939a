// Package registry lists what is open, for snapshots.
package registry

import "sync"

// A Registry is a set of open things, by identity. The zero value is ready. It is safe for concurrent use; its methods do nothing on a nil
// Registry.
type Registry[T comparable] struct {
	mu   sync.Mutex
	open map[T]struct{}
}

// Add adds t, until it is removed.
func (r *Registry[T]) Add(t T) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = make(map[T]struct{})
	}
	r.open[t] = struct{}{}
}

// Remove removes t.
func (r *Registry[T]) Remove(t T) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, t)
}

// All returns what is open, in no order.
func (r *Registry[T]) All() []T {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]T, 0, len(r.open))
	for t := range r.open {
		all = append(all, t)
	}
	return all
}
