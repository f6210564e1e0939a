package node

import (
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/stretchr/testify/require"
)

// Claim: node.ErrInvalid
func TestErrorsNameTheInvalidOption(t *testing.T) {
	for _, c := range []struct {
		field string
		opts  Options
	}{
		{"Options.ListenAddrs", Options{ListenAddrs: []string{}}},
		{"Options.ListenAddrs", Options{ListenAddrs: []string{"127.0.0.1:4001"}}},
		{"Options.Loopback", Options{ListenAddrs: []string{"/ip4/127.0.0.1/tcp/0"}, Loopback: true}},
		{"Options.Port", Options{ListenAddrs: []string{"/ip4/127.0.0.1/tcp/0"}, Port: 1}},
		{"Options.NoListen", Options{ListenAddrs: []string{"/ip4/127.0.0.1/tcp/0"}, NoListen: true}},
		{"Options.NoListen", Options{NoListen: true, Loopback: true}},
		{"Options.NoListen", Options{NoListen: true, Port: 1}},
		{"Options.Reachability", Options{Reachability: 9}},
		{"Options.UserAgent", Options{UserAgent: "a\nb"}},
		{"Options.Relays", Options{Relays: []string{"relay.example.org"}}},
		{"Options.Relays", Options{Relays: []string{testPeer}}},
		{"Options.Peers", Options{Peers: []string{"somebody"}}},
		{"Options.Peers", Options{Peers: []string{testPeer}}},
		{"Options.Discovery", Options{Discovery: []Discovery{nil}}},
		{"Options.FindRelays", Options{FindRelays: -1}},
		{"Options.FindRelays", Options{FindRelays: maxFindRelays + 1, Discovery: []Discovery{&relayFinder{}}}},
		{"Options.FindRelays", Options{FindRelays: 1, Discovery: []Discovery{&fakeDiscovery{}}}},
		{"Options.FindRelays", Options{FindRelays: 1, Discovery: []Discovery{&relayFinder{}}, Relays: []string{addrOfA + "/p2p/" + testPeer}}},
		{"Limits.Peers", Options{Limits: &Limits{}}},
		{"Limits.Peers", Options{Limits: &Limits{Peers: maxPeers + 1}}},
		{"Limits.StreamsPerPeer", Options{Limits: &Limits{Peers: 1, StreamsPerPeer: -1}}},
		{"Limits.StreamsPerPeer", Options{Limits: &Limits{Peers: 1000, StreamsPerPeer: 1 << 20}}},
		{"Limits.ConnsPerIP", Options{Limits: &Limits{Peers: 1, ConnsPerIP: -1}}},
		{"Limits.Memory", Options{Limits: &Limits{Peers: 1, Memory: -1}}},
	} {
		_, err := New(t.Context(), &c.opts)
		require.ErrorIs(t, err, ErrInvalid, "%+v", c.opts)
		require.ErrorContains(t, err, c.field, "%+v", c.opts)
	}
}

func TestTheDefaultIsTCPAndQUICOnAllInterfaces(t *testing.T) {
	require.Equal(t, []string{"/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"},
		Options{}.withDefaults().ListenAddrs)
}

// Claim: node.Options.Loopback, node.Options.Port
func TestPortAndLoopbackChooseWhereToListen(t *testing.T) {
	require.Equal(t, []string{"/ip4/127.0.0.1/tcp/7", "/ip4/127.0.0.1/udp/7/quic-v1"},
		Options{Loopback: true, Port: 7}.withDefaults().ListenAddrs)
}

func TestWithDefaultsLeavesTheCallersOptionsAlone(t *testing.T) {
	opts := Options{Limits: &Limits{Peers: 5}}
	require.Equal(t, defaultStreamsPerPeer, opts.withDefaults().Limits.StreamsPerPeer)
	require.Zero(t, opts.Limits.StreamsPerPeer)
}

// config returns the libp2p configuration that opts lead to.
func config(t *testing.T, opts Options) *libp2p.Config {
	t.Helper()
	require.NoError(t, opts.validate())
	key, err := newKey()
	require.NoError(t, err)
	all, err := opts.withDefaults().libp2p(key)
	require.NoError(t, err)
	cfg := new(libp2p.Config)
	require.NoError(t, cfg.Apply(all...))
	t.Cleanup(func() {
		if opts.Limits != nil {
			require.NoError(t, cfg.ConnManager.Close())
			require.NoError(t, cfg.ResourceManager.Close())
		}
	})
	return cfg
}

// Claim: node.Options.PortMap, node.Options.Reachability
func TestEachNATOptionReachesLibp2p(t *testing.T) {
	plain := config(t, Options{})
	require.False(t, plain.EnableAutoRelay)
	require.Nil(t, plain.NATManager)
	require.Nil(t, plain.AutoNATConfig.ForceReachability)

	punching := config(t, Options{HolePunch: true})
	require.False(t, punching.EnableHolePunching, "the node punches itself")
	relaying := config(t, Options{RelayService: &RelayService{}})
	require.False(t, relaying.EnableRelayService, "the node is the relay itself")
	require.Equal(t, network.ReachabilityPublic, *relaying.AutoNATConfig.ForceReachability)
	require.NotNil(t, config(t, Options{PortMap: true}).NATManager)
	relays := []string{"/ip4/192.0.2.1/tcp/1/p2p/" + testPeer}
	behind := config(t, Options{Relays: relays})
	require.False(t, behind.EnableAutoRelay, "the node reserves itself")
	require.Equal(t, network.ReachabilityPrivate, *behind.AutoNATConfig.ForceReachability)
	public := config(t, Options{Relays: relays, Reachability: ReachabilityPublic})
	require.Equal(t, network.ReachabilityPublic, *public.AutoNATConfig.ForceReachability)
	require.Equal(t, network.ReachabilityPrivate,
		*config(t, Options{Reachability: ReachabilityPrivate}).AutoNATConfig.ForceReachability)
}

// Claim: node.Options.Limits
func TestWithoutLimitsTheDefaultManagersStay(t *testing.T) {
	plain, limited := config(t, Options{}), config(t, Options{Limits: &Limits{Peers: 1}})
	require.Nil(t, plain.ResourceManager)
	require.Nil(t, plain.ConnManager)
	require.NotNil(t, limited.ResourceManager)
	require.NotNil(t, limited.ConnManager)
}

func TestTheConnectionManagerTrimsToPeers(t *testing.T) {
	info := config(t, Options{Limits: &Limits{Peers: 400}}).ConnManager.(*connmgr.BasicConnMgr).GetInfo()
	require.Equal(t, 400, info.LowWater)
	require.Equal(t, 501, info.HighWater)
	require.Equal(t, trimGrace, info.GracePeriod)
}
