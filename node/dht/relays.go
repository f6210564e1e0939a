package dht

import (
	"context"
	"crypto/rand"
	"fmt"
	random "math/rand/v2"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"

	"github.com/peerlane/peerlane/internal/direct"
)

// Limits of a search for relays.
const (
	maxCandidates = 128 // servers to check for a relay
	atATime       = 8
	walks         = 4 // lookups of random keys to find more servers
)

// FindRelays returns up to n randomly chosen servers of the DHT that relay connections (circuit relay v2). They may still refuse a
// reservation. It returns fewer if it finds no more, and an error if it finds none.
func (d *Discovery) FindRelays(ctx context.Context, n int) ([]peer.AddrInfo, error) {
	if err := d.entered(ctx); err != nil {
		return nil, err
	}
	seen := map[peer.ID]bool{d.host.ID(): true}
	found := d.relaysAmong(ctx, d.dht.RoutingTable().ListPeers(), seen, n)
	for walk := 0; walk < walks && len(found) < n && len(seen) < maxCandidates; walk++ {
		more, err := d.dht.GetClosestPeers(ctx, rand.Text())
		if err != nil {
			break // keep the relays found so far
		}
		found = append(found, d.relaysAmong(ctx, more, seen, n-len(found))...)
	}
	if len(found) == 0 {
		return nil, notFound{fmt.Errorf("none of %d servers is a relay", len(seen)-1)}
	}
	return found, nil
}

// relaysAmong returns up to n relays among servers, and adds the checked servers to seen.
func (d *Discovery) relaysAmong(ctx context.Context, all []peer.ID, seen map[peer.ID]bool, n int) (found []peer.AddrInfo) {
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	defer asking.Wait()
	places := make(chan struct{}, atATime)
	for _, id := range all {
		if seen[id] || len(seen) >= maxCandidates {
			continue
		}
		seen[id] = true
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		asking.Go(func() {
			defer func() { <-places }()
			if !d.relays(ctx, id) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if found = append(found, d.host.Peerstore().PeerInfo(id)); len(found) == n {
				cancel()
			}
		})
	}
	asking.Wait()
	return found[:min(len(found), n)]
}

// relays reports whether a server is a relay.
func (d *Discovery) relays(ctx context.Context, id peer.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, enterTime)
	defer cancel()
	if direct.Connect(ctx, d.host, peer.AddrInfo{ID: id}) != nil { // Connect returns after the peer is identified
		return false
	}
	known, err := d.host.Peerstore().SupportsProtocols(id, proto.ProtoIDv2Hop)
	return err == nil && len(known) > 0
}
