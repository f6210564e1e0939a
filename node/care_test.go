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

// While a relay carries a connection, the host notices within seconds that the relay is gone, and within a second that it restarted.
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
				h.Relay.Host().Network().ClosePeer(h.Alice.ID()) // the goodbye is lost, as when the process is killed
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
			require.Empty(t, c.relays, "no connection is relayed any more")
		})
	}
}

// Beside a direct connection, a relay is pinged rarely. Once the direct connection is gone, it is pinged as often as any other.
func TestASpareRelayIsPingedRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true, Delay: 20 * time.Millisecond})
		c := newCare(h.Alice)
		t.Cleanup(c.close)
		relay := h.Relay.Host().ID()
		require.NoError(t, h.Alice.Connect(t.Context(), peer.AddrInfo{ID: h.Bob.ID()}))
		require.Equal(t, carePing, c.interval(relay))
		peerlanetest.OpenDirect(t, h.Alice, h.Bob)
		require.Equal(t, careSpare, c.interval(relay))
		time.Sleep(careSpare + careSpare/2) // halfway through the next interval
		peerlanetest.CloseDirect(t, h.Alice, h.Bob)
		require.Equal(t, carePing, c.interval(relay))
		began := time.Now()
		h.Vanish(true)
		for h.Alice.Network().Connectedness(relay) == network.Connected {
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, time.Since(began), careMissing*(carePing+careAnswer)+100*time.Millisecond)
	})
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
