package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/transfer"
)

// pushCmd is peerlane push.
type pushCmd struct {
	Peer string `arg:"" help:"Peer ID, if the receiver is in the local network or --dht finds it; or an address that peerlane receive prints, or several with commas between."`
	treeFlags
	dialFlags
	Lanes int  `default:"0" help:"Data lanes at most, 1 to 16; 0 for 4."`
	Hash  bool `help:"Read all files first: the receiver then knows what to expect."`
}

// Run pushes.
func (c *pushCmd) Run(ctx context.Context, std stdio) (err error) {
	info, err := node.ParsePeer(c.Peer)
	if err != nil {
		return err
	}
	if err := c.checkLocal(info); err != nil {
		return err
	}
	secret, err := c.load()
	if err != nil {
		return err
	}
	d := newDisplay(std.err)
	tree, err := c.walk(ctx, d)
	if err != nil {
		return c.unlessMeant(d, err)
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	if c.Hash {
		if err := hashTree(ctx, d, tree); err != nil {
			return err
		}
	}
	cl, dialers, err := c.dialPeers(ctx, d, c.Key, secret, []peer.AddrInfo{info})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.close()) }()
	fmt.Fprintf(std.out, "pushing  %q: %s, %s, as %s\n", tree.Name(), filesText(tree.Files()), bytesText(float64(tree.Bytes())), cl.node.ID())
	o := c.options(d)
	o.Lanes, o.AllowLimited = c.Lanes, c.AllowRelay
	t := transfer.Push(ctx, dialers[0], tree, &o)
	d.follow(t, "")
	d.paths.end()
	r, err := t.Wait()
	if err == nil || isPartly(r, err) {
		fmt.Fprintln(std.out, sentLine(r, info.ID.String()))
	}
	if err != nil {
		return outcomeOf(r, err)
	}
	return c.leftOut(tree)
}
