package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/node"
)

// relayWait bounds the wait for the relays' reservations. A test shortens it.
var relayWait = 20 * time.Second

// errNoRelay: a relay does not let this host be reached.
var errNoRelay = errors.New("--relay")

// reserve waits until the node can be reached through one of its relays, if it has any, and returns its addresses there. It says what it
// waits for. If relays were found, and not given, it warns when none of them serves.
func reserve(ctx context.Context, n *node.Node, found bool, say func(string)) (circuits []ma.Multiaddr, err error) {
	if text := awaited(n.Reservations(), found); text != "" {
		say(text)
	}
	limited, cancel := context.WithTimeout(ctx, relayWait)
	defer cancel()
	all, err := n.AwaitReservation(limited)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && found:
		say("warning  no relay was found in the DHT: others reach this machine directly, or not at all; give a --relay")
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNoRelay, err)
	}
	for _, one := range all {
		circuits = append(circuits, one.Addrs...)
	}
	return circuits, nil
}

// awaited returns a line about the relays that the host waits for, or "" if it need not wait.
func awaited(all []node.Reservation, found bool) string {
	var ids []string
	for _, one := range all {
		if one.Addrs != nil {
			return ""
		}
		ids = append(ids, one.Relay.String())
	}
	switch {
	case ids == nil:
		return ""
	case found:
		return "relay    looking for one in the DHT"
	}
	return "relay    waiting for " + strings.Join(ids, " or ")
}

// warnUnusable warns on a writer if no other machine can use any of the addresses. Loopback is meant if it was asked for.
func warnUnusable(w io.Writer, addrs []ma.Multiaddr, listen []string) {
	usable := slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool {
		return !manet.IsIPLoopback(a) && !manet.IsIP6LinkLocal(a)
	})
	if !usable && len(listen) == 0 {
		fmt.Fprintln(w, "warning  this machine has no address that others can use: connect it to a network, or give a --relay")
	}
}

// isNearby reports whether others in the local network find a host with these addresses by its Peer ID alone: one of them is there.
func isNearby(addrs []ma.Multiaddr) bool {
	return slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool {
		return !manet.IsIPLoopback(a) && !manet.IsIP6LinkLocal(a) && isOnLAN(a) && !isSocket(a)
	})
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
