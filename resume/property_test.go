package resume

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/traffic"
)

// Both directions at once, over links that are cut after any number of bytes, those of a hello included, and replaced while
// they live: what arrives is what was written, and then the end.
//
// Row: S3, S4, S5, S6, S7
func TestConnSurvivesRandomCuts(t *testing.T) {
	t.Parallel() // beside those that wait for real
	for _, window := range []int{4 << 10, 64 << 10, 1 << 20} {
		for cuts, rounds := range map[int]int{1: 10, 10: 5, 100: 2, 1000: 1} {
			for range rounds {
				synctest.Test(t, func(t *testing.T) { surviveConnCuts(t, window, cuts) })
			}
		}
	}
}

func surviveConnCuts(t *testing.T, window, cuts int) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	h := newHub()
	h.opts = faultnet.LinkOptions{Delay: time.Duration(rng.IntN(1e6)), Buffer: 256 + rng.IntN(1<<rng.IntN(18)), CutDelivers: rng.IntN(2) == 0}
	p := newPairOver(t, h, &Options{Window: window, ResumeWindow: time.Hour, Backoff: Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}},
		&Options{Window: 4 << 10 << rng.IntN(9), ResumeWindow: time.Hour})
	var made atomic.Int64
	h.onLink(func(link *faultnet.Link) { // called by one goroutine at a time
		if int(made.Add(1)) > cuts {
			return
		}
		n := rng.IntN(2*helloSize + 4*headerSize)
		if rng.IntN(3) > 0 {
			n = rng.IntN(1 << (8 + rng.IntN(12)))
		}
		link.CutAfter(int64(n))
	})
	p.cutNewest()
	var stopped atomic.Bool
	var all sync.WaitGroup
	var totals [2]int
	for i, c := range []*Conn{p.client, p.server} {
		other := []*Conn{p.server, p.client}[i]
		all.Go(func() {
			traffic.Write(t, c, seed+uint64(i), &stopped, func(n int) { totals[i] = n })
			require.NoError(t, c.CloseWrite())
		})
		all.Go(func() {
			got := traffic.Read(t, other, seed+uint64(i), func() (int, bool) { return 0, false })
			require.Equal(t, totals[i], got, "seed %d", seed)
		})
	}
	all.Go(func() {
		times := rand.New(rand.NewPCG(seed, 4))
		for int(made.Load()) <= cuts {
			time.Sleep(time.Duration(times.IntN(1 << times.IntN(28))))
			require.NoError(t, p.client.Reconnect())
		}
		stopped.Store(true)
	})
	all.Wait()
	_, resentA := p.client.flow.Kept()
	_, resentB := p.server.flow.Kept()
	t.Logf("window %d, %d cuts, seed %d: %d and %d bytes, %d and %d again", window, cuts, seed, totals[0], totals[1], resentA, resentB)
	require.NoError(t, p.client.Close())
	require.NoError(t, p.server.Close())
	<-p.client.Done()
	<-p.server.Done()
	if err := p.told.last(); err != nil { // a cut took the last acknowledgement, and the other side has closed and forgotten
		require.ErrorIs(t, err, ErrUnknown, "seed %d", seed)
	}
}

// The same over real sockets, whose carriers are cut by RST and stand still at random.
//
// Row: S3, S5, S6
func TestConnSurvivesAnEvilProxy(t *testing.T) {
	t.Parallel() // it waits for real
	under, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	proxy := faultnet.TCPProxy(t, under.Addr().String())
	o := &Options{Window: 64 << 10, Heartbeat: 100 * time.Millisecond, Backoff: Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond}}
	l, err := NewListener(under, o)
	require.NoError(t, err)
	c, err := Dial(tcpDial(proxy.Addr()), o)
	require.NoError(t, err)
	accepted, err := l.Accept()
	require.NoError(t, err)
	s := accepted.(*Conn)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const total = 4 << 20
	data := traffic.Bytes(seed, total)
	var all sync.WaitGroup
	for _, way := range [][2]*Conn{{c, s}, {s, c}} {
		all.Go(func() {
			for rest := data; len(rest) > 0; rest = rest[min(len(rest), 10000):] {
				_, err := way[0].Write(rest[:min(len(rest), 10000)])
				require.NoError(t, err)
			}
			require.NoError(t, way[0].CloseWrite())
		})
		all.Go(func() {
			h := newHash(way[1])
			require.Equal(t, newHash(sliceReader(data)), h)
		})
	}
	finished := make(chan struct{})
	var evil sync.WaitGroup
	evil.Go(func() { torment(proxy, rand.New(rand.NewPCG(seed, 1)), finished) })
	all.Wait()
	close(finished)
	evil.Wait()
	_, _, _ = c.Close(), s.Close(), l.Close()
	<-c.Done()
	<-s.Done()
}

// torment cuts, freezes and silences a proxy 20 times, or until finished.
func torment(proxy *faultnet.TCP, rng *rand.Rand, finished <-chan struct{}) {
	pause := func(d time.Duration) {
		select {
		case <-finished:
		case <-time.After(d):
		}
	}
	for range 20 {
		switch rng.IntN(4) {
		case 0:
			proxy.Cut()
		case 1:
			proxy.Freeze()
			pause(time.Duration(rng.IntN(400)) * time.Millisecond)
			proxy.Thaw()
		case 2:
			proxy.Vanish(true)
			pause(time.Duration(rng.IntN(50)) * time.Millisecond)
			proxy.Vanish(false)
		case 3:
			proxy.CutAfter(int64(rng.IntN(1 << 20)))
		}
		pause(time.Duration(rng.IntN(10)) * time.Millisecond)
	}
}
