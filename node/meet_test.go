package node

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/node/dht"
	"github.com/peerlane/peerlane/peerlanetest"
)

// Two hosts behind strict NATs know one server of a DHT, and each other's Peer ID. They find relays in the DHT, each other, and a path.
func TestPeersMeetOverTheRelaysOfADHT(t *testing.T) {
	const servers, relays, prefix = 20, 3, "/test"
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})
		var bootstrap []peer.AddrInfo
		join := func(o *dht.Options, at string, opts ...libp2p.Option) (host.Host, *dht.Discovery) {
			o.Prefix, o.Bootstrap = prefix, bootstrap
			h, d := net.Host(at, opts...), dht.New(o)
			require.NoError(t, d.Start(h))
			return h, d
		}
		for i := range servers {
			opts := []libp2p.Option{libp2p.ForceReachabilityPublic()}
			if i >= servers-relays {
				opts = append(opts, libp2p.EnableRelayService(relay.WithResources(relay.DefaultResources())))
			}
			h, d := join(&dht.Options{Server: true, NoAnnounce: true}, fmt.Sprintf("11.0.0.%d:4001", i+1), opts...)
			t.Cleanup(func() { require.NoError(t, d.Close()) })
			if bootstrap == nil {
				bootstrap = []peer.AddrInfo{{ID: h.ID(), Addrs: h.Addrs()}}
			}
		}
		atHome := func(i int) *Node {
			inside := fmt.Sprintf("192.168.%d.2", i)
			net.AddNAT(peerlanetest.HardNAT, fmt.Sprintf("11.0.1.%d", i), inside)
			h, d := join(&dht.Options{}, inside+":4001", libp2p.EnableRelay(), libp2p.ForceReachabilityPrivate())
			n := &Node{host: h, care: newCare(h), finder: newFinder(h, []Discovery{d})}
			var err error
			n.reservations, err = reserveFound(h, 2, []RelaySource{d})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, n.Close()) })
			return n
		}
		first, second := atHome(1), atHome(2)
		all, err := first.AwaitReservation(t.Context())
		require.NoError(t, err)
		require.Len(t, all, 2)
		ctx := network.WithAllowLimitedConn(t.Context(), "test")
		began := time.Now()
		for first.Host().Connect(ctx, peer.AddrInfo{ID: second.ID()}) != nil {
			require.Less(t, time.Since(began), time.Minute)
			time.Sleep(time.Second) // until the other host is announced
		}
		require.Equal(t, network.Limited, first.Host().Network().Connectedness(second.ID()))
		t.Log(time.Since(began))
	})
}
