package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHistogramBucketsKeepDurationsToTwoPercent(t *testing.T) {
	previous := -1
	for _, d := range []time.Duration{0, 1, 63, 64, 65, 127, 128, 129, 1000, 4095, 4096, time.Microsecond * 37,
		time.Millisecond, time.Second, time.Minute, time.Hour} {
		i := bucketOf(d)
		require.Greater(t, i, previous-1, "%s", d)
		require.LessOrEqual(t, floorOf(i), d)
		require.Greater(t, floorOf(i+1), d)
		require.LessOrEqual(t, float64(d-floorOf(i)), 0.02*float64(d), "%s", d)
		previous = i
	}
}

func TestHistogramKeepsWhatIsOutOfRange(t *testing.T) {
	var h histogram
	h.record(-time.Second)
	require.Equal(t, time.Duration(0), h.quantile(1))
	h.record(1 << 62)
	require.Equal(t, floorOf(octaves*subBuckets-1), h.quantile(1))
}

func TestHistogramQuantiles(t *testing.T) {
	var h, other histogram
	require.Zero(t, h.quantile(0.5))
	for i := range 50 {
		h.record(time.Duration(i + 1))
		other.record(time.Duration(i + 51))
	}
	h.add(&other)
	require.Equal(t, time.Duration(1), h.quantile(0))
	require.Equal(t, time.Duration(50), h.quantile(0.5))
	require.InDelta(t, 99, int(h.quantile(0.99)), 2)
}

func TestHistogramRecordDoesNotAllocate(t *testing.T) {
	var h histogram
	require.Zero(t, testing.AllocsPerRun(100, func() { h.record(time.Millisecond) }))
}
