package peerlane

import (
	"testing"
	"testing/synctest"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// A carrier is left sooner where there is another path: a relay is none for a client that takes none.
func TestARelayIsAnotherPathIfTheClientTakesRelays(t *testing.T) {
	for policy, want := range map[PathPolicy]bool{DirectOnly: false, PreferDirect: true} {
		synctest.Test(t, func(t *testing.T) {
			h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true})
			server, err := NewServer(h.Bob, &ServerConfig{AdmitAll: true})
			require.NoError(t, err)
			require.NoError(t, server.Listen(testTag))
			ctx := network.WithAllowLimitedConn(t.Context(), "test")
			require.NoError(t, h.Alice.Connect(ctx, peer.AddrInfo{ID: h.Bob.ID()}))
			peerlanetest.OpenDirect(t, h.Alice, h.Bob)
			c, err := NewClient(h.Alice, &ClientConfig{AdmitAll: true, Path: policy})
			require.NoError(t, err)
			s, err := c.Connect(t.Context(), h.Bob.ID(), testTag)
			require.NoError(t, err)
			require.False(t, PathOf(s).Relayed)
			require.Equal(t, want, c.pool.hasOtherPath(s, poolKey{peer: h.Bob.ID(), tag: testTag}), policy)
			require.NoError(t, c.Close())
			require.NoError(t, server.Stop())
		})
	}
}
