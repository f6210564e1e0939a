package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/peerlane/peerlane/node"
)

// relayWait bounds the wait for the relays' reservations.
const relayWait = 20 * time.Second

// errNoRelay: a relay does not let this host be reached.
var errNoRelay = errors.New("--relay")

// reserve waits until the node can be reached through one of its relays, if it has any, and returns its addresses there.
func reserve(ctx context.Context, n *node.Node) (circuits []ma.Multiaddr, err error) {
	limited, cancel := context.WithTimeout(ctx, relayWait)
	defer cancel()
	all, err := n.AwaitReservation(limited)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRelay, err)
	}
	for _, one := range all {
		circuits = append(circuits, one.Addrs...)
	}
	return circuits, nil
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
