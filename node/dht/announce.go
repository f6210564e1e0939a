package dht

import (
	"context"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// keyOf returns the key under which a host announces itself. Without announcements, the DHT finds only its servers, and recent clients of
// them.
func keyOf(id peer.ID) cid.Cid {
	hash, err := multihash.Sum([]byte("/peerlane/peer/1/"+string(id)), multihash.SHA2_256, -1)
	if err != nil {
		panic("BUG: dht: " + err.Error()) // the hash function is known
	}
	return cid.NewCidV1(cid.Raw, hash)
}

// announce announces the host. It ends when d is closed.
func (d *Discovery) announce() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.events.Out():
			timer.Reset(announceAfter)
		case <-timer.C:
			if d.announceOnce() {
				timer.Reset(announceEvery)
			} else {
				timer.Reset(announceAgain)
			}
		}
	}
}

// announceOnce announces the host. It returns true on success, and if the host has no address to announce.
func (d *Discovery) announceOnce() bool {
	ctx, cancel := context.WithTimeout(d.ctx, announceTime)
	defer cancel()
	if d.entered(ctx) != nil {
		return false
	}
	if len(d.dht.FilteredAddrs()) == 0 {
		return true
	}
	return d.dht.Provide(ctx, keyOf(d.host.ID()), true) == nil
}
