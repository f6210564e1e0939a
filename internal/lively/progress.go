package lively

import "time"

// Progress measures how long something has not moved, for a wait that gives up after a time without progress.
//
//	p := lively.NewProgress(limit, moved())
//	defer p.Stop()
//	for !done() {
//		select {
//		case <-changed:
//		case <-p.C:
//		}
//		if p.Stalled(moved()) {
//			return false
//		}
//	}
type Progress struct {
	// C delivers a value when it is time to look, four times in limit or more often.
	C <-chan time.Time

	limit time.Duration
	tick  *time.Timer
	seen  uint64
	at    time.Time // when seen was new
}

// NewProgress returns a Progress of something that stands at n. It has stalled when it stands still for limit.
func NewProgress(limit time.Duration, n uint64) *Progress {
	tick := time.NewTimer(max(limit/4, time.Millisecond))
	return &Progress{C: tick.C, limit: limit, tick: tick, seen: n, at: time.Now()}
}

// Stalled reports whether it has stood at n for limit.
func (p *Progress) Stalled(n uint64) bool {
	now := time.Now()
	if n != p.seen {
		p.seen, p.at = n, now
	}
	left := p.limit - now.Sub(p.at)
	p.tick.Reset(max(min(p.limit/4, left), time.Millisecond)) // a very short limit must not make the caller spin
	return left <= 0
}

// Stop releases the timer.
func (p *Progress) Stop() { p.tick.Stop() }
