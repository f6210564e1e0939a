package faultnet

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The links of a road share its rate, whatever is written on each, and a change of rate counts from then on.
func TestLinksShareTheRateOfTheirRoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, size, links = 100_000, 200_000, 3
		road := NewRoad(rate, 64<<10)
		send := func() time.Duration {
			began := time.Now()
			var all sync.WaitGroup
			for range links {
				a, b := NewLink(LinkOptions{Road: road}).Ends()
				all.Go(func() {
					_, err := a.Write(make([]byte, size))
					require.NoError(t, err)
					require.NoError(t, a.Close())
				})
				all.Go(func() {
					got, err := io.ReadAll(b)
					require.NoError(t, err)
					require.Len(t, got, size)
				})
			}
			all.Wait()
			return time.Since(began)
		}
		require.InDelta(t, float64(links*size)/rate, send().Seconds(), 1)
		road.SetRate(2*rate, rate)
		require.InDelta(t, float64(links*size)/(2*rate), send().Seconds(), 1)
	})
}
