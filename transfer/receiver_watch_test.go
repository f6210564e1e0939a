package transfer

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// watching runs f with a receiver that wants three pieces of an origin on a session.
func watching(t *testing.T, o ReceiveOptions, f func(t *testing.T, r *receiver, from *origin, p *peerlanetest.Sessions)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := peerlanetest.NewSessions(t, nil)
		r, end := onDiskOf(t, t.TempDir(), o, faultyDisk{})
		require.NoError(t, r.begin(treeOf(t, 3), nil))
		from, leave := deafOrigin(t, r)
		from.s = p.Alice
		f(t, r, from, p)
		leave()
		end()
	})
}

// pass lets seconds pass, as the receiver's watch does, and returns how often something had stalled.
func pass(r *receiver, seconds int) (stalls int) {
	var asking sync.WaitGroup
	defer asking.Wait()
	for range seconds {
		time.Sleep(time.Second)
		stalled, _ := r.watchOnce(time.Second, &asking)
		stalls += len(stalled)
	}
	return stalls
}

// An origin that is silent for too long has stalled once, and is given up when it stays silent for as long again.
func TestASilentOriginStallsAndIsThenGivenUp(t *testing.T) {
	watching(t, ReceiveOptions{Options: Options{StallAfter: 10 * time.Second}}, func(t *testing.T, r *receiver, from *origin, _ *peerlanetest.Sessions) {
		require.Zero(t, pass(r, 9))
		require.Equal(t, 1, pass(r, 4))
		require.Equal(t, 1, from.stalls)
		require.NoError(t, from.ctl.cause(nil))
		require.Zero(t, pass(r, 15), "the same stall is not reported again")
		require.Equal(t, CodeStalled, CodeOf(from.ctl.cause(nil)))
	})
}

func TestAnOriginThatDeliversNowAndThenDoesNotStall(t *testing.T) {
	watching(t, ReceiveOptions{Options: Options{StallAfter: 10 * time.Second}}, func(t *testing.T, r *receiver, from *origin, _ *peerlanetest.Sessions) {
		for i := range 8 {
			require.Zero(t, pass(r, 9))
			r.mu.Lock()
			from.came(1000)
			r.mu.Unlock()
			require.InDelta(t, 1000, bytesAfter(r, from), 1, "%d", i)
		}
		require.NoError(t, from.ctl.cause(nil))
	})
}

// bytesAfter returns the rate that the next watch finds.
func bytesAfter(r *receiver, from *origin) float64 {
	var asking sync.WaitGroup
	r.watchOnce(time.Second, &asking)
	asking.Wait()
	return from.rate
}

// On a path that is not known to have carried the requests, silence is no proof: the origin is given more time.
func TestAnOriginOnAFrozenPathIsDoubtedForLonger(t *testing.T) {
	const after = 10 * time.Second
	watching(t, ReceiveOptions{Options: Options{StallAfter: after}}, func(t *testing.T, r *receiver, from *origin, p *peerlanetest.Sessions) {
		p.OnLink(func(l *peerlanetest.Link) { l.Freeze() }) // those of another carrier
		for _, l := range p.Links() {
			l.Freeze()
		}
		require.Zero(t, pass(r, 60), "a ping has not come back")
		r.mu.Lock()
		require.False(t, from.doubted.IsZero())
		r.mu.Unlock()
		require.Equal(t, 1, pass(r, int(mostDoubt*after/time.Second)), "but there is an end to it")
		for _, l := range p.Links() {
			l.Thaw()
		}
	})
}

func TestAPausedReceiverBlamesNobody(t *testing.T) {
	watching(t, ReceiveOptions{Options: Options{StallAfter: 10 * time.Second}}, func(t *testing.T, r *receiver, from *origin, _ *peerlanetest.Sessions) {
		r.t.meter.setPaused(true)
		require.Zero(t, pass(r, 100))
		r.t.meter.setPaused(false)
		require.Zero(t, pass(r, 9), "the time of the pause does not count")
		require.Equal(t, 1, pass(r, 4))
	})
}
