package main

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/node"
)

// idCmd is peerlane id.
type idCmd struct {
	Key string `default:"peerlane.key" placeholder:"FILE" help:"Key file (default ${default})."`
}

// Run prints the Peer ID, alone on stdout so that a script can use it.
func (c *idCmd) Run(std stdio) error {
	key, created, err := node.LoadKey(c.Key)
	if err != nil {
		return err
	}
	pid, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return err
	}
	if created {
		fmt.Fprintf(std.err, "%s: made; keep it secret, and keep it: it is this Peer ID\n", c.Key)
	}
	_, err = fmt.Fprintln(std.out, pid)
	return err
}
