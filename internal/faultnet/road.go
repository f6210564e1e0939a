package faultnet

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Road is a slow stretch that several Links share, as the streams of one connection share a modem and the queue before it: in
// each direction what is written first arrives first, whichever link it is on, and a Write waits while the queue is full.
type Road struct {
	queue int             // bytes that wait in one direction at most
	moved [2]atomic.Int64 // see Conn.Moved, in Unix nanoseconds, by the end

	mu   sync.Mutex
	rate [2]int       // bytes a second, by direction: from the first ends of links, and to them
	busy [2]time.Time // until when what was written takes to leave
	line [2][]*Link   // whose Writes wait for room, in turn
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

// room returns how many bytes l may write now. If none, l has a place in the line, and is woken when it is its turn.
func (r *Road) room(l *Link, way int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := r.line[way]
	if !slices.Contains(line, l) {
		line = append(line, l)
		r.line[way] = line
	}
	if line[0] != l {
		return 0
	}
	rate := r.rate[way]
	n := r.queue - int(max(time.Until(r.busy[way]), 0).Seconds()*float64(rate))
	if n < ratePiece {
		r.wake(l, way, time.Duration(ratePiece-n)*time.Second/time.Duration(rate)+time.Microsecond)
		return 0
	}
	r.passLocked(l, way)
	return ratePiece
}

// pass gives up the place of l in the line.
func (r *Road) pass(l *Link, way int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passLocked(l, way)
}

func (r *Road) passLocked(l *Link, way int) {
	at := slices.Index(r.line[way], l)
	if at < 0 {
		return
	}
	r.line[way] = slices.Delete(r.line[way], at, at+1)
	if at == 0 && len(r.line[way]) > 0 {
		r.wake(r.line[way][0], way, 0)
	}
}

// wake makes the waiters of l look again, unless they are about to.
func (r *Road) wake(l *Link, way int, wait time.Duration) {
	if l.due[way].Swap(true) {
		return
	}
	look := func() { l.change(func() { l.due[way].Store(false) }) }
	if wait > 0 {
		time.AfterFunc(wait, look)
		return
	}
	// Not a timer of zero: Go 1.26 runs that in the goroutine that starts it, in the one race context that the timers of a
	// synctest bubble have, and two at once crash the race detector.
	go look()
}

// leaves returns when the last of n bytes has left that queue at rate behind what takes until busy, and moves busy there.
func leaves(busy *time.Time, n, rate int) time.Time {
	if now := time.Now(); busy.Before(now) {
		*busy = now
	}
	*busy = busy.Add(time.Duration(n) * time.Second / time.Duration(rate))
	return *busy
}
