package node

import (
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
		<-sub.Out() // it is stateful
		until := n.Reservations()[0].Until
		time.Sleep(50 * time.Minute)
		require.Empty(t, sub.Out())
		require.True(t, n.Reservations()[0].Until.After(until))
	})
}

func TestARelayThatIsSilentIsLost(t *testing.T) {
	inReserve(t, func(t *testing.T, net *peerlanetest.Network, _ *peerlanetest.Relay, n *Node) {
		net.Vanish(true)
		time.Sleep(careMissing*relayPinged + careAnswer + time.Second)
		require.Nil(t, n.Reservations()[0].Addrs)
		net.Vanish(false)
	})
}

func TestARelayThatKnowsNoPingIsKept(t *testing.T) {
	inReserve(t, func(t *testing.T, _ *peerlanetest.Network, r *peerlanetest.Relay, n *Node) {
		r.Host().RemoveStreamHandler(ping.ID)
		since := n.Reservations()[0].Since
		time.Sleep(time.Minute)
		require.Equal(t, since, n.Reservations()[0].Since)
	})
}

// A subscriber that does not read is the host's to wait for, and keeps nobody from asking.
func TestASlowSubscriberHoldsNoLock(t *testing.T) {
	inReserve(t, func(t *testing.T, _ *peerlanetest.Network, _ *peerlanetest.Relay, n *Node) {
		sub, err := n.host.EventBus().Subscribe(new(event.EvtAutoRelayAddrsUpdated), eventbus.BufSize(1))
		require.NoError(t, err) // its one place is taken: it is stateful
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

// A relay that lets a host in and drops it again does not keep it busy.
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
