package resume

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Backoff is how long to wait between attempts: Min after the first that failed, then twice as long each time, up to Max;
// each wait is shortened by up to a half at random, so that many who lost the same peer do not come back together.
//
// Options refuses a negative one, and a Max that is set and less than Min. Wait and Retry take a negative Min or Max for
// zero, and wait no longer than a Max that is less than Min.
type Backoff struct {
	Min time.Duration // if zero, 50 ms, or Max if that is less
	Max time.Duration // if zero, 5 s, or Min if that is more
}

// Defaults of Backoff.
const (
	defaultMinBackoff = 50 * time.Millisecond
	defaultMaxBackoff = 5 * time.Second
)

// withDefaults returns a copy that can be waited by.
func (b Backoff) withDefaults() Backoff {
	switch {
	case b.Min <= 0 && b.Max <= 0:
		return Backoff{defaultMinBackoff, defaultMaxBackoff}
	case b.Min <= 0:
		b.Min = min(defaultMinBackoff, b.Max)
	case b.Max <= 0:
		b.Max = max(defaultMaxBackoff, b.Min)
	}
	return b
}

// Wait returns how long to wait after so many failures in a row, counted from 1; less is taken for 1.
func (b Backoff) Wait(failures int) time.Duration {
	b = b.withDefaults()
	d := b.Max
	if shift := max(failures, 1) - 1; shift < 62 && b.Min < d>>shift {
		d = b.Min << shift
	}
	return d - rand.N(d/2+1)
}

// Retry calls attempt until it succeeds, fails with an error that final reports as such, or ctx ends, and returns the last
// error. A nil final reports none. It waits in between as b says. A value from kick ends the wait at once, and the waits begin from Min again.
func (b Backoff) Retry(ctx context.Context, kick <-chan struct{}, attempt func(context.Context) error, final func(error) bool) error {
	for failures := 1; ; failures++ {
		err := attempt(ctx)
		if err == nil || ctx.Err() != nil || final != nil && final(err) {
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
