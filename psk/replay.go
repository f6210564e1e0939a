package psk

import "sync"

// replayGeneration is how many ephemerals one generation of the cache takes. Two generations are kept: the last 4096
// accepted hellos are always known, 8192 at most, in about 0.6 MiB (TestReplayCacheMemoryIsBounded).
const replayGeneration = 4096

// A replayCache remembers the last ephemerals it was given in two generations: when the younger one is full, the older
// one is forgotten and its memory reused.
type replayCache struct {
	limit int // entries of one generation

	mu             sync.Mutex
	young, elderly map[[dhSize]byte]struct{}
}

// add remembers e and reports whether it is new. Callers pass only ephemerals of messages that verified.
func (r *replayCache) add(e [dhSize]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.young[e]; ok {
		return false
	}
	if _, ok := r.elderly[e]; ok {
		return false
	}
	if len(r.young) >= r.limit {
		clear(r.elderly)
		r.young, r.elderly = r.elderly, r.young
	}
	if r.young == nil {
		r.young = make(map[[dhSize]byte]struct{})
	}
	r.young[e] = struct{}{}
	return true
}
