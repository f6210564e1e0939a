package session

import (
	"fmt"
	"io"
	"net"
	"runtime/metrics"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// crowd makes n hellos wait, of a peer each, whose only place is taken. leave ends them.
func crowd(tb testing.TB, a *Acceptor, n int) (leave func()) {
	tb.Helper()
	ended := make(chan *Error, n)
	for i := range n {
		peer := fmt.Sprint("peer ", i)
		require.Nil(tb, a.beginHello(nil, peer))
		go func() { ended <- a.beginHello(nil, peer) }()
	}
	waiting := func() (sum int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, h := range a.hellos {
			sum += len(h.waiting)
		}
		return sum
	}
	for waiting() < n {
	}
	return func() {
		for i := range n {
			a.endHello(nil, fmt.Sprint("peer ", i))
		}
		for range n {
			require.Nil(tb, <-ended)
		}
		for i := range n {
			a.endHello(nil, fmt.Sprint("peer ", i))
		}
		require.Empty(tb, a.hellos)
	}
}

// aCarrier is a conn on which a hello of a role that does not exist arrives, and whatever is written is lost.
func aCarrier(body []byte) net.Conn {
	here, there := net.Pipe()
	go func() {
		_ = frame.WriteHello(there, body)
		_, _ = io.Copy(io.Discard, there)
	}()
	return here
}

// refusedHello is a hello that is refused.
var refusedHello = frame.AppendHello(nil, &frame.Hello{Kind: frame.KindHello, Version: frame.Version, Role: 9})

func newNarrowAcceptor(tb testing.TB) *Acceptor {
	a, err := NewAcceptor(&AcceptorConfig{MaxHandshakes: 1})
	require.NoError(tb, err)
	return a
}

// wakes returns how often the process has given a goroutine a processor, a sample of which the runtime counts: one in eight.
func wakes() (n uint64) {
	sample := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(sample)
	for _, count := range sample[0].Value.Float64Histogram().Counts {
		n += count
	}
	return n
}

// A refused hello wakes as many goroutines while thousands of hellos wait as while none does. With one line for all peers, each woke all.
func TestARefusedHelloWakesNobodyOfOtherPeers(t *testing.T) {
	const waiting, hellos = 2000, 50
	counts := make(map[int]uint64)
	for _, n := range []int{0, waiting} {
		inBubble(t, func(t *testing.T) {
			a := newNarrowAcceptor(t)
			leave := crowd(t, a, n)
			synctest.Wait()
			before := wakes()
			for range hellos {
				require.ErrorIs(t, a.Serve(aCarrier(refusedHello), "mallory"), ErrUnsupported)
				synctest.Wait() // who was woken waits again
			}
			counts[n] = wakes() - before
			leave()
		})
	}
	t.Logf("wakes that were counted in %d hellos: %v", hellos, counts)
	require.Less(t, counts[waiting], counts[0]+waiting*hellos/8/10)
}

// The hellos of a peer that wait are taken in their order, as many as there are places, and a shutdown refuses those that still wait.
func TestHellosOfAPeerWaitInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a, err := NewAcceptor(&AcceptorConfig{MaxHandshakes: 2})
		require.NoError(t, err)
		conn, there := net.Pipe()
		defer func() { _ = there.Close() }()
		for range 2 {
			require.Nil(t, a.beginHello(conn, "alice"))
		}
		ended := make(chan int, 2)
		for i := range 2 {
			go func() {
				if err := a.beginHello(conn, "alice"); err != nil {
					i = -int(err.Code)
				}
				ended <- i
			}()
			synctest.Wait()
		}
		require.Equal(t, codes.Unavailable, a.beginHello(conn, "alice").Code)
		require.Nil(t, a.beginHello(conn, "bob"))
		a.endHello(conn, "bob")
		synctest.Wait()
		require.Empty(t, ended, "another peer's place")
		for i := range 2 {
			a.endHello(conn, "alice")
			require.Equal(t, i, <-ended)
			require.Equal(t, 2, a.hellos["alice"].answered)
		}
		go func() { ended <- -int(a.beginHello(conn, "alice").Code) }()
		synctest.Wait()
		a.Drain()
		require.Equal(t, -int(codes.Unavailable), <-ended)
		a.endHello(conn, "alice")
		a.endHello(conn, "alice")
		require.Empty(t, a.hellos)
		require.Equal(t, codes.GoingAway, a.beginHello(conn, "alice").Code)
		require.Empty(t, a.hellos, "a refused hello keeps no place")
	})
}

// BenchmarkRefusedHello is the cost of a hello that is refused, while hellos of other peers wait.
func BenchmarkRefusedHello(b *testing.B) {
	for _, n := range []int{0, 1600, 25_600} {
		b.Run(fmt.Sprint(n, " wait"), func(b *testing.B) {
			a := newNarrowAcceptor(b)
			leave := crowd(b, a, n)
			for b.Loop() {
				_ = a.Serve(aCarrier(refusedHello), "mallory")
			}
			b.StopTimer()
			leave()
		})
	}
}
