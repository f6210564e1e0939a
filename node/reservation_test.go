package node

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// inReserve runs f with a host that keeps a reservation at a relay, in virtual time.
func inReserve(t *testing.T, f func(*testing.T, *peerlanetest.Network, *peerlanetest.Relay, *Node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})
		r := peerlanetest.NewRelay(t, relay.DefaultResources(), func(opts ...libp2p.Option) host.Host {
			return net.Host("11.0.0.1:4001", append(opts, libp2p.ForceReachabilityPublic())...)
		})
		h := net.Host("11.0.0.2:4001", libp2p.EnableRelay(), libp2p.ForceReachabilityPrivate())
		all, err := reserve(h, []peer.AddrInfo{{ID: r.Host().ID(), Addrs: r.Host().Addrs()}})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, all.close()) })
		n := &Node{host: h, reservations: all}
		_, err = n.AwaitReservation(t.Context())
		require.NoError(t, err)
		f(t, net, r, n)
	})
}

func TestARenewalKeepsTheAddresses(t *testing.T) {
	inReserve(t, func(t *testing.T, _ *peerlanetest.Network, _ *peerlanetest.Relay, n *Node) {
		sub, err := n.host.EventBus().Subscribe(new(event.EvtAutoRelayAddrsUpdated))
		require.NoError(t, err)
		defer func() { require.NoError(t, sub.Close()) }()
		<-sub.Out() // the subscription is stateful
		until := n.Reservations()[0].Until
		time.Sleep(50 * time.Minute)
		require.Empty(t, sub.Out())
		require.True(t, n.Reservations()[0].Until.After(until))
	})
}

func TestARelayThatIsSilentIsLost(t *testing.T) {
	inReserve(t, func(t *testing.T, net *peerlanetest.Network, _ *peerlanetest.Relay, n *Node) {
		net.Vanish(true)
		time.Sleep(relayPinged + careMissing*careAnswer + time.Second)
		require.Nil(t, n.Reservations()[0].Addrs)
		net.Vanish(false)
	})
}

// A host whose machine is in another network asks its relays at once, and does not wait for several answers.
func TestAReservationInAnotherNetwork(t *testing.T) {
	inReserve(t, func(t *testing.T, network *peerlanetest.Network, _ *peerlanetest.Relay, n *Node) {
		var here atomic.Value
		here.Store("192.0.2.1")
		look := func() ([]net.Addr, error) { return []net.Addr{&net.IPAddr{IP: net.ParseIP(here.Load().(string))}}, nil }
		n.reservations.running.Go(func() { n.reservations.follow(look) })
		since := n.Reservations()[0].Since
		time.Sleep(2*relayPinged + time.Second/2)
		here.Store("192.0.2.2")
		time.Sleep(lookEvery + careAnswer/2)
		require.Equal(t, since, n.Reservations()[0].Since, "the relay answers")

		network.Vanish(true)
		here.Store("192.0.2.3")
		time.Sleep(lookEvery + careAnswer + time.Second/2)
		require.Nil(t, n.Reservations()[0].Addrs)
		network.Vanish(false)
		time.Sleep(time.Minute)
		require.NotNil(t, n.Reservations()[0].Addrs)
	})
}

func TestARelayWithoutPingIsKept(t *testing.T) {
	inReserve(t, func(t *testing.T, _ *peerlanetest.Network, r *peerlanetest.Relay, n *Node) {
		r.Host().RemoveStreamHandler(ping.ID)
		since := n.Reservations()[0].Since
		time.Sleep(time.Minute)
		require.Equal(t, since, n.Reservations()[0].Since)
	})
}

// While the host waits for a subscriber that does not read, Reservations does not block.
func TestASlowSubscriberHoldsNoLock(t *testing.T) {
	inReserve(t, func(t *testing.T, _ *peerlanetest.Network, _ *peerlanetest.Relay, n *Node) {
		sub, err := n.host.EventBus().Subscribe(new(event.EvtAutoRelayAddrsUpdated), eventbus.BufSize(1))
		require.NoError(t, err) // the stateful event fills the buffer
		was := n.Reservations()[0]
		done := make(chan struct{})
		go func() {
			n.reservations.set(0, Reservation{Relay: was.Relay})
			close(done)
		}()
		synctest.Wait()
		require.Nil(t, n.Reservations()[0].Addrs)
		<-sub.Out()
		<-done
		require.NoError(t, sub.Close())
	})
}

// Attempts after a loss are short, and yet a relay whose path has become slower is reached.
func TestARelayThatIsBackOnASlowerPath(t *testing.T) {
	for _, delay := range []time.Duration{200 * time.Millisecond, 400 * time.Millisecond, 500 * time.Millisecond, 600 * time.Millisecond} {
		inReserve(t, func(t *testing.T, net *peerlanetest.Network, r *peerlanetest.Relay, n *Node) {
			time.Sleep(time.Minute)
			r.Stop()
			time.Sleep(time.Minute)
			require.Nil(t, n.Reservations()[0].Addrs)
			net.SetDelay(delay)
			r.Start()
			began := time.Now()
			_, err := n.AwaitReservation(t.Context())
			require.NoError(t, err)
			require.Less(t, time.Since(began), 20*time.Second, delay)
			t.Log(delay, time.Since(began))
		})
	}
}

// A relay that accepts and drops a host again and again does not keep it busy.
func TestARelayThatDropsItsHosts(t *testing.T) {
	inReserve(t, func(t *testing.T, _ *peerlanetest.Network, r *peerlanetest.Relay, n *Node) {
		dropped := 0
		for range 6000 {
			time.Sleep(10 * time.Millisecond)
			if n.Reservations()[0].Addrs != nil {
				_ = r.Host().Network().ClosePeer(n.ID())
				time.Sleep(30 * time.Millisecond)
				dropped++
			}
		}
		require.Positive(t, dropped)
		require.LessOrEqual(t, dropped, 120)
	})
}
