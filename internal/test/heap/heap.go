// Package heap tells tests how much memory is in use.
package heap

import "runtime"

// InUse returns the bytes of the heap that are reachable.
func InUse() int64 { return int64(collected().HeapAlloc) }

// WithStacks is InUse and the bytes of goroutines' stacks.
func WithStacks() int64 {
	m := collected()
	return int64(m.HeapAlloc + m.StackInuse)
}

func collected() (m runtime.MemStats) {
	for range 3 { // sync.Pool gives up what it holds at the second collection
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m
}
