package peerlane

import (
	"errors"
	"maps"
	"sync"
	"time"
)

// refusals are the sessions that peers have refused with a hint when to come again. Until then the pool does not dial for another one.
type refusals struct {
	most time.Duration // the longest hint that is kept to

	mu  sync.Mutex
	all map[poolKey]refusal
}

// refusal is the last one of a key.
type refusal struct {
	err   Error
	until time.Time
}

// note remembers err if it is a refusal with a hint.
func (r *refusals) note(key poolKey, err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok || !e.Remote || e.RetryAfter <= 0 {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = make(map[poolKey]refusal)
	}
	maps.DeleteFunc(r.all, func(_ poolKey, old refusal) bool { return !now.Before(old.until) })
	r.all[key] = refusal{*e, now.Add(min(e.RetryAfter, r.most))}
}

// left returns how long no session of key may be asked for.
func (r *refusals) left(key poolKey) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(0, time.Until(r.all[key].until))
}

// check returns the last refusal of key, with the time that is left of its hint, or nil if the hint is over.
func (r *refusals) check(key poolKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := r.all[key]
	last.err.RetryAfter = time.Until(last.until)
	if last.err.RetryAfter <= 0 {
		return nil
	}
	return &last.err
}
