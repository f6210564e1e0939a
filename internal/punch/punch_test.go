package punch_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/punch"
	"github.com/peerlane/peerlane/peerlanetest"
)

// world is two hosts behind NATs, and a relay. Alice opens the relayed connection.
type world struct {
	net          *peerlanetest.Network
	relay        *peerlanetest.Relay
	alice, bob   host.Host
	ofAlice      *punch.Service
	ofBob        *punch.Service
	bobIsReached peer.AddrInfo
}

const delay = 20 * time.Millisecond

// inWorld runs f with hosts behind the NATs, in virtual time. Zero is none. A host with stock has libp2p's own hole punching.
func inWorld(t *testing.T, a, b peerlanetest.NAT, stock string, f func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{net: peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: delay})}
		if a != 0 {
			w.net.AddNAT(a, "11.0.0.10", "192.168.1.2")
		}
		if b != 0 {
			w.net.AddNAT(b, "11.0.0.20", "192.168.2.2")
		}
		w.relay = peerlanetest.NewRelay(t, relay.DefaultResources(), func(opts ...libp2p.Option) host.Host {
			return w.net.Host("11.0.0.1:4001", append(opts, libp2p.ForceReachabilityPublic())...)
		})
		w.alice, w.ofAlice = newHost(t, w.net, address(a, 1), stock == "alice")
		w.bob, w.ofBob = newHost(t, w.net, address(b, 2), stock == "bob")
		w.bobIsReached = peer.AddrInfo{ID: w.bob.ID(), Addrs: w.relay.Reserve(w.bob)}
		f(t, w)
	})
}

func address(n peerlanetest.NAT, i int) string {
	if n == 0 {
		return fmt.Sprintf("11.0.0.%d:4001", 30+i)
	}
	return fmt.Sprintf("192.168.%d.2:4001", i)
}

