package session

import (
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

const mbit = 1e6 / 8 // bytes a second

// pour writes to a shared stream until the test ends, and returns how much of it has been read. The dialing side opens it, and one
// of the two writes.
func pour(t *testing.T, r *road, opener bool) *atomic.Int64 {
	t.Helper()
	var read atomic.Int64
	write := func(st *Stream) {
		var err error
		for buf := make([]byte, 256<<10); err == nil; { // ends with the session
			_, err = st.Write(buf)
		}
	}
	drain := func(st *Stream) {
		for buf := make([]byte, 256<<10); ; {
			n, err := st.Read(buf)
			read.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	there, here := drain, write
	if !opener {
		there, here = write, drain
	}
	r.mux.SetStream("pour", there)
	st, err := r.dialer.OpenStream(t.Context(), "pour", nil)
	require.NoError(t, err)
	go here(st)
	return &read
}

// callTimes returns the times of n calls, one every so often, in order of their length.
func callTimes(t *testing.T, r *road, n int, every time.Duration) []time.Duration {
	t.Helper()
	times := make([]time.Duration, n)
	for i := range times {
		time.Sleep(every)
		began := time.Now()
		_, err := r.dialer.Call(t.Context(), "", make([]byte, 128))
		require.NoError(t, err)
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times
}

// The network's queue is as long as anybody fills it (Buffer): that calls are quick is the flight's doing.
//
// Row: N16
func TestCallsAreQuickBesideAStreamOnEverySpeedOfNetwork(t *testing.T) {
	for _, way := range []struct {
		rate  int // bytes a second
		delay time.Duration
		up    bool // the side that opened the stream writes
	}{
		{2 * mbit, 20 * time.Millisecond, true},
		{10 * mbit, 10 * time.Millisecond, true},
		{10 * mbit, 10 * time.Millisecond, false},
		{50 * mbit, 5 * time.Millisecond, true},
		{50 * mbit, 5 * time.Millisecond, false},
		{100 * mbit, 50 * time.Millisecond, true},
		{200 * mbit, time.Millisecond, true},
	} {
		t.Run(fmt.Sprintf("%d Mbit per s, %v, up %v", way.rate/mbit, way.delay, way.up), func(t *testing.T) {
			if raceEnabled && way.rate > 10*mbit {
				t.Skip("takes a minute under -race; the step without it runs it")
			}
			inBubble(t, func(t *testing.T) {
				r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
				r.opts = faultnet.LinkOptions{Rate: way.rate, Delay: way.delay, Buffer: 8 << 20}
				r.mux.SetCall(echo)
				r.dial(Config{}, AcceptorConfig{})
				possible := min(float64(way.rate), float64(r.dialer.limits.StreamWindow)/(2*way.delay).Seconds())
				idle := callTimes(t, r, 100, time.Millisecond)

				read := pour(t, r, way.up)
				rare := callTimes(t, r, 6, 3*attentive/2)
				require.LessOrEqual(t, rare[3], idle[98]+2*mostQueue, "%v", rare)
				require.LessOrEqual(t, rare[5], idle[98]+3*mostQueue, "%v", rare)

				_ = callTimes(t, r, 10, 20*time.Millisecond) // the first ones come as the rare do
				var busy []time.Duration
				speed := speedOf(read, func() { busy = callTimes(t, r, 200, 20*time.Millisecond) })
				require.LessOrEqual(t, busy[198], 5*idle[98], "%v", busy)
				require.GreaterOrEqual(t, speed, 0.9*possible)

				require.GreaterOrEqual(t, speedOf(read, func() { time.Sleep(2 * attentive) }), 0.9*possible)
				require.NoError(t, r.dialer.Close())
			})
		})
	}
}

// speedOf returns how many bytes a second are read during fn.
func speedOf(read *atomic.Int64, fn func()) float64 {
	began, before := time.Now(), read.Load()
	fn()
	return float64(read.Load()-before) / time.Since(began).Seconds()
}

// On another connection it does at once. A way that has become longer is known by leastHolds at most.
func TestAStreamFindsItsSpeedOnAWayThatHasChanged(t *testing.T) {
	for _, way := range []struct {
		name   string
		change func(r *road)
		found  time.Duration
	}{
		{"longer", func(r *road) { r.link(-1).SetDelay(150 * time.Millisecond) }, 2 * leastHolds},
		{"shorter", func(r *road) { r.link(-1).SetDelay(time.Millisecond) }, 2 * time.Second},
		{"another connection", func(r *road) {
			r.set(func() { r.opts.Delay = 150 * time.Millisecond })
			r.link(-1).Cut()
		}, 5 * time.Second},
	} {
		t.Run(way.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newRoad(t, Config{ReplayWindow: 8 << 20}, AcceptorConfig{Config: Config{StreamWindow: 4 << 20}},
					faultnet.LinkOptions{Rate: 50 * mbit, Delay: 20 * time.Millisecond, Buffer: 8 << 20})
				r.mux.SetCall(echo)
				read := pour(t, r, true)
				for range 2 {
					_ = callTimes(t, r, 50, 50*time.Millisecond) // so that the queue is short
				}
				way.change(r)
				for began := time.Now(); time.Since(began) < way.found; {
					_ = callTimes(t, r, 1, 500*time.Millisecond)
				}
				speed := speedOf(read, func() { _ = callTimes(t, r, 20, 100*time.Millisecond) })
				require.GreaterOrEqual(t, speed, 0.9*50*mbit)
				require.NoError(t, r.dialer.Close())
			})
		})
	}
}

func TestAReaderThatReadsLittleAndLateHoldsNobodyUpForEver(t *testing.T) {
	for _, window := range []int{1, 100, 5000, 20 << 10, 64 << 10, 512 << 10} {
		inBubble(t, func(t *testing.T) {
			r := newRoad(t, Config{}, AcceptorConfig{Config: Config{StreamWindow: window}}, faultnet.LinkOptions{Delay: time.Millisecond})
			done := make(chan int64, 1)
			r.mux.SetStream("sip", func(st *Stream) {
				var all int64
				for buf := make([]byte, 3000); ; {
					if all%7 == 0 {
						time.Sleep(time.Second)
					}
					n, err := st.Read(buf[:1+all%3000])
					if all += int64(n); err != nil {
						done <- all
						return
					}
				}
			})
			st, err := r.dialer.OpenStream(t.Context(), "sip", nil)
			require.NoError(t, err)
			size := min(100*window, 2<<20)
			_, err = st.Write(make([]byte, size))
			require.NoError(t, err)
			require.NoError(t, st.CloseWrite())
			require.EqualValues(t, size, <-done)
			require.NoError(t, r.dialer.Close())
		})
	}
}

// Credit for a few bytes comes when many such have been read: how long the way is cannot be told from it.
func TestAStreamThatTrickledHoldsUpNoBurst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Delay: time.Millisecond})
		r.mux.SetStream("chat", func(st *Stream) {
			_, err := io.ReadFull(st, make([]byte, 100*100))
			require.NoError(t, err)
			<-st.s.Done() // reads no more
		})
		st, err := r.dialer.OpenStream(t.Context(), "chat", nil)
		require.NoError(t, err)
		for range 100 {
			time.Sleep(time.Minute)
			_, err = st.Write(make([]byte, 100))
			require.NoError(t, err)
		}
		began := time.Now()
		_, err = st.Write(make([]byte, 400<<10)) // the peer has room for it
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), 5*mostRelax)
		require.NoError(t, r.dialer.Close())
	})
}

func TestAFlightWaitsAnewOnAnotherWay(t *testing.T) {
	f := flight{limit: leastFlight}
	f.leave(leastFlight, time.Second)
	require.Zero(t, f.room())
	f.move(time.Minute)
	f.relax(time.Minute + leastRelax)
	require.Equal(t, leastFlight, f.limit)
	f.relax(time.Minute + blindRelax)
	require.Equal(t, 2*leastFlight, f.limit)
}
