package resume

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Backoff is how long to wait between attempts: Min after the first that failed, then twice as long each time, up to Max;
// each wait is shortened by up to a half at random, so that many who lost the same peer do not come back together.
type Backoff struct {
	Min time.Duration // if zero, 50 ms
	Max time.Duration // if zero, 5 s
}

// Wait returns how long to wait after so many failures in a row, counted from 1.
func (b Backoff) Wait(failures int) time.Duration {
	if b.Min == 0 {
		b.Min = 50 * time.Millisecond
	}
	if b.Max == 0 {
		b.Max = 5 * time.Second
	}
	d := b.Max
	if shift := failures - 1; shift < 62 && b.Min < d>>shift {
		d = b.Min << shift
	}
	return d - rand.N(d/2+1)
}

// Retry calls attempt until it succeeds, fails with an error that final reports as such, or ctx ends, and returns the last
// error. It waits in between as b says. A value from kick ends the wait at once, and the waits begin from Min again.
func (b Backoff) Retry(ctx context.Context, kick <-chan struct{}, attempt func(context.Context) error, final func(error) bool) error {
	for failures := 1; ; failures++ {
		err := attempt(ctx)
		if err == nil || ctx.Err() != nil || final(err) {
			return err
		}
		timer := time.NewTimer(b.Wait(failures))
		select {
		case <-timer.C:
		case <-kick:
			timer.Stop()
			failures = 0
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
