package testnet

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
)

// await waits until ok, which is asked whenever h gets or loses a connection.
func await(t testing.TB, h host.Host, what string, ok func() bool) {
	t.Helper()
	changed := make(chan struct{}, 1)
	poke := func(network.Network, network.Conn) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	n := &network.NotifyBundle{ConnectedF: poke, DisconnectedF: poke}
	h.Network().Notify(n)
	defer h.Network().StopNotify(n)
	timeout := time.NewTimer(setupTime)
	defer timeout.Stop()
	for !ok() {
		select {
		case <-changed:
		case <-timeout.C:
			t.Fatalf("testnet: waited %v for: %s", setupTime, what)
		}
	}
}
