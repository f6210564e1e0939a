// Package backoff waits between attempts: what a resume.Backoff means.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/internal/pause"
)

// A Backoff is the wait between attempts: Min after the first failure, then twice as long each time, up to Max. Each wait is shortened at
// random by up to a half, so that many sides that lost the same peer do not return together.
//
// Wait and Retry treat a negative Min or Max as zero, and wait no longer than a Max that is less than Min.
type Backoff struct {
	Min time.Duration // if zero, 50 ms, or Max if that is less
	Max time.Duration // if zero, 5 s, or Min if that is more
}

// withDefaults returns a copy with valid values.
func (b Backoff) withDefaults() Backoff {
	switch {
	case b.Min <= 0 && b.Max <= 0:
		return Backoff{defaults.MinBackoff, defaults.MaxBackoff}
	case b.Min <= 0:
		b.Min = min(defaults.MinBackoff, b.Max)
	case b.Max <= 0:
		b.Max = max(defaults.MaxBackoff, b.Min)
	}
	return b
}

// Wait returns the wait after the given number of failures in a row, counted from 1. A smaller number counts as 1.
func (b Backoff) Wait(failures int) time.Duration {
	b = b.withDefaults()
	d := b.Max
	if shift := max(failures, 1) - 1; shift < 62 && b.Min < d>>shift {
		d = b.Min << shift
	}
	return d - rand.N(d/2+1)
}

// Retry calls attempt until it succeeds, fails with an error that final reports as final, or ctx ends, and returns the last error. A nil
// final reports no error as final. Between attempts it waits as b says. A value from kick ends the wait at once, and the waits start again
// from Min.
func (b Backoff) Retry(ctx context.Context, kick <-chan struct{}, attempt func(context.Context) error, final func(error) bool) error {
	return b.RetryAsked(ctx, kick, attempt, final, func(error) time.Duration { return 0 })
}

// RetryAsked is Retry for attempts whose errors may say how long to wait at least, as asked tells. It keeps to that up to Max, and no kick
// ends it.
func (b Backoff) RetryAsked(ctx context.Context, kick <-chan struct{}, attempt func(context.Context) error, final func(error) bool,
	asked func(error) time.Duration) error {
	for failures := 1; ; failures++ {
		err := attempt(ctx)
		if err == nil || ctx.Err() != nil || final != nil && final(err) {
			return err
		}
		least, wait := min(asked(err), b.withDefaults().Max), b.Wait(failures)
		if least > 0 && pause.For(ctx, least) != nil {
			return err
		}
		timer := time.NewTimer(wait - max(least, 0))
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
