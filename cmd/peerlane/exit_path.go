package main

import (
	"errors"
	"slices"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/advice"
	"github.com/peerlane/peerlane/node/dht"
	"github.com/peerlane/peerlane/session"
)

// What helps if a peer, or a relay, cannot be reached, beside what package advice has.
const (
	hintNoServer = "check the address in --dht, that peerlane relay --dht runs there, and this machine's way to it; --dht=none does without a DHT"
	hintNoRelay  = "check that the relay runs, the address in --relay, and that it serves relayed connections"
	hintNoPlace  = "the relay refuses: raise its --reservations, or --allow this peer there, or use another --relay"
)

// say returns what helps at the command line.
func say(r peerlane.Reason) string { return advice.Of(r).AtCommand() }

// pathReasons are those of peers that were not reached.
var pathReasons = []peerlane.Reason{advice.Gated, advice.NoGoodAddress, advice.NoSocket, advice.NotAtRelay, advice.RelayFull, advice.RelayDenies,
	advice.RelayGone, advice.RelaySpent, advice.OtherPeer, advice.Self, advice.NotListening, advice.StaleAddress, advice.OtherNetwork, advice.NoAnswerUDP}

// pathHint returns what helps if nothing was sent because the peer was not reached, as far as the addresses that were dialed tell.
func pathHint(err error) (hint string, ok bool) {
	if e, isTyped := errors.AsType[*peerlane.Error](err); isTyped && e.Outcome != session.NotSent {
		return "", false
	}
	if errors.Is(err, dht.ErrNoServer) {
		return hintNoServer, true
	}
	reason := peerlane.ReasonOf(err)
	if slices.Contains(pathReasons, reason) || reason == advice.NoAnswer && errors.Is(err, peerlane.ErrUnreachable) {
		return say(reason), true
	}
	return "", false
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

// isMismatch reports whether somebody else is at the address.
func isMismatch(err error) bool { return peerlane.ReasonOf(err) == advice.OtherPeer }

// mayRetry reports whether --retry may help: the peer may start, or get another address, meanwhile.
func mayRetry(err error) bool {
	return errors.Is(err, peerlane.ErrUnreachable) && !isMismatch(err) && !errors.Is(err, swarm.ErrNoGoodAddresses)
}
