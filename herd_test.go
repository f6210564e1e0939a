package peerlane

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// herdOf is how many peers a herd has: a connection to a relay over QUIC carries 256 circuits.
const herdOf = 150

// A herd is one client's sessions with many peers.
type herd struct {
	net      *peerlanetest.Network
	relay    *peerlanetest.Relay
	peers    []host.Host
	sessions []*session.Session
}

// newHerd returns a herd whose peers are reached directly, or else through a relay.
func newHerd(t *testing.T, relayed bool) *herd {
	w := &herd{net: peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})}
	const many = 1 << 20
	resources := relay.Resources{ReservationTTL: time.Hour, MaxReservations: many, MaxCircuits: many, BufferSize: 2048,
		MaxReservationsPerIP: many, MaxReservationsPerASN: many}
	w.relay = peerlanetest.NewRelay(t, resources, func(opts ...libp2p.Option) host.Host { return w.net.Host("11.0.0.1:4001", opts...) })
	c := newClient(t, w.net.Host("11.0.0.2:4001", libp2p.EnableRelay(), libp2p.UDPBlackHoleSuccessCounter(nil)), &ClientConfig{AdmitAll: true, Path: AllowRelay, IdleConnTimeout: time.Hour})
	for i := range herdOf {
		opts := []libp2p.Option{libp2p.EnableRelay()}
		if relayed {
			opts = append(opts, libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return nil }))
		}
		h := w.net.Host(fmt.Sprintf("12.0.%d.%d:4001", i/100, i%100+1), opts...)
		if relayed {
			peerlanetest.Teach(c.pool.host, h.ID(), w.relay.Reserve(h)...)
		} else {
			peerlanetest.Teach(c.pool.host, h.ID(), h.Addrs()...)
		}
		server := newServer(t, h, &ServerConfig{AdmitAll: true, IdleTimeout: time.Hour, MaxIdleTime: time.Hour})
		require.NoError(t, server.Start(testTag, echoHandler))
		s, err := c.Connect(t.Context(), h.ID(), testTag)
		require.NoError(t, err)
		require.Equal(t, relayed, PathOf(s).Relayed)
		w.peers, w.sessions = append(w.peers, h), append(w.sessions, s)
	}
	return w
}

// attached returns how many sessions have a carrier.
func (w *herd) attached() int {
	n := 0
	for _, s := range w.sessions {
		if s.State() != session.StateDetached {
			n++
		}
	}
	return n
}

// lose waits until all sessions have lost their carriers, and returns how many packets are sent in the 20 s after that.
func (w *herd) lose() int64 {
	for began := time.Now(); w.attached() > 0 && time.Since(began) < time.Minute; {
		time.Sleep(100 * time.Millisecond)
	}
	before, _ := w.net.Sent()
	time.Sleep(20 * time.Second)
	after, _ := w.net.Sent()
	return after - before
}

// back returns how long it takes until all sessions have carriers.
func (w *herd) back() time.Duration {
	began := time.Now()
	for w.attached() < len(w.sessions) && time.Since(began) < time.Minute {
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// A client whose network is down dials its peers with bounded effort, however many they are, and all sessions are back soon after the network is.
func TestAHerdOfLostPeersIsBackWithTheNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newHerd(t, false)
		w.net.Vanish(true)
		sent := w.lose()
		w.net.Vanish(false)
		back := w.back()
		t.Logf("%d packets in 20 s, all back after %v", sent, back)
		require.Less(t, sent, int64(12_000))
		require.Less(t, back, 10*time.Second, "a dial takes 5 s, and the pause to the next as much")
	})
}

// Peers that have all lost their reservations at a relay are back soon after they have reservations.
func TestAHerdOfLostPeersIsBackWithItsReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newHerd(t, true)
		for _, h := range w.peers {
			require.NoError(t, h.Network().ClosePeer(w.relay.Host().ID()))
		}
		sent := w.lose()
		var reserved sync.WaitGroup
		for i, h := range w.peers {
			reserved.Go(func() {
				time.Sleep(time.Duration(i) * 4 * time.Millisecond) // QUIC admits 128 handshakes at the same moment
				at := w.relay.Host()
				info := peer.AddrInfo{ID: at.ID(), Addrs: at.Addrs()}
				assert.NoError(t, h.Connect(t.Context(), info))
				_, err := client.Reserve(t.Context(), h, info)
				assert.NoError(t, err)
			})
		}
		reserved.Wait()
		back := w.back()
		t.Logf("%d packets in 20 s, all back after %v", sent, back)
		require.Less(t, back, 3*time.Second)
	})
}

// However many peers a client has lost, it sends their relay a bounded number of packets.
func TestAThousandLostPeersAreDialedInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})
		relay := peerlanetest.NewRelay(t, relay.DefaultResources(), func(opts ...libp2p.Option) host.Host { return net.Host("11.0.0.1:4001", opts...) })
		a := net.Host("11.0.0.2:4001", libp2p.EnableRelay(), libp2p.UDPBlackHoleSuccessCounter(nil))
		at := peer.AddrInfo{ID: relay.Host().ID(), Addrs: relay.Host().Addrs()}
		require.NoError(t, a.Connect(t.Context(), at))
		time.Sleep(relayIsNew)
		circuit := ma.StringCast(fmt.Sprintf("%s/p2p/%s/p2p-circuit", at.Addrs[0], at.ID))
		ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(t.Context(), "test"), 5*time.Second)
		defer cancel()
		before, _ := net.Sent()
		var all sync.WaitGroup
		for range 1000 {
			pid := test.RandPeerIDFatal(t)
			peerlanetest.Teach(a, pid, circuit)
			d := (&Dialer{Host: a, Tag: testTag, Path: AllowRelay, again: againTime}).withDefaults()
			all.Go(func() { assert.Error(t, d.dialAgain(ctx, pid)) })
		}
		all.Wait()
		after, _ := net.Sent()
		t.Logf("%d packets", after-before)
		require.Less(t, after-before, int64(20_000))
	})
}

func TestDialsOfLostPeersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil).Alice
		l, done := openLostDials(h)
		again, doneAgain := openLostDials(h)
		require.Same(t, l, again)
		doneAgain()
		defer done()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var all sync.WaitGroup
		results := make(chan bool)
		for range 1000 {
			all.Go(func() {
				if l.take(ctx) == nil {
					l.leave(<-results)
				}
			})
		}
		state := func() [3]int {
			synctest.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			return [3]int{l.running, l.room, l.waiting.Len()}
		}
		require.Equal(t, [3]int{leastTurns, leastTurns, 1000 - leastTurns}, state())
		results <- false
		require.Equal(t, [3]int{leastTurns, leastTurns, 999 - leastTurns}, state())
		for range leastTurns {
			results <- true
		}
		require.Equal(t, [3]int{2 * leastTurns, 2 * leastTurns, 999 - 3*leastTurns}, state(), "twice as many in the time of a dial")
		results <- false
		require.Equal(t, 2*leastTurns-1, state()[1])
		cancel()
		require.Zero(t, state()[2])
		close(results)
		all.Wait()
		require.Equal(t, [3]int{0, leastTurns, 0}, state())
	})
}
