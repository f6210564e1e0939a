package natlab

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// arrivals records the delivered packets and their times.
type arrivals struct {
	mu    sync.Mutex
	bytes []byte // the first of each packet
	at    []time.Duration
}

// ship sends n numbered packets of the given size at once, and returns those that arrived.
func ship(l *lane, n, size int) *arrivals {
	a := new(arrivals)
	began := time.Now()
	for i := range n {
		b := make([]byte, size)
		b[0] = byte(i)
		l.send(b, false, func(b []byte) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.bytes = append(a.bytes, b[0])
			a.at = append(a.at, time.Since(began))
		})
		b[0] = 255 // it is the sender's again
	}
	time.Sleep(time.Hour) // of virtual time
	synctest.Wait()
	return a
}

func inLane(t *testing.T, f func(t *testing.T, l *lane)) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane()
		defer l.close()
		f(t, l)
	})
}

func TestALaneWithoutConditionsDeliversAtOnce(t *testing.T) {
	inLane(t, func(t *testing.T, l *lane) {
		a := ship(l, 2, 10)
		require.Equal(t, []byte{0, 1}, a.bytes)
		require.Equal(t, []time.Duration{0, 0}, a.at)
		require.EqualValues(t, 20, l.bytes.Load())
	})
}

func TestDelayAndJitterKeepTheOrder(t *testing.T) {
	inLane(t, func(t *testing.T, l *lane) {
		l.set(Conditions{Delay: 40 * time.Millisecond, Jitter: 10 * time.Millisecond})
		a := ship(l, 100, 10)
		require.Len(t, a.bytes, 100)
		for i, b := range a.bytes {
			require.EqualValues(t, i, b)
			require.GreaterOrEqual(t, a.at[i], 40*time.Millisecond)
			require.Less(t, a.at[i], 50*time.Millisecond)
		}
		l.set(Conditions{})
		require.Equal(t, time.Duration(0), ship(l, 1, 10).at[0])
	})
}

func TestAPacketWithoutDelayDoesNotOvertakeOnesThatWait(t *testing.T) {
	inLane(t, func(t *testing.T, l *lane) {
		l.set(Conditions{Delay: time.Second})
		var got []int
		l.send([]byte{1}, false, func([]byte) { got = append(got, 1) })
		l.set(Conditions{})
		l.send([]byte{2}, false, func([]byte) { got = append(got, 2) })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, []int{1, 2}, got)
	})
}

func TestReorderedPacketsOvertake(t *testing.T) {
	inLane(t, func(t *testing.T, l *lane) {
		l.set(Conditions{Delay: 40 * time.Millisecond, Reorder: 0.5})
		early := 0
		for _, at := range ship(l, 200, 10).at {
			if at == 0 {
				early++
			}
		}
		require.InDelta(t, 100, early, 60)
	})
}

func TestRateAndTheBuffersEnd(t *testing.T) {
	inLane(t, func(t *testing.T, l *lane) {
		l.set(Conditions{Rate: 100_000})
		a := ship(l, 100, 1000) // a second's worth
		for i, at := range a.at {
			require.Equal(t, time.Duration(i+1)*10*time.Millisecond, at)
		}
		require.Len(t, a.at, 21, "what would wait longer than 200 ms is lost")
	})
}

func TestLossAndCut(t *testing.T) {
	inLane(t, func(t *testing.T, l *lane) {
		l.set(Conditions{Loss: 0.2})
		require.InDelta(t, 800, len(ship(l, 1000, 10).at), 100)
		l.set(Conditions{NoUDP: true})
		l.send([]byte{1}, true, func([]byte) { t.Error("UDP came through") })
		require.Len(t, ship(l, 1, 10).at, 1)
		l.cut.Store(true)
		require.Empty(t, ship(l, 10, 10).at)
	})
}

func TestAClosedLaneDeliversNothingMore(t *testing.T) {
	inLane(t, func(t *testing.T, l *lane) {
		l.set(Conditions{Delay: time.Second})
		l.send([]byte{1}, false, func([]byte) { t.Error("delivered") })
		l.close()
		l.send([]byte{1}, false, func([]byte) { t.Error("delivered") })
		time.Sleep(time.Hour)
	})
}
