package node

import (
	"crypto/rand"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// A moving is a relay, and a peer of it that has moved to another address without a goodbye: the relay has two connections to it, and prefers
// the dead one.
type moving struct {
	*peerlanetest.Network

	relay    *peerlanetest.Relay
	replacer *replacer // of the relay
	peer     peer.ID
	old      network.Conn
	addrs    []ma.Multiaddr // of the peer, through the relay
	moved    time.Time
}

func newMoving(t *testing.T) *moving {
	t.Helper()
	m := &moving{Network: peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: 20 * time.Millisecond})}
	m.relay = peerlanetest.NewRelay(t, relay.DefaultResources(), func(opts ...libp2p.Option) host.Host { return m.Host("10.0.0.9:4001", opts...) })
	m.AddNAT(peerlanetest.EasyNAT, "11.0.0.1", "10.0.0.1")
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	require.NoError(t, err)
	m.replacer = newReplacer(m.relay.Host())
	t.Cleanup(m.replacer.close)
	before := m.Host("10.0.0.1:4001", libp2p.Identity(key), libp2p.EnableRelay())
	m.relay.Reserve(before)
	m.peer = before.ID()
	m.old = m.relay.Host().Network().ConnsToPeer(m.peer)[0]
	s, err := m.old.NewStream(t.Context()) // as the circuits that it carries have: libp2p counts them
	require.NoError(t, err)
	require.NoError(t, s.SetProtocol(ping.ID))
	m.Vanish(true) // otherwise the relay would hear of the end
	require.NoError(t, before.Close())
	m.RestartNATs()
	time.Sleep(50 * time.Millisecond)
	m.Vanish(false)
	after := m.Host("10.0.0.2:4001", libp2p.Identity(key), libp2p.EnableRelay())
	m.addrs = m.relay.Reserve(after)
	m.moved = time.Now()
	return m
}

// A peer that has moved can be reached through a relay within seconds. With libp2p alone it takes 30.
func TestARelayFindsAPeerThatHasMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMoving(t)
		other := m.Host("10.0.0.3:4001", libp2p.EnableRelay())
		peerlanetest.Teach(other, m.peer, m.addrs...)
		for other.Connect(t.Context(), peer.AddrInfo{ID: m.peer}) != nil { // dials over the dead connection fail with it
			other.Network().(*swarm.Swarm).Backoff().Clear(m.peer)
			time.Sleep(10 * time.Millisecond)
		}
		require.Less(t, time.Since(m.moved), oldAnswer+time.Second)
		require.True(t, m.old.IsClosed())
		require.Len(t, m.relay.Host().Network().ConnsToPeer(m.peer), 1)
	})
}

// Two connections to a peer that both answer stay.
func TestALiveConnectionIsNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 300 * time.Millisecond})
		r := newReplacer(h.Alice)
		t.Cleanup(r.close)
		dialed := make(chan error)
		go func() { dialed <- h.Bob.Connect(t.Context(), peer.AddrInfo{ID: h.Alice.ID()}) }()
		require.NoError(t, h.Alice.Connect(t.Context(), peer.AddrInfo{ID: h.Bob.ID()}))
		require.NoError(t, <-dialed)
		time.Sleep(time.Minute)
		require.Len(t, h.Alice.Network().ConnsToPeer(h.Bob.ID()), 2)
		r.mu.Lock()
		defer r.mu.Unlock()
		require.Empty(t, r.peers, "all checks have ended")
	})
}

// A closed replacer checks nothing, and does not wait for answers.
func TestAClosedReplacerChecksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMoving(t)
		time.Sleep(time.Second) // in the middle of a check
		m.replacer.close()
		m.replacer.close()
		require.Less(t, time.Since(m.moved), oldAnswer)
		time.Sleep(oldAnswer)
		require.False(t, m.old.IsClosed())
		m.replacer.connected(m.old)
		require.Empty(t, m.replacer.peers)
	})
}
