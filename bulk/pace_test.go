package bulk

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A step is at most a tenth of a second, and at least 5 ms where timers are the bound.
func TestBurstGrowsWithTheRate(t *testing.T) {
	for rate, want := range map[int]int{1: 1, 5: 1, 1000: 100, 640 << 10: 64 << 10, 8 << 20: 64 << 10, 1 << 30: (1 << 30) / 200} {
		require.Equal(t, want, burst(rate), "%d bytes per second", rate)
	}
}
