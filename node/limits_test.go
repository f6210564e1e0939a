package node

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/test"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// manager returns the resource manager of limits.
func manager(t *testing.T, l Limits) network.ResourceManager {
	t.Helper()
	require.NoError(t, l.validate())
	m, err := l.withDefaults().resourceManager(nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// officeNAT is an address that many peers share. Loopback addresses have no limits, so tests on them prove nothing.
var officeNAT = ma.StringCast("/ip4/11.0.0.10/tcp/4001")

// admit connects one more peer from addr.
func admit(m network.ResourceManager, pid peer.ID, addr ma.Multiaddr) error {
	scope, err := m.OpenConnection(network.DirInbound, true, addr)
	if err != nil {
		return err
	}
	return scope.SetPeer(pid)
}

// openStreams opens n inbound streams of one protocol, with 256 KiB reserved for each, as yamux does.
func openStreams(m network.ResourceManager, pid peer.ID, tag protocol.ID, n int) error {
	for i := range n {
		s, err := m.OpenStream(pid, network.DirInbound)
		if err == nil {
			err = s.ReserveMemory(256<<10, network.ReservationPriorityAlways)
		}
		if err == nil {
			err = s.SetProtocol(tag)
		}
		if err != nil {
			return fmt.Errorf("stream %d: %w", i+1, err)
		}
	}
	return nil
}

func TestLimitsAreEnoughForAllPeersAtOnceBehindOneAddress(t *testing.T) {
	const peers, streams = 1000, 40
	m := manager(t, Limits{Peers: peers, StreamsPerPeer: streams})
	for i := range peers {
		pid := test.RandPeerIDFatal(t)
		require.NoError(t, admit(m, pid, officeNAT), "peer %d", i+1)
		require.NoError(t, openStreams(m, pid, "/app/1.0.0", streams), "peer %d", i+1)
	}
}

// libp2p's default limits refuse the ninth connection. Otherwise the test above would prove nothing.
func TestLibp2pDefaultsRefuseTheNinthConnectionOfAnAddress(t *testing.T) {
	defaults := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&defaults)
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(defaults.AutoScale()))
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	for range 8 {
		require.NoError(t, admit(m, test.RandPeerIDFatal(t), officeNAT))
	}
	require.Error(t, admit(m, test.RandPeerIDFatal(t), officeNAT))
}

func TestLimitsAreFinite(t *testing.T) {
	l := Limits{Peers: 10}.withDefaults()
	m := manager(t, l)
	admitted := 0
	for admit(m, test.RandPeerIDFatal(t), officeNAT) == nil {
		admitted++
	}
	require.Equal(t, l.conns(), admitted)
	require.GreaterOrEqual(t, admitted, 2*l.highWater())
}

// Claim: node.Limits.ConnsPerIP, node.Limits.Memory, node.Limits.Peers, node.Limits.StreamsPerPeer
func TestEachLimitHasAnEffect(t *testing.T) {
	one := test.RandPeerIDFatal(t)

	m := manager(t, Limits{Peers: 10, StreamsPerPeer: 3})
	require.NoError(t, openStreams(m, one, "/app/1.0.0", 3))
	require.ErrorIs(t, openStreams(m, one, "/app/1.0.0", 1), network.ErrResourceLimitExceeded)

	m = manager(t, Limits{Peers: 10, ConnsPerIP: 4})
	for range 4 {
		require.NoError(t, admit(m, test.RandPeerIDFatal(t), officeNAT))
	}
	require.Error(t, admit(m, test.RandPeerIDFatal(t), officeNAT))
	require.NoError(t, admit(m, one, ma.StringCast("/ip4/11.0.0.11/tcp/4001")), "another address")

	m = manager(t, Limits{Peers: 10, Memory: 1 << 20})
	require.NoError(t, openStreams(m, one, "/app/1.0.0", 4))
	require.ErrorIs(t, openStreams(m, one, "/app/1.0.0", 1), network.ErrResourceLimitExceeded)
}

func TestOnePeerCannotTakeTheConnectionsOfAll(t *testing.T) {
	m, one := manager(t, Limits{Peers: 100}), test.RandPeerIDFatal(t)
	for range connsPerPeer {
		require.NoError(t, admit(m, one, officeNAT))
	}
	require.Error(t, admit(m, one, officeNAT))
}

// All peers of a restarted server come back at once. An address that keeps dialing is slowed down.
func TestTheConnectionRateAllowsTwoBurstsOfAllPeers(t *testing.T) {
	l := Limits{Peers: 500}.withDefaults()
	m := manager(t, l)
	opened := 0
	for range 3 * l.conns() {
		scope, err := m.OpenConnection(network.DirInbound, true, officeNAT)
		if err != nil {
			break
		}
		scope.Done()
		opened++
	}
	require.GreaterOrEqual(t, opened, 2*l.conns())
	require.Less(t, opened, 3*l.conns())
}

func TestOutgoingLimitsAllowTheSameNumberOfPeers(t *testing.T) {
	const peers = 300
	m := manager(t, Limits{Peers: peers})
	for i := range peers {
		scope, err := m.OpenConnection(network.DirOutbound, true, officeNAT)
		require.NoError(t, err, "peer %d", i+1)
		require.NoError(t, scope.SetPeer(test.RandPeerIDFatal(t)), "peer %d", i+1)
	}
}

// A host that punches holes dials the NAT of a peer again and again, which is one address. libp2p would let it do so 16 times.
func TestDialsOfOneAddressForPunching(t *testing.T) {
	for name, o := range map[string]Options{
		"no limits":      {HolePunch: true},
		"conns per peer": {HolePunch: true, ConnsPerPeer: map[protocol.ID]int{"/x": 100}},
		"limits":         {HolePunch: true, Limits: &Limits{Peers: 10, ConnsPerIP: 8}},
	} {
		o.Loopback = true
		n := newNode(t, &o)
		manager := n.Host().Network().ResourceManager()
		at := ma.StringCast("/ip4/11.0.0.1/udp/4001/quic-v1")
		for range punchBurst {
			scope, err := manager.OpenConnection(network.DirOutbound, false, at)
			require.NoError(t, err, name)
			scope.Done()
		}
	}
}
