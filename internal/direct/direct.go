// Package direct connects libp2p hosts directly, though they may be connected over a relay.
package direct

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Connect connects h to a peer directly, at its addresses in the peerstore and in to, unless it is connected directly. It returns when the peer
// is identified, or the error of the dial. Who closes h must call Settle before.
func Connect(ctx context.Context, h host.Host, to peer.AddrInfo) error {
	began := time.Now()
	err := h.Connect(network.WithForceDirectDial(ctx, "peerlane"), to)
	if ctx.Err() != nil {
		giveUp(h.Network(), settled-time.Since(began))
	}
	return err
}

// settled is how long after its start a dial that was given up may still choose addresses. It takes microseconds, on a machine that has a
// processor for it.
const settled = 250 * time.Millisecond

var (
	mu      sync.Mutex
	givenUp = make(map[network.Network]int) // dials that may still choose addresses
	changed = make(map[network.Network]chan struct{})
)

// giveUp counts a dial for so long.
func giveUp(n network.Network, left time.Duration) {
	if left <= 0 {
		return
	}
	mu.Lock()
	defer mu.Unlock()
	if givenUp[n]++; givenUp[n] == 1 {
		changed[n] = make(chan struct{})
	}
	time.AfterFunc(left, func() {
		mu.Lock()
		defer mu.Unlock()
		if givenUp[n]--; givenUp[n] > 0 {
			return
		}
		close(changed[n])
		delete(givenUp, n)
		delete(changed, n)
	})
}

// Settle waits until h can be closed, at most 250 ms after the last dial began that Connect has given up. libp2p goes on with such a dial
// in a goroutine of its own, which panics if the host loses its transports while it chooses addresses (swarm.nonProxyAddr).
func Settle(h host.Host) {
	mu.Lock()
	wait := changed[h.Network()]
	mu.Unlock()
	if wait != nil {
		<-wait
	}
}
