package bulk

import (
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// pace holds back what is written to so many bytes per second.
type pace struct {
	limit *rate.Limiter // nil: none

	mu     sync.Mutex
	due    deadline
	wake   chan struct{} // closed when due has passed, or the lane is closed; nil: nobody waits
	closed bool
}

// paceStep is how many bytes are written at a time while there is a limit, unless a tenth of a second has fewer.
const paceStep = 64 << 10

func newPace(bytesPerSecond int) *pace {
	p := new(pace)
	if bytesPerSecond > 0 {
		p.limit = rate.NewLimiter(rate.Limit(bytesPerSecond), max(1, min(bytesPerSecond/10, paceStep)))
	}
	return p
}

// wait waits until some of n bytes may be written, and returns how many.
func (p *pace) wait(n int) (int, error) {
	if p.limit == nil {
		return n, nil
	}
	n = min(n, p.limit.Burst())
	delay := p.limit.ReserveN(time.Now(), n).Delay()
	if delay == 0 {
		return n, p.failure()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		p.mu.Lock()
		if err := p.failureLocked(); err != nil {
			p.mu.Unlock()
			return 0, err
		}
		if p.wake == nil {
			p.wake = make(chan struct{})
		}
		wake := p.wake
		p.mu.Unlock()
		select {
		case <-timer.C:
			return n, nil
		case <-wake:
		}
	}
}

func (p *pace) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failureLocked()
}

func (p *pace) failureLocked() error {
	switch {
	case p.closed:
		return net.ErrClosed
	case p.due.expired:
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (p *pace) setDeadline(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due.set(&p.mu, t, p.wakeAll)
	p.wakeAll() // who waits looks at the new one
}

func (p *pace) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.due.stop()
	p.wakeAll()
}

func (p *pace) wakeAll() {
	if p.wake != nil {
		close(p.wake)
		p.wake = nil
	}
}
