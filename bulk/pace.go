package bulk

import (
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/peerlane/peerlane/internal/deadline"
)

// pace holds back what is written to so many bytes per second.
type pace struct {
	limit *rate.Limiter // nil: none
	turn  chan struct{} // holds the Write that has its turn

	mu     sync.Mutex
	due    deadline.Deadline
	wake   chan struct{} // closed when due has passed, or the lane is closed; nil: nobody waits
	closed bool
}

// paceStep is how many bytes are written at a time while there is a limit, unless a tenth of a second has fewer, or 5 ms have more:
// timers are not finer than that, and with a smaller step at a high rate the lane stands still between them.
const paceStep = 64 << 10

// burst returns the step of a rate.
func burst(bytesPerSecond int) int {
	return max(1, min(bytesPerSecond/10, max(paceStep, bytesPerSecond/200)))
}

func newPace(bytesPerSecond int) *pace {
	p := &pace{turn: make(chan struct{}, 1)}
	if bytesPerSecond > 0 {
		p.limit = rate.NewLimiter(rate.Limit(bytesPerSecond), burst(bytesPerSecond))
	}
	return p
}

// begin waits until other Writes are through, so that their bytes stay together; end gives the turn on.
func (p *pace) begin() error {
	for {
		wake, err := p.woken()
		if err != nil {
			return err
		}
		select {
		case p.turn <- struct{}{}:
			return nil
		case <-wake:
		}
	}
}

func (p *pace) end() { <-p.turn }

// wait waits until some of n bytes may be written, and returns how many.
func (p *pace) wait(n int) (int, error) {
	if err := p.failure(); err != nil {
		return 0, err
	}
	n = min(n, p.limit.Burst())
	reserved := p.limit.ReserveN(time.Now(), n)
	delay := reserved.Delay()
	if delay == 0 {
		return n, nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		wake, err := p.woken()
		if err != nil {
			reserved.Cancel()
			return 0, err
		}
		select {
		case <-timer.C:
			return n, nil
		case <-wake:
		}
	}
}

// woken returns a channel that is closed when who waits is to look again, or why nobody may wait any more.
func (p *pace) woken() (<-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.failureLocked(); err != nil {
		return nil, err
	}
	if p.wake == nil {
		p.wake = make(chan struct{})
	}
	return p.wake, nil
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
	case p.due.Expired():
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (p *pace) setDeadline(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.due.Set(&p.mu, t, p.wakeAll)
	p.wakeAll() // who waits looks at the new one
}

func (p *pace) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.due.Stop()
	p.wakeAll()
}

func (p *pace) wakeAll() {
	if p.wake != nil {
		close(p.wake)
		p.wake = nil
	}
}
