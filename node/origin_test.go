package node

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/origin"
	"github.com/peerlane/peerlane/peerlanetest"
)

// A host knows where it has the addresses of its peers from, for those who ask why one is not reached.
func TestANodeKnowsWhereAddressesAreFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: time.Millisecond})
		b := net.Host("11.0.0.2:4001")
		file := filepath.Join(t.TempDir(), "addrs")
		for _, want := range [][]string{{"given", "node"}, {"address file", "node"}} { // a discovery has the name of its package
			a, err := New(t.Context(), &Options{ListenAddrs: []string{addrOfA}, Libp2p: net.Options("11.0.0.1"), AddrFile: file,
				Discovery: []Discovery{answering(0, addrOfB, nowhere)}})
			require.NoError(t, err)
			known := origin.Of(a.Host().Peerstore(), a.ID())
			if want[0] == "given" {
				a.Remember(peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{ma.StringCast(addrOfB)}})
			}
			_, err = a.finder.FindPeer(t.Context(), b.ID())
			require.NoError(t, err)
			require.ElementsMatch(t, want, known.From(b.ID(), ma.StringCast(addrOfB)))
			require.Equal(t, []string{"node"}, known.From(b.ID(), ma.StringCast(nowhere)))
			require.NoError(t, a.Host().Connect(t.Context(), peer.AddrInfo{ID: b.ID()}))
			require.NoError(t, a.Close())
		}
	})
}
