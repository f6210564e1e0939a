package faultnet

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Road is a slow stretch that several Links share, as the streams of one connection share a modem: in each direction what
// is written first arrives first, whichever link it is on. How much waits in front of it is bounded by the Buffer of each
// link.
type Road struct {
	moved [2]atomic.Uint64 // Reads that brought bytes, by the end that read

	mu   sync.Mutex
	rate [2]int       // bytes a second, by direction; 0: any
	busy [2]time.Time // until when what was written takes to leave
}

// NewRoad returns a road that takes up bytes a second from the first ends of its links to the second ones, and down the
// other way. 0 means any number.
func NewRoad(up, down int) *Road { return &Road{rate: [2]int{up, down}} }

// SetRate changes the rates for what is written from now on.
func (r *Road) SetRate(up, down int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate = [2]int{up, down}
}

// leaves returns when the last of n bytes that are written now has left.
func (r *Road) leaves(up bool, n int) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := 1
	if up {
		i = 0
	}
	return leaves(&r.busy[i], n, r.rate[i])
}

// leaves returns when the last of n bytes has left that queue at rate behind what takes until busy, and moves busy there.
func leaves(busy *time.Time, n, rate int) time.Time {
	if now := time.Now(); busy.Before(now) {
		*busy = now
	}
	if rate > 0 {
		*busy = busy.Add(time.Duration(n) * time.Second / time.Duration(rate))
	}
	return *busy
}
