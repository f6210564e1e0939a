package peerlane

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/pause"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/peerlanetest"
)

// A slowDirectory is a directory whose answers take a while.
type slowDirectory struct {
	directory

	takes    time.Duration
	searched sync.Map // peer.ID to *atomic.Int32
}

// searches returns how often a peer was searched for.
func (d *slowDirectory) searches(id peer.ID) *atomic.Int32 {
	n, _ := d.searched.LoadOrStore(id, new(atomic.Int32))
	return n.(*atomic.Int32)
}

func (d *slowDirectory) FindPeer(ctx context.Context, id peer.ID) (peer.AddrInfo, error) {
	d.searches(id).Add(1)
	if err := pause.For(ctx, d.takes); err != nil {
		return peer.AddrInfo{}, err
	}
	return *d.at.Load(), nil
}

// againNodes are a relay, Bob behind a NAT, reached through it, and Alice, who finds him in a directory.
func againNodes(t *testing.T, d node.Discovery) (relay, bob, alice *node.Node) {
	t.Helper()
	net := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})
	net.AddNAT(peerlanetest.HardNAT, "11.0.0.10", homeOfAlice)
	net.AddNAT(peerlanetest.HardNAT, "11.0.0.20", homeOfBob)
	w := &homes{t: t, net: net}
	relay = w.open(atRelay, node.Options{RelayService: &node.RelayService{Data: -1}})
	bob = w.open(homeOfBob, node.Options{Relays: relay.Addrs()})
	alice = w.open(homeOfAlice, node.Options{Discovery: []node.Discovery{d}})
	return relay, bob, alice
}

// A peer that is dialed again and again, and has gone to another relay, is found there although the search takes longer than one of the dials. Not
// every dial begins a search of its own.
func TestASearchOutlastsTheDialsOfALostPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		where := &slowDirectory{takes: 4 * time.Second}
		_, bob, alice := againNodes(t, where)
		reached, err := bob.AwaitReservation(t.Context())
		require.NoError(t, err)
		where.at.Store(&peer.AddrInfo{ID: bob.ID(), Addrs: reached[0].Addrs})
		gone := test.RandPeerIDFatal(t)
		peerlanetest.Teach(alice.Host(), bob.ID(), ma.StringCast("/ip4/11.0.0.99/udp/4001/quic-v1/p2p/"+gone.String()+"/p2p-circuit"))
		d := (&Dialer{Host: alice.Host(), Tag: testTag, Path: AllowRelay, again: againTime}).withDefaults()
		ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(t.Context(), "test"), 30*time.Second)
		defer cancel()
		began := time.Now()
		err = d.dialAgain(ctx, bob.ID())
		t.Logf("%v, %d searches, %d for the relay", time.Since(began), where.searches(bob.ID()).Load(), where.searches(gone).Load())
		require.NoError(t, err)
		require.Less(t, time.Since(began), 10*time.Second)
		require.LessOrEqual(t, where.searches(bob.ID()).Load(), int32(5), "of a dial each second")
		require.Zero(t, where.searches(gone).Load(), "its addresses are known")
	})
}

// A relay that closes every connection at once, as one with too many does, is not dialed without a pause.
func TestARelayThatClosesAtOnceIsDialedWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		where := &slowDirectory{takes: time.Hour}
		relay, bob, alice := againNodes(t, where)
		reached, err := bob.AwaitReservation(t.Context())
		require.NoError(t, err)
		peerlanetest.Teach(alice.Host(), bob.ID(), reached[0].Addrs...)
		var dials atomic.Int32
		relay.Host().Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
			if c.RemotePeer() == alice.ID() {
				dials.Add(1)
				go func() { _ = c.Close() }()
			}
		}})
		d := (&Dialer{Host: alice.Host(), Tag: testTag, Path: AllowRelay, again: againTime}).withDefaults()
		ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(t.Context(), "test"), 30*time.Second)
		defer cancel()
		err = d.dialAgain(ctx, bob.ID())
		require.Error(t, err)
		t.Logf("%d dials", dials.Load())
		require.Less(t, dials.Load(), int32(60))
	})
}

// The end of the host ends the dials.
func TestAClosedHostDialsNoLostPeer(t *testing.T) {
	for _, relayed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			relay, bob, alice := againNodes(t, &slowDirectory{takes: time.Hour})
			reached, err := bob.AwaitReservation(t.Context())
			require.NoError(t, err)
			require.NoError(t, bob.Close())
			peerlanetest.Teach(alice.Host(), bob.ID(), reached[0].Addrs...)
			if !relayed {
				require.NoError(t, relay.Close())
			}
			d := (&Dialer{Host: alice.Host(), Tag: testTag, Path: AllowRelay, again: againTime}).withDefaults()
			ended := make(chan error, 1)
			go func() { ended <- d.dialAgain(network.WithAllowLimitedConn(t.Context(), "test"), bob.ID()) }()
			time.Sleep(10*time.Second + 500*time.Millisecond)
			began := time.Now()
			require.NoError(t, alice.Close())
			require.Error(t, <-ended)
			require.Less(t, time.Since(began), 5*time.Second)
			t.Log(relayed, time.Since(began))
		})
	}
}

// A peer that has made up relays, at the addresses of others, and then ends a connection does not make the host send them packets all the time.
func TestRelaysThatAPeerMadeUpAreDialedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})
		alice := (&homes{t: t, net: net}).open("11.0.0.5", node.Options{})
		bob := test.RandPeerIDFatal(t)
		for i := range 8 {
			relay := test.RandPeerIDFatal(t)
			for k := range 60 {
				peerlanetest.Teach(alice.Host(), bob, ma.StringCast(fmt.Sprintf("/ip4/12.0.%d.%d/udp/4001/quic-v1/p2p/%s/p2p-circuit", i, k+1, relay)))
			}
		}
		d := (&Dialer{Host: alice.Host(), Tag: testTag, Path: AllowRelay, again: againTime}).withDefaults()
		ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(t.Context(), "test"), time.Minute)
		defer cancel()
		before, _ := net.Sent()
		require.Error(t, d.dialAgain(ctx, bob))
		after, _ := net.Sent()
		t.Logf("%d packets", after-before)
		require.Less(t, after-before, int64(9000), "one dial that lasts a minute sends 5000; the pauses between these vary")
	})
}
