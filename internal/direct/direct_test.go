package direct

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A slowGater takes its time with each address, as a machine without a free processor does.
type slowGater struct{ time.Duration }

func (g slowGater) InterceptPeerDial(peer.ID) bool { return true }
func (g slowGater) InterceptAddrDial(peer.ID, ma.Multiaddr) bool {
	time.Sleep(g.Duration)
	return true
}
func (g slowGater) InterceptAccept(network.ConnMultiaddrs) bool { return true }
func (g slowGater) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}
func (g slowGater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// Without Settle, libp2p panics: the host is closed between two looks at its transports.
func TestAHostIsClosedAfterDialsThatWereGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 200 * time.Millisecond
		h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.ConnectionGater(slowGater{slow}), libp2p.DisableMetrics())
		require.NoError(t, err)
		began := time.Now()
		for i := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*time.Millisecond)
			err := Connect(ctx, h, peer.AddrInfo{ID: "peer", Addrs: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1")}})
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		Settle(h)
		require.Equal(t, settled+3*time.Millisecond, time.Since(began), "since the last dial began")
		require.NoError(t, h.Close())
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Empty(t, givenUp)
		require.Empty(t, changed)
	})
}

// A dial that was not given up, or long ago, holds up nobody.
func TestSettleDoesNotWaitForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
		require.NoError(t, err)
		require.Error(t, Connect(t.Context(), h, peer.AddrInfo{ID: "peer"}))
		giveUp(h.Network(), 0)
		began := time.Now()
		Settle(h)
		require.Zero(t, time.Since(began))
		require.NoError(t, h.Close())
	})
}
