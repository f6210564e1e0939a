package lively

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// waited returns how long a wait lasts for something that moves once a step until it has moved n times.
func waited(limit, step time.Duration, n uint64) time.Duration {
	began := time.Now()
	moved := func() uint64 { return min(n, uint64(time.Since(began)/step)) }
	p := NewProgress(limit, moved())
	defer p.Stop()
	for {
		<-p.C
		if p.Stalled(moved()) {
			return time.Since(began)
		}
	}
}

func TestWhatStandsStillForTheLimitHasStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, 8*time.Second, waited(8*time.Second, time.Second, 0))
		require.Equal(t, time.Millisecond, waited(0, time.Second, 0), "a limit of 0 spins")
	})
}

func TestWhatMovesNowAndThenHasNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := waited(8*time.Second, 7*time.Second, 10)
		require.GreaterOrEqual(t, took, 78*time.Second)
		require.LessOrEqual(t, took, 80*time.Second, "the time since the last move is noticed late")
	})
}
