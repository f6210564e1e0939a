package peerlane

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxPrepared  = 3                // relays of a peer that are prepared at a time
	strangeEvery = 30 * time.Second // between two preparations, for one carrier, of relays that the host has never been connected to
)

// prepareRelays makes connections, in the background, to other relays of a peer than the one that is suspected, if one is, for a session that may
// soon have to go on through one of them. Those that give no sign of life while the wait lasts are made anew. Relays that the host has never been
// connected to count only if strange is true: the peer decides how often it is slow, and may have made them up.
func (p *pool) prepareRelays(pid, suspected peer.ID, wait time.Duration, strange bool) {
	relays := relaysIn(p.dialer.addrs(pid))
	delete(relays, suspected)
	n := 0
	for relay, addrs := range relays {
		if !strange && !p.dialer.isKnown(relay) {
			continue
		}
		if n++; n > maxPrepared {
			return
		}
		p.spawn(func() {
			p.dropDead(relay, wait)
			ctx, cancel := context.WithTimeout(p.ctx, p.cfg.ConnectTimeout)
			defer cancel()
			_ = p.host.Connect(ctx, peer.AddrInfo{ID: relay, Addrs: addrs}) // the dial through it tells
		})
	}
}
