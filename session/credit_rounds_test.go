package session

import (
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// farTrip is the round trip of the paths on which time is counted in round trips.
const farTrip = 100 * time.Millisecond

// transferRounds returns how many round trips it takes until all of size bytes have arrived on each of several streams, from opening them.
func transferRounds(t *testing.T, size, streams int, down bool) float64 {
	r := newRoad(t, Config{Heartbeat: time.Minute}, AcceptorConfig{Config: Config{Heartbeat: time.Minute}},
		faultnet.LinkOptions{Delay: farTrip / 2, Buffer: 64 << 20})
	var arrived sync.WaitGroup
	arrived.Add(streams)
	write := func(st *Stream) {
		_, err := st.Write(make([]byte, size))
		require.NoError(t, err)
		require.NoError(t, st.CloseWrite())
	}
	read := func(st *Stream) {
		n, err := io.Copy(io.Discard, st)
		require.NoError(t, err)
		require.Equal(t, int64(size), n)
		arrived.Done()
	}
	there, here := read, write
	if down {
		there, here = write, read
	}
	r.mux.SetStream("x", there)
	began := time.Now()
	for range streams {
		go func() {
			st, err := r.dialer.OpenStream(t.Context(), "x", nil)
			require.NoError(t, err)
			here(st)
		}()
	}
	arrived.Wait()
	return float64(time.Since(began)) / float64(farTrip)
}

// Session-wide flow control costs no round trip: these are the figures from before there was any.
func TestCreditOfASessionCostsNoRoundTrip(t *testing.T) {
	for _, row := range []struct {
		name          string
		size, streams int
		up, down      float64
	}{
		{"a few bytes", 1000, 1, 1.5, 1},
		{"the first flight", 64 << 10, 1, 1.5, 1},
		{"a full window", 512 << 10, 1, 4.5, 4},
		{"much", 16 << 20, 1, 35.5, 35},
		{"32 streams at once", 64 << 10, 32, 3.5, 3},
		{"16 full streams", 2 << 20, 16, 40, 40}, // 35.5 and 35, or up to 38.5 as goroutines run
	} {
		t.Run(row.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				require.LessOrEqual(t, transferRounds(t, row.size, row.streams, false), row.up)
			})
			inBubble(t, func(t *testing.T) {
				require.LessOrEqual(t, transferRounds(t, row.size, row.streams, true), row.down)
			})
		})
	}
}
