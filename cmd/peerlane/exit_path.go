package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/node/dht"
	"github.com/peerlane/peerlane/session"
)

// What helps if a peer, or a relay, cannot be reached.
const (
	hintUnreachable = "check that the peer runs, that the address is what it prints now, and firewalls between"
	hintNoAnswer    = "no answer, and nothing was sent: check that the peer runs, the address, and firewalls between; if both sides are behind NATs, it needs --relay, or both need --dht; peerlane doctor tells more"
	hintNoServer    = "check the address in --dht, that peerlane relay --dht runs there, and this machine's way to it; --dht=none does without a DHT"
	hintLocal       = "--local keeps to the networks of this machine, and the peer was not reached in them: leave it out to use others too"
	hintNoGood      = "no address of the peer can be dialed from here: IPv6 link-local addresses (fe80:...) never can; give another one that it prints, or, in the local network, its Peer ID alone"
	hintSocket      = "nothing answers at this socket: check that the peer runs, and that the path is what it prints now"
	hintMismatch    = "another peer is at that address: if it lost its --key FILE, its new Peer ID must be used"
	hintNotAtRelay  = "the relay answers, and the peer is not connected to it: check that the peer runs, with this relay as its --relay"
	hintRelayFull   = "the relay has no room for another connection: try again later, or raise its --circuits"
	hintRelayDenies = "the relay lets this peer reach nobody, or not that one: ask who runs it, or start the peer with another --relay"
	hintRelayGone   = "the relay in the address does not relay now: check that it runs, or start the peer with another --relay, or both sides with --dht"
	hintOtherLAN    = "all its addresses are of a local network: in another one, it needs --relay, or both sides need --dht; in this one, check that it runs, and firewalls"
	hintUDP         = "no answer over UDP: a firewall may drop it, here or there: give a TCP address of the peer too; peerlane doctor says whether UDP passes here"
	hintNoRelay     = "check that the relay runs, the address in --relay, and that it serves relayed connections"
	hintNoPlace     = "the relay refuses: raise its --reservations, or --allow this peer there, or use another --relay"
)

// pathHint returns what helps if nothing was sent because the peer was not reached, as far as the addresses that were dialed tell.
func pathHint(err error) (hint string, ok bool) {
	if e, isTyped := errors.AsType[*peerlane.Error](err); isTyped && e.Outcome != session.NotSent {
		return "", false
	}
	switch {
	case errors.Is(err, dht.ErrNoServer):
		return hintNoServer, true
	case errors.Is(err, swarm.ErrGaterDisallowedConnection): // of localNetwork
		return hintLocal, true
	case errors.Is(err, swarm.ErrNoGoodAddresses):
		return hintNoGood, true
	}
	dial, ok := errors.AsType[*swarm.DialError](err)
	switch {
	case errors.Is(err, peerlane.ErrRelayOnly):
		return "", false
	case ok && len(dial.DialErrors) > 0:
		return dialHint(dial.DialErrors)
	}
	return hintMismatch, isMismatch(err)
}

// dialHint returns what helps if these dials of a peer have failed.
func dialHint(all []swarm.TransportError) (hint string, ok bool) {
	each := func(is func(swarm.TransportError) bool) bool {
		return !slices.ContainsFunc(all, func(e swarm.TransportError) bool { return !is(e) })
	}
	relay := func(status ...pb.Status) bool {
		return slices.ContainsFunc(all, func(e swarm.TransportError) bool { return answers(e, status...) })
	}
	switch {
	case each(func(e swarm.TransportError) bool { return isSocket(e.Address) }):
		return hintSocket, true
	case relay(pb.Status_NO_RESERVATION, pb.Status_CONNECTION_FAILED):
		return hintNotAtRelay, true
	case relay(pb.Status_RESOURCE_LIMIT_EXCEEDED):
		return hintRelayFull, true
	case relay(pb.Status_PERMISSION_DENIED):
		return hintRelayDenies, true
	case slices.ContainsFunc(all, func(e swarm.TransportError) bool { return isMismatch(e.Cause) }):
		return hintMismatch, true
	case each(func(e swarm.TransportError) bool { return isRelayed(e.Address) || reachOf(e.Address) == reachesLAN }):
		if slices.ContainsFunc(all, func(e swarm.TransportError) bool { return isRelayed(e.Address) }) {
			return hintRelayGone, true
		}
		return hintOtherLAN, true
	case each(func(e swarm.TransportError) bool { return isUDP(e.Address) || reachOf(e.Address) == reachesLAN }):
		return hintUDP, true
	}
	return "", false
}

// answers reports whether a relay refused a connection with one of these answers. libp2p has them as text alone.
func answers(e swarm.TransportError, status ...pb.Status) bool {
	return isRelayed(e.Address) && e.Cause != nil && slices.ContainsFunc(status, func(s pb.Status) bool {
		return strings.Contains(e.Cause.Error(), s.String())
	})
}

// reserveHint returns what helps if --relay does not let this host be reached.
func reserveHint(err error) string {
	if e, ok := errors.AsType[circuit.ReservationError](err); ok {
		switch e.Status {
		case pb.Status_RESERVATION_REFUSED, pb.Status_RESOURCE_LIMIT_EXCEEDED, pb.Status_PERMISSION_DENIED:
			return hintNoPlace
		}
	}
	return hintNoRelay
}

func isRelayed(a ma.Multiaddr) bool { return viaRelay(peer.AddrInfo{Addrs: []ma.Multiaddr{a}}) }

func isUDP(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_UDP)
	return err == nil && !manet.IsIPLoopback(a) && !isRelayed(a)
}

// isMismatch reports whether somebody else is at the address.
func isMismatch(err error) bool {
	_, ok := errors.AsType[sec.ErrPeerIDMismatch](err)
	return ok
}

// mayRetry reports whether --retry may help: the peer may start, or get another address, meanwhile.
func mayRetry(err error) bool {
	return errors.Is(err, peerlane.ErrUnreachable) && !isMismatch(err) && !errors.Is(err, swarm.ErrNoGoodAddresses)
}
