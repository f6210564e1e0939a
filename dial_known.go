package peerlane

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/internal/direct"
)

// addrs returns the addresses at which the peer can be dialed: those in the peerstore, and those at which it has been reached before.
func (d *Dialer) addrs(pid peer.ID) []ma.Multiaddr {
	all := d.Host.Peerstore().Addrs(pid)
	for _, a := range bookOf(d.Host).addrs(pid) {
		if !slices.ContainsFunc(all, a.Equal) {
			all = append(all, a)
		}
	}
	return all
}

// dial makes libp2p dial the peer, unless there is a connection that ctx allows.
func (d *Dialer) dial(ctx context.Context, pid peer.ID) error {
	if first, others := d.headStart(pid); len(first) > 0 {
		return d.dialFirst(ctx, ctx, pid, first, others)
	}
	if relays := d.strangeRelays(pid); len(relays) > 1 {
		return d.dialRelays(ctx, pid, relays)
	}
	return d.connectTo(ctx, pid)
}

// dialDirect makes libp2p dial the peer's direct addresses, unless there is a direct connection.
func (d *Dialer) dialDirect(ctx context.Context, pid peer.ID) error {
	forced := network.WithForceDirectDial(ctx, "peerlane")
	first, others := d.headStart(pid)
	if len(d.paths(pid)) == 0 && hasAddr(first, isDirect) { // a forced dial ignores the backoff, and there is nothing to force
		return d.dialFirst(ctx, forced, pid, first, others)
	}
	return d.connectTo(forced, pid)
}

// connectTo dials the peer with the addresses in the book as well, because libp2p forgets them: see addrBook.
func (d *Dialer) connectTo(ctx context.Context, pid peer.ID) error {
	err := d.connectHost(ctx, peer.AddrInfo{ID: pid, Addrs: bookOf(d.Host).addrs(pid)})
	if isOvertaken(err) && ctx.Err() == nil {
		d.clearBackoff(pid)
		return d.connectHost(ctx, peer.AddrInfo{ID: pid})
	}
	return err
}

// connectHost is the host's Connect. If ctx forces a direct connection, the host can be closed after direct.Settle.
func (d *Dialer) connectHost(ctx context.Context, to peer.AddrInfo) (err error) {
	defer trailOf(ctx).watch(d.Host.Network(), to.ID)(&err)
	if forced, _ := network.GetForceDirectDial(ctx); forced {
		return direct.Connect(ctx, d.Host, to)
	}
	return d.Host.Connect(ctx, to)
}

// headStart returns the addresses at which the peer has been reached, and the others, if the former need a head start. libp2p ranks
// addresses by transport and port and dials eight of a peer at a time, so an address that works may wait for the timeout of eight that do
// not. If the peer has no more than eight addresses, or none at which it was reached, headStart returns none. If the peer has been reached
// directly, relays count as others. Beside a relay to avoid, those that are left get the head start.
func (d *Dialer) headStart(pid peer.ID) (first, others []ma.Multiaddr) {
	if d.avoid != "" {
		return d.otherRelays(pid)
	}
	known := bookOf(d.Host).addrs(pid)
	if hasAddr(known, isDirect) {
		known = slices.DeleteFunc(known, isCircuit)
	}
	if len(known) == 0 || d.backoff() == nil {
		return nil, nil
	}
	all := d.addrs(pid)
	if len(all) <= swarm.DefaultPerPeerRateLimit {
		return nil, nil
	}
	return known, slices.DeleteFunc(all, func(a ma.Multiaddr) bool { return slices.ContainsFunc(known, a.Equal) })
}

// headStartTime is how long the addresses that worked are dialed alone. It is the time that libp2p itself leaves between two addresses.
const headStartTime = swarm.PublicTCPDelay

// dialFirst dials addresses alone. After headStartTime, or when they fail, it dials all of them under ctx, without giving up the first
// ones. libp2p cannot be told which addresses to dial, so the others are on its backoff list for that time. This affects other dials to the
// same peer as well.
func (d *Dialer) dialFirst(firstCtx, ctx context.Context, pid peer.ID, first, others []ma.Multiaddr) error {
	for _, a := range others {
		d.backoff().AddBackoff(pid, a)
	}
	firstCtx, cancel := context.WithCancel(firstCtx)
	done := make(chan error, 1)
	go func() { done <- d.connectHost(firstCtx, peer.AddrInfo{ID: pid, Addrs: first}) }()
	timer := time.NewTimer(headStartTime)
	defer timer.Stop()
	var err error
	select {
	case err = <-done:
		cancel()
		d.clearBackoff(pid)
		if err == nil {
			return nil
		}
		return d.connectTo(ctx, pid)
	case <-timer.C:
	}
	d.clearBackoff(pid)
	err = d.connectTo(ctx, pid)
	cancel()
	//nolint:errcheck // the overtaken dial: the other one's error counts
	<-done
	return err
}

// backoff returns the host's list of addresses that are not dialed for now, or nil if it has none.
func (d *Dialer) backoff() *swarm.DialBackoff {
	if sw, ok := d.Host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
		return sw.Backoff()
	}
	return nil
}

// clearBackoff makes libp2p dial the peer's addresses at once, however often dialing them has failed before.
func (d *Dialer) clearBackoff(pid peer.ID) {
	if b := d.backoff(); b != nil {
		b.Clear(pid)
	}
}