func newHost(t *testing.T, n *peerlanetest.Network, at string, stock bool) (host.Host, *punch.Service) {
	opts := []libp2p.Option{libp2p.EnableRelay(), libp2p.ForceReachabilityPrivate()}
	if stock {
		outside := libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { // as it would learn, were discovery not off in memory
			return []ma.Multiaddr{peerlanetest.QUICAddr(map[string]string{
				"192.168.1.2:4001": "11.0.0.10:4001", "192.168.2.2:4001": "11.0.0.20:4001",
			}[at])}
		})
		return n.Host(at, append(opts, libp2p.EnableHolePunching(), outside)...), nil
	}
	h := n.Host(at, append(opts, libp2p.Transport(tcp.NewTCPTransport), punch.QUIC)...)
	ip, _, _ := strings.Cut(at, ":")
	s, err := punch.New(h, &punch.Options{Socket: func() (net.PacketConn, error) { return n.ListenUDP(ip), nil }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.True(t, s == punch.Of(h))
	return h, s
}

// meet connects Alice to Bob over the relay.
func (w *world) meet(t *testing.T) {
	t.Helper()
	ctx := network.WithAllowLimitedConn(t.Context(), "test")
	require.NoError(t, w.alice.Connect(ctx, w.bobIsReached))
}

func direct(a, b host.Host) bool {
	for _, c := range a.Network().ConnsToPeer(b.ID()) {
		if !c.Stat().Limited {
			return true
		}
	}
	return false
}

const (
	none    = peerlanetest.NAT(0)
	easiest = peerlanetest.EasiestNAT
	easy    = peerlanetest.EasyNAT
	hard    = peerlanetest.HardNAT
)

// Through every pair of NATs that a single hole gets through, a direct connection is there within a second at 40 ms of round trip.
func TestDirectThroughNATs(t *testing.T) {
	for _, a := range []peerlanetest.NAT{none, easiest, easy, hard} {
		for _, b := range []peerlanetest.NAT{none, easiest, easy, hard} {
			impossible := a == hard && b == hard
			many := a == hard && b == easy || a == easy && b == hard
			t.Run(fmt.Sprintf("%d-%d", a, b), func(t *testing.T) {
				inWorld(t, a, b, "", func(t *testing.T, w *world) {
					w.meet(t)
					began := time.Now()
					err := w.ofAlice.Direct(t.Context(), w.bob.ID())
					if impossible {
						require.ErrorIs(t, err, punch.ErrNoDirect)
						require.False(t, direct(w.alice, w.bob))
						return
					}
					require.NoError(t, err)
					if many {
						require.Less(t, time.Since(began), 4*time.Second)
					} else {
						require.Less(t, time.Since(began), time.Second)
					}
					require.True(t, direct(w.alice, w.bob))
					require.NoError(t, w.ofBob.Direct(t.Context(), w.alice.ID()))
				})
			})
		}
	}
}

// Hosts without the service are punched to as libp2p specifies it, whichever side they are.
func TestDirectWithALibp2pHost(t *testing.T) {
	for _, stock := range []string{"alice", "bob"} {
		t.Run(stock, func(t *testing.T) {
			inWorld(t, easy, easy, stock, func(t *testing.T, w *world) {
				w.meet(t)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if stock == "alice" {
					require.NoError(t, w.ofBob.Direct(ctx, w.alice.ID()))
				} else {
					require.NoError(t, w.ofAlice.Direct(ctx, w.bob.ID()))
				}
			})
		})
	}
}

// Who has failed in a network is not kept waiting there again; in another network it is tried anew.
func TestAFailureIsRememberedForTheNetwork(t *testing.T) {
	inWorld(t, hard, hard, "", func(t *testing.T, w *world) {
		w.meet(t)
		began := time.Now()
		require.ErrorIs(t, w.ofAlice.Direct(t.Context(), w.bob.ID()), punch.ErrNoDirect)
		require.Less(t, time.Since(began), 30*time.Second)
		began = time.Now()
		require.ErrorIs(t, w.ofAlice.Direct(t.Context(), w.bob.ID()), punch.ErrNoDirect)
		require.Zero(t, time.Since(began))
	})
}

// What stood in the way goes away, and the service notices by itself: here, nobody asks for a direct connection.
func TestTheServiceTriesAgain(t *testing.T) {
	inWorld(t, hard, hard, "", func(t *testing.T, w *world) {
		w.meet(t)
		time.Sleep(time.Minute)
		require.False(t, direct(w.alice, w.bob))
		w.net.AddNAT(easy, "11.0.0.10", "192.168.1.2")
		for range 120 { // seconds; the last pauses before were 32 s and 64 s
			if time.Sleep(time.Second); direct(w.alice, w.bob) {
				return
			}
			if w.alice.Network().Connectedness(w.bob.ID()) == network.NotConnected {
				w.meet(t) // the relay's two minutes are over
			}
		}
		require.Fail(t, "no direct connection")
	})
}

// In another network many holes are tried as soon as a minute has passed, however long the pauses are. In the same network they can wait.
func TestManyHolesInAnotherNetwork(t *testing.T) {
	inWorld(t, none, none, "", func(t *testing.T, w *world) {
		until := func(times int, here string, ago time.Duration) time.Duration {
			return w.ofAlice.UntilWide(w.bob.ID(), times, "home", here, ago)
		}
		require.Zero(t, until(1, "home", 10*time.Second))
		require.Equal(t, 51*time.Second, until(0, "home", 10*time.Second), "it has been in another since")
		require.Equal(t, 51*time.Second, until(1, "office", 10*time.Second))
		require.Zero(t, until(1, "office", 2*time.Minute), "it may be now")
	})
}

// The connection goes through the hole that was found, even if another dial of the same address is under way.
func TestManyHolesBesideAnotherDial(t *testing.T) {
	inWorld(t, hard, easy, "", func(t *testing.T, w *world) {
		done, over := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(over)
			for {
				_ = w.ofAlice.Dial(w.bob.ID(), peerlanetest.QUICAddr("11.0.0.20:4001")) // in vain
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}()
		w.meet(t)
		require.NoError(t, w.ofAlice.Direct(t.Context(), w.bob.ID()))
		close(done)
		<-over
	})
}

// A direct connection that is lost is replaced.
func TestADirectConnectionThatIsLostIsReplaced(t *testing.T) {
	inWorld(t, easy, easy, "", func(t *testing.T, w *world) {
		w.meet(t)
		require.NoError(t, w.ofAlice.Direct(t.Context(), w.bob.ID()))
		for _, c := range w.alice.Network().ConnsToPeer(w.bob.ID()) {
			if !c.Stat().Limited {
				require.NoError(t, c.Close())
			}
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, w.ofAlice.Direct(ctx, w.bob.ID()))
		t.Logf("direct again after %v", time.Since(began))
	})
}

func TestDirectWithoutARelayedConnection(t *testing.T) {
	inWorld(t, easy, easy, "", func(t *testing.T, w *world) {
		require.ErrorIs(t, w.ofAlice.Direct(t.Context(), w.bob.ID()), network.ErrNoConn)
		w.meet(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, w.ofAlice.Direct(ctx, w.bob.ID()), context.Canceled)
		require.NoError(t, w.ofAlice.Close())
		require.NoError(t, w.ofAlice.Close())
		err := w.ofAlice.Direct(t.Context(), w.bob.ID())
		require.Error(t, err)
		require.False(t, errors.Is(err, context.Canceled))
	})
}

// A host whose peer never becomes direct sends little: the pauses grow.
func TestPausesGrow(t *testing.T) {
	inWorld(t, hard, hard, "", func(t *testing.T, w *world) {
		w.meet(t)
		time.Sleep(10 * time.Minute)
		require.False(t, direct(w.alice, w.bob))
	})
}

// What comes about while a seeker ends is not lost: it would begin no more.
func TestASeekerIsWokenWhileItEnds(t *testing.T) {
	inWorld(t, none, none, "", func(t *testing.T, w *world) {
		require.True(t, w.ofAlice.WakeAtTheEnd(w.bob.ID()))
	})
}

// How long a new connection has to answer depends on how far away the peer is.
func TestOverAFastPathAnAnswerIsExpectedSoon(t *testing.T) {
	for delay, want := range map[time.Duration]time.Duration{20 * time.Millisecond: time.Second, time.Second: 4 * time.Second} {
		inWorld(t, easy, easy, "", func(t *testing.T, w *world) {
			w.meet(t)
			w.net.SetDelay(delay)
			require.Equal(t, want, w.ofBob.PingLimit(w.alice.ID()))
		})
	}
}

// A peer may begin an exchange just before it gets a direct connection. Over a slow path that one answers late, and is kept; a silent one is not.
func TestAConnectionThatIsNewHasLongerToAnswer(t *testing.T) {
	inWorld(t, easy, easy, "", func(t *testing.T, w *world) {
		w.net.SetDelay(600 * time.Millisecond) // a round trip is longer than a silent connection has
		w.meet(t)
		require.NoError(t, w.ofBob.Direct(t.Context(), w.alice.ID()))
		w.ofBob.DropDead(w.alice.ID())
		require.True(t, direct(w.bob, w.alice))
		time.Sleep(time.Second)
		require.True(t, direct(w.alice, w.bob))
		w.net.Vanish(true)
		began := time.Now()
		w.ofBob.DropDead(w.alice.ID())
		require.False(t, direct(w.bob, w.alice))
		require.LessOrEqual(t, time.Since(began), 5*time.Second)
		w.net.Vanish(false)
	})
}
