package backoff

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errRefused = errors.New("connection refused")

// Claim: resume.Backoff.Min
// Claim: resume.Backoff.Max
func TestABackoffOfAnyValuesCanBeWaitedBy(t *testing.T) {
	values := []time.Duration{math.MinInt64, -1, 0, 1, time.Millisecond, 10 * time.Second, math.MaxInt64}
	for _, least := range values {
		for _, most := range values {
			b := Backoff{Min: least, Max: most}
			lo, hi := least, most
			if lo <= 0 {
				lo = 50 * time.Millisecond
			}
			if hi <= 0 {
				hi = max(5*time.Second, lo)
			}
			lo = min(lo, hi)
			for _, n := range []int{math.MinInt, -1, 0, 1} {
				d := b.Wait(n)
				require.True(t, d >= lo/2 && d <= lo, "%+v.Wait(%d) = %v", b, n, d)
			}
			for _, n := range []int{2, 63, 64, 65, 200, math.MaxInt} {
				d := b.Wait(n)
				require.True(t, d >= lo/2 && d <= hi, "%+v.Wait(%d) = %v", b, n, d)
			}
			require.GreaterOrEqual(t, b.Wait(200), hi/2)
		}
	}
	for range 100 {
		require.GreaterOrEqual(t, Backoff{Min: 10 * time.Second}.Wait(1), 5*time.Second)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		n := 0
		err := Backoff{Min: -1, Max: -1}.Retry(ctx, nil, func(context.Context) error { n++; return errRefused }, nil)
		require.ErrorIs(t, err, errRefused)
		require.Greater(t, n, 3600/5)
	})
}

func TestBackoffWaitsStayWithinTheirBounds(t *testing.T) {
	for _, b := range []Backoff{{}, {Min: time.Hour}, {Min: time.Second, Max: time.Millisecond}, {Min: time.Minute, Max: 1<<63 - 1}} {
		top := b.Max
		if top == 0 {
			top = max(5*time.Second, b.Min)
		}
		for failures := 1; failures < 200; failures++ {
			d := b.Wait(failures)
			require.True(t, d >= 0 && d <= top, "%+v, %d failures: %v", b, failures, d)
		}
	}
	require.LessOrEqual(t, Backoff{}.Wait(1), 50*time.Millisecond)
	require.GreaterOrEqual(t, Backoff{}.Wait(100), 2500*time.Millisecond)
}

func TestBackoffRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Backoff{Min: time.Second, Max: time.Second}
		kick := make(chan struct{}, 1)
		tries := 0
		fails := func(context.Context) error { tries++; return errRefused }
		never := func(error) bool { return false }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, b.Retry(ctx, kick, fails, never), errRefused)
		require.True(t, tries >= 60 && tries <= 121, "%d", tries)

		tries = 0
		require.ErrorIs(t, b.Retry(t.Context(), kick, fails, func(err error) bool { return errors.Is(err, errRefused) }), errRefused)
		require.Equal(t, 1, tries)

		kick <- struct{}{}
		start := time.Now()
		require.NoError(t, Backoff{Min: time.Hour, Max: time.Hour}.Retry(t.Context(), kick, func(context.Context) error {
			if tries++; tries < 3 {
				return errRefused
			}
			return nil
		}, never))
		require.Zero(t, time.Since(start))
	})
}

// What an attempt's error asks for is waited at least, up to Max, and no kick ends it; a ctx does.
func TestRetryAskedWaitsAsLongAsItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Backoff{Min: time.Millisecond, Max: 4 * time.Second}
		for asks, want := range map[time.Duration]time.Duration{-1: 0, 0: 0, time.Second: time.Second, time.Hour: b.Max} {
			kick := make(chan struct{}, 2)
			kick <- struct{}{}
			kick <- struct{}{}
			start, tries := time.Now(), 0
			require.NoError(t, b.RetryAsked(t.Context(), kick, func(context.Context) error {
				if tries++; tries < 3 {
					return errRefused
				}
				return nil
			}, nil, func(error) time.Duration { return asks }))
			require.GreaterOrEqual(t, time.Since(start), 2*want)
			require.LessOrEqual(t, time.Since(start), 2*want+10*time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := b.RetryAsked(ctx, nil, func(context.Context) error { return errRefused }, nil, func(error) time.Duration { return b.Max })
		require.ErrorIs(t, err, errRefused)
		require.Equal(t, time.Second, time.Since(start))
	})
}
