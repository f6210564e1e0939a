package fair

import "time"

// In each window, a 32nd of the held bytes must arrive: a peer that sends a byte now and then must not make this side hold much for long. At
// a window of 30 s, a link of 10 KB/s may make it hold 9 MB.
const paceParts = 32

// A Pace says whether data that is held until it is complete arrives fast enough, over windows of time.
type Pace struct {
	since time.Duration // when the window began
	moved int           // bytes that have arrived since
}

// Add counts n bytes that have arrived.
func (p *Pace) Add(n int) { p.moved += n }

// Most returns, once a window is over, how many bytes may be held for those that have arrived in it, and begins the next window. Until then
// it returns false.
func (p *Pace) Most(now, window time.Duration) (most int, over bool) {
	if now-p.since < window {
		return 0, false
	}
	most = p.moved * paceParts
	*p = Pace{since: now}
	return most, true
}
