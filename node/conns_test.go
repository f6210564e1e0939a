package node

import (
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/test"
	"github.com/stretchr/testify/require"
)

// connsManager returns the resource manager of opts.
func connsManager(t *testing.T, opts Options) network.ResourceManager {
	t.Helper()
	cfg := config(t, opts)
	if opts.Limits == nil && cfg.ResourceManager != nil {
		t.Cleanup(func() { require.NoError(t, cfg.ResourceManager.Close()) })
	}
	return cfg.ResourceManager
}

// Claim: node.Options.ConnsPerPeer
func TestConnsPerPeerRaisesALimitAndLeavesTheOthers(t *testing.T) {
	const tag, more = protocol.ID("/http/1.1"), 5000
	for name, limits := range map[string]*Limits{"libp2p's": nil, "of Limits": {Peers: 10, StreamsPerPeer: 64}} {
		m := connsManager(t, Options{Limits: limits, ConnsPerPeer: map[protocol.ID]int{tag: more}})
		one, other := test.RandPeerIDFatal(t), test.RandPeerIDFatal(t)
		require.NoError(t, openStreams(m, one, tag, more), name)
		require.ErrorIs(t, openStreams(m, one, tag, 1), network.ErrResourceLimitExceeded, name)
		require.NoError(t, openStreams(m, one, "/another", 60), name) // a refused stream remains
		require.ErrorIs(t, openStreams(m, one, "/another", 100), network.ErrResourceLimitExceeded, name)
		require.NoError(t, openStreams(m, other, tag, 64), name)
	}
}

func TestConnsPerPeerMayBeLessThanTheDefault(t *testing.T) {
	const tag = protocol.ID("/rare/1")
	m, one := connsManager(t, Options{ConnsPerPeer: map[protocol.ID]int{tag: 2}}), test.RandPeerIDFatal(t)
	require.NoError(t, openStreams(m, one, tag, 2))
	require.ErrorIs(t, openStreams(m, one, tag, 1), network.ErrResourceLimitExceeded)
}

func TestConnsPerPeerNamesTheInvalidTag(t *testing.T) {
	for want, conns := range map[string]map[protocol.ID]int{
		"empty tag":       {"": 1},
		`0 for "/a"`:      {"/a": 0},
		`-1 for "/a"`:     {"/a": -1},
		`1000001 for "/a`: {"/a": maxConnsPerPeer + 1},
		"in all":          {"/a": maxConnsPerPeer, "/b": 1},
	} {
		err := Options{ConnsPerPeer: conns}.validate()
		require.ErrorIs(t, err, ErrInvalid, want)
		require.ErrorContains(t, err, want)
	}
	require.NoError(t, Options{ConnsPerPeer: map[protocol.ID]int{"/a": maxConnsPerPeer - 1, "/b": 1}}.validate())
	cfg := config(t, Options{ConnsPerPeer: map[protocol.ID]int{"/a": maxConnsPerPeer}})
	require.NotNil(t, cfg.ResourceManager)
	require.NoError(t, cfg.ResourceManager.Close())
}

func TestAHostWithConnsPerPeerStarts(t *testing.T) {
	n, err := New(t.Context(), &Options{Loopback: true, ConnsPerPeer: map[protocol.ID]int{"/http/1.1": 200},
		Libp2p: []libp2p.Option{libp2p.DisableMetrics()}})
	require.NoError(t, err)
	require.NoError(t, n.Close())
}
