package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// relayFinder is a RelaySource that always returns the same relays.
type relayFinder struct {
	fakeDiscovery

	mu     sync.Mutex
	relays []peer.AddrInfo
	err    error
	asked  int
}

func (f *relayFinder) FindRelays(_ context.Context, n int) ([]peer.AddrInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return f.relays[:min(n, len(f.relays))], f.err
}

// finds sets the result of later searches, and returns the number of searches so far.
func (f *relayFinder) finds(err error, relays ...peer.AddrInfo) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.relays, f.err = relays, err
	return f.asked
}

// inRelays runs f in virtual time, with a host that finds three relays and reserves at one of them.
func inRelays(t *testing.T, f func(t *testing.T, n *Node, source *relayFinder, all []*peerlanetest.Relay)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})
		source := &relayFinder{}
		var all []*peerlanetest.Relay
		for i := range 3 {
			r := peerlanetest.NewRelay(t, relay.DefaultResources(), func(opts ...libp2p.Option) host.Host {
				return net.Host(fmt.Sprintf("11.0.0.%d:4001", i+1), append(opts, libp2p.ForceReachabilityPublic())...)
			})
			source.relays = append(source.relays, peer.AddrInfo{ID: r.Host().ID(), Addrs: r.Host().Addrs()})
			all = append(all, r)
		}
		h := net.Host("11.0.0.9:4001", libp2p.EnableRelay(), libp2p.ForceReachabilityPrivate())
		r, err := reserveFound(h, 1, []RelaySource{source})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, r.close()) })
		f(t, &Node{host: h, reservations: r}, source, all)
	})
}

func TestARelayThatIsFoundIsUsedAndReplacedWhenItIsLost(t *testing.T) {
	inRelays(t, func(t *testing.T, n *Node, _ *relayFinder, relays []*peerlanetest.Relay) {
		all, err := n.AwaitReservation(t.Context())
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.Equal(t, relays[0].Host().ID(), all[0].Relay)
		relays[0].Stop()
		time.Sleep(time.Minute)
		all, err = n.AwaitReservation(t.Context())
		require.NoError(t, err)
		require.Equal(t, relays[1].Host().ID(), all[0].Relay)
		relays[1].Restart() // it is back immediately, and so is the reservation
		time.Sleep(time.Minute)
		all, err = n.AwaitReservation(t.Context())
		require.NoError(t, err)
		require.Equal(t, relays[1].Host().ID(), all[0].Relay)
	})
}

// A relay that grants reservations and drops its hosts does not keep the place of one that serves.
func TestARelayThatIsFoundAndDropsItsHostsIsLeftForOthers(t *testing.T) {
	inRelays(t, func(t *testing.T, n *Node, _ *relayFinder, relays []*peerlanetest.Relay) {
		for range 3000 {
			time.Sleep(10 * time.Millisecond)
			if n.Reservations()[0].Addrs != nil {
				_ = relays[0].Host().Network().ClosePeer(n.ID())
			}
		}
		all, err := n.AwaitReservation(t.Context())
		require.NoError(t, err)
		require.Equal(t, relays[1].Host().ID(), all[0].Relay)
		require.Greater(t, time.Since(all[0].Since), 20*time.Second, "from early on")
	})
}

// The host does not wait for a relay that refuses, and repeats a search that finds nothing, here without success.
func TestRelaysThatRefuseAreReplaced(t *testing.T) {
	inRelays(t, func(t *testing.T, n *Node, source *relayFinder, relays []*peerlanetest.Relay) {
		for _, r := range relays {
			r.Stop()
		}
		source.finds(errors.New("nothing"))
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := n.AwaitReservation(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "nothing")
		require.ErrorIs(t, err, errNoneFound)
		relays[2].Start()
		require.Less(t, source.finds(nil, peer.AddrInfo{ID: relays[2].Host().ID(), Addrs: relays[2].Host().Addrs()}), 30)
		_, err = n.AwaitReservation(t.Context())
		require.NoError(t, err, "a relay is tried again after some time")
	})
}

func TestTheAddressesOfAFoundRelay(t *testing.T) {
	all := func(some ...string) (out []ma.Multiaddr) {
		for _, s := range some {
			out = append(out, ma.StringCast(s))
		}
		return out
	}
	const far, near, own = "/ip4/1.2.3.4/tcp/1", "/ip4/192.168.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"
	require.Equal(t, all(far), relayAddrs(all(own, near, far, far+"/p2p/"+testPeer+"/p2p-circuit")))
	require.Equal(t, all(near), relayAddrs(all(own, near, "/ip4/0.0.0.0/tcp/1")))
	require.Equal(t, all(own), relayAddrs(all(own)))
	require.Empty(t, relayAddrs(nil))
	require.Len(t, relayAddrs(all(far, "/ip4/1.2.3.4/tcp/2", "/ip4/1.2.3.4/tcp/3", "/ip4/1.2.3.4/tcp/4", "/ip4/1.2.3.4/tcp/5")), maxRelayAddrs)
}

// Claim: node.Options.FindRelays
func TestAHostFindsItsRelays(t *testing.T) {
	r, err := New(t.Context(), &Options{Loopback: true, RelayService: &RelayService{}})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	source := &relayFinder{relays: []peer.AddrInfo{r.Info()}}
	n, err := New(t.Context(), &Options{Loopback: true, FindRelays: 1, Discovery: []Discovery{source}})
	require.NoError(t, err)
	all, err := n.AwaitReservation(t.Context())
	require.NoError(t, err)
	require.Equal(t, r.ID(), all[0].Relay)
	require.NoError(t, n.Close())
}
