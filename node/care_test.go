package node

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// A relay that is gone is noticed within seconds while it carries a connection; one that is restarted, within one.
func TestARelayThatCarriesConnectionsIsWatched(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true, Delay: 20 * time.Millisecond})
			c := newCare(h.Alice)
			t.Cleanup(c.close)
			relay := h.Relay.Host().ID()
			require.NoError(t, h.Alice.Connect(t.Context(), peer.AddrInfo{ID: h.Bob.ID()}))
			time.Sleep(time.Minute)
			require.Equal(t, network.Connected, h.Alice.Network().Connectedness(relay), "it answers")
			require.Len(t, c.relays, 1)
			began := time.Now()
			if h.Vanish(true); restarted {
				time.Sleep(500 * time.Millisecond)
				h.Relay.Host().Network().ClosePeer(h.Alice.ID()) // whose word is lost, as when its process is killed
				h.Vanish(false)
			}
			for h.Alice.Network().Connectedness(relay) == network.Connected {
				time.Sleep(10 * time.Millisecond)
			}
			if took := time.Since(began); restarted {
				require.LessOrEqual(t, took, 500*time.Millisecond+carePing+100*time.Millisecond)
			} else {
				require.LessOrEqual(t, took, carePing+careMissing*(carePing+careAnswer))
			}
			time.Sleep(2 * time.Minute)
			c.mu.Lock()
			defer c.mu.Unlock()
			require.Empty(t, c.relays, "nothing is relayed any more")
		})
	}
}

func TestAClosedCareWatchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true})
		c := newCare(h.Alice)
		require.NoError(t, h.Alice.Connect(t.Context(), peer.AddrInfo{ID: h.Bob.ID()}))
		c.close()
		c.close()
		c.begin(h.Relay.Host().ID())
		synctest.Wait()
	})
}
