package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/transfer"
)

// receiveCmd is peerlane receive.
type receiveCmd struct {
	Dir string `arg:"" optional:"" default:"." help:"Folder to put it in, made if there is none; without it, the current one."`
	hostFlags
	placeFlags
	Allow []string `placeholder:"PEER" help:"Take what this peer pushes, without asking; may be repeated. Others are refused. Without it, the user is asked on the terminal."`
	Once  bool     `help:"End after one transfer that has arrived."`

	Discard bool `help:"Receive nothing: delete the data of unfinished transfers in the folder, pushed or fetched."`
}

// Run receives until ctx ends, or with --once until something has arrived.
func (c *receiveCmd) Run(ctx context.Context, std stdio) (err error) {
	allow, err := parseAllow(c.Allow)
	if err != nil {
		return err
	}
	if c.Discard {
		return discardAll(std, newDisplay(std.err), c.Dir)
	}
	secret, err := c.load()
	if err != nil {
		return err
	}
	canAsk := isTerminal(std.in) && isTerminal(std.err)
	if allow == nil && !canAsk {
		return fmt.Errorf("%w: there is no terminal to ask on: name who may push with --allow PEER", errUsage)
	}
	if err := os.MkdirAll(c.Dir, 0o777); err != nil {
		return err
	}
	d := newDisplay(std.err)
	w := newWatcher(d, "from")
	cfg := transfer.ServiceConfig{Options: c.options(d).Options, OnBegun: w.begun}
	decider := newDecider(transfer.Destination{Dir: c.Dir, ReceiveOptions: c.options(d)}, d)
	if allow == nil {
		decider.asker = newAsker(std.in, d)
	}
	cfg.Admit, cfg.Receive = decider.admit, decider.decide
	e, err := c.open(ctx, d, secret, allow, &cfg, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	m, err := c.monitor(std, "receive", servedBy(e.server))
	if err != nil {
		return err
	}
	defer m.close()
	defer w.wait()
	defer func() { err = errors.Join(err, e.service.Close()) }()
	warnUnusable(std.err, e.addrs(), c.Listen)
	c.announce(std, e)
	if err := std.failed(); err != nil {
		return err
	}
	d.nameOthers(c.Dir)
	return c.serve(ctx, std, e, w)
}

// parseAllow returns who is on the list, nil if there is none.
func parseAllow(list []string) (allow []peer.ID, err error) {
	for _, s := range list {
		info, err := node.ParsePeer(s)
		if err != nil {
			return nil, fmt.Errorf("--allow: %w", err)
		}
		allow = append(allow, info.ID)
	}
	return allow, nil
}

// announce prints where to push to. The last line is "ready".
func (c *receiveCmd) announce(std stdio, e *endpoint) {
	fmt.Fprintf(std.out, "peer     %s\n", e.node.ID())
	if c.Key == "" {
		fmt.Fprintln(std.out, "key      none: the Peer ID is new each time; --key FILE keeps it")
	}
	addrs, paste := whereabouts(e.node, e.circuits)
	for _, a := range addrs {
		fmt.Fprintf(std.out, "address  %s\n", a)
	}
	fmt.Fprintf(std.out, "into     %s\n", c.Dir)
	if paste != "" {
		fmt.Fprintf(std.out, "push it  %s\n", c.pushLine(paste))
	}
	if isNearby(e.node.Host().Addrs()) {
		fmt.Fprintf(std.out, "nearby   %s\n", c.pushLine(e.node.ID().String()))
	}
	fmt.Fprintln(std.out, "ready")
}

// pushLine returns a command line that pushes to this receiver.
func (c *receiveCmd) pushLine(addr string) string {
	line := "peerlane push " + addr + " PATH..."
	if c.isGiven() {
		line += " --psk-file FILE"
	}
	if len(c.Allow) > 0 {
		line += " --key FILE"
	}
	return line
}

// serve reports the transfers.
func (c *receiveCmd) serve(ctx context.Context, std stdio, e *endpoint, w *watcher) error {
	report := func(o outcome) (got bool) {
		w.display.receives(o.ID, false)
		defer w.display.nameOthers(c.Dir, o.ID)
		if o.err != nil && !isPartly(o.Result, o.err) {
			w.sayNotYet(o)
			return false
		}
		if gotNothing(o.Progress) {
			fmt.Fprintf(std.out, "there    %q: %s%s, from %s\n", safe(o.Name), thereText(o.Result, "in "+c.Dir), missingText(o.Result, " by the sender"), o.peer)
		} else {
			fmt.Fprintf(std.out, "got      %q: %s, from %s, in %s\n", safe(o.Name), gotText(o.Result), o.peer, c.Dir)
		}
		w.display.sayLeftOut(o.Result)
		return o.err == nil
	}
	for {
		o, ok := w.next(ctx)
		if !ok {
			return errors.Join(e.service.Close(), w.rest(report, !c.Once))
		}
		got := report(o)
		if err := std.failed(); err != nil {
			return err
		}
		if got && c.Once {
			return nil
		}
	}
}
