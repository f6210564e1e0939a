package faultnet

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Road is a slow stretch that several Links share, as the streams of one connection share a modem and the queue before it: in
// each direction what is written first arrives first, whichever link it is on, and a Write waits while the queue is full.
type Road struct {
	queue int              // bytes that wait in one direction at most
	moved [2]atomic.Uint64 // Reads that brought bytes, by the end that read

	mu   sync.Mutex
	rate [2]int       // bytes a second, by direction: from the first ends of links, and to them
	busy [2]time.Time // until when what was written takes to leave
}

// NewRoad returns a road on which a direction takes rate bytes a second, and on which queue bytes wait for that.
func NewRoad(rate, queue int) *Road { return &Road{queue: queue, rate: [2]int{rate, rate}} }

// SetRate changes the rate of what is written from now on: up from the first ends of the links, and down to them.
func (r *Road) SetRate(up, down int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate = [2]int{up, down}
}

// leaves returns when the last of n bytes that are written now has left.
func (r *Road) leaves(way, n int) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return leaves(&r.busy[way], n, r.rate[way])
}

// room returns how many bytes may be written now, and if none, how long it takes until some may.
func (r *Road) room(way int) (n int, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := time.Until(r.busy[way])
	rate := time.Duration(r.rate[way])
	if n = r.queue - int(max(left, 0)*rate/time.Second); n < ratePiece {
		return 0, time.Duration(ratePiece-n)*time.Second/rate + time.Microsecond
	}
	return n, 0
}

// leaves returns when the last of n bytes has left that queue at rate behind what takes until busy, and moves busy there.
func leaves(busy *time.Time, n, rate int) time.Time {
	if now := time.Now(); busy.Before(now) {
		*busy = now
	}
	*busy = busy.Add(time.Duration(n) * time.Second / time.Duration(rate))
	return *busy
}
