package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	relay "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peerlane/peerlane/node"
)

// relayWait bounds the wait for the relays' reservations.
const relayWait = 20 * time.Second

// errNoRelay: a relay does not let this host be reached.
var errNoRelay = errors.New("--relay")

// reserve asks each relay for a reservation and returns the addresses through those that grant one. It fails if relays is not empty and
// none does. AutoRelay makes reservations too, but reports no refusal, and announces no relay with a private address.
func reserve(ctx context.Context, h host.Host, relays []string) (circuits []ma.Multiaddr, err error) {
	limited, cancel := context.WithTimeout(ctx, relayWait)
	defer cancel()
	var refused []error
	for _, s := range relays {
		info, err := node.ParsePeer(s)
		if err == nil {
			_, err = relay.Reserve(limited, h, info)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("%w: %s: %w", errNoRelay, info.ID, err))
			continue
		}
		circuit := ma.StringCast("/p2p/" + info.ID.String() + "/p2p-circuit")
		for _, a := range info.Addrs {
			circuits = append(circuits, a.Encapsulate(circuit))
		}
	}
	if len(circuits) == 0 {
		return nil, errors.Join(refused...)
	}
	return circuits, nil
}

// whereabouts returns the addresses to print for a node that can be reached through circuits, and the one to paste on another machine: a
// relayed one if there is any, as the node is then behind a NAT. There may be no address.
func whereabouts(n *node.Node, circuits []ma.Multiaddr) (addrs []string, paste string) {
	addrs = n.Addrs()
	for _, a := range circuits {
		if s := a.String() + "/p2p/" + n.ID().String(); !slices.Contains(addrs, s) {
			addrs = append(addrs, s)
		}
	}
	switch {
	case len(circuits) > 0:
		return addrs, circuits[0].String() + "/p2p/" + n.ID().String()
	case len(addrs) > 0:
		return addrs, addrs[0]
	}
	return nil, ""
}
