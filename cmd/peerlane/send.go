package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
	"github.com/peerlane/peerlane/transfer/ticket"
)

// sendCmd is peerlane send.
type sendCmd struct {
	treeFlags
	hostFlags
	Keep bool `help:"Serve any number of peers, until interrupted. Otherwise one: the first that uses the ticket."`
	Hash bool `help:"Read all files first, so that the ticket pins their content: then several peers that have the same files can send them to one, get --also."`
	QR   bool `name:"qr" help:"Show the ticket as a QR code as well."`
}

// Run prints a ticket, and serves until one peer has got all; with --keep, until ctx ends.
func (c *sendCmd) Run(ctx context.Context, std stdio) (err error) {
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
	guests := newGuests()
	e, err := c.open(ctx, d, secret, nil, &transfer.ServiceConfig{Options: c.options(d)}, guests)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	m, err := c.monitor(std, "send", servedBy(e.server))
	if err != nil {
		return err
	}
	defer m.close()
	w := newWatcher(d, "to")
	token, err := c.token(tree)
	if err != nil {
		return err
	}
	share, err := e.service.Share(tree, &transfer.ShareOptions{Token: token, Many: c.Keep, OnBegun: func(t *transfer.Transfer) {
		guests.shown(t.Snapshot().Peer)
		w.begun(t)
	}})
	if err != nil {
		return err
	}
	warnUnusable(std.err, e.addrs(), c.Listen)
	if err := c.announce(std, e, tree, share.Ref()); err != nil {
		return err
	}
	if err := c.serve(ctx, std, share, w); err != nil {
		return err
	}
	return c.leftOut(tree)
}

// tokenSize is how many bytes a token has, as one of transfer.Share's own.
const tokenSize = 16

// token returns the token of the ticket, or nil for a random one. With --key it depends on the key and the files alone, so that a restarted
// sender has the same ticket.
func (c *sendCmd) token(tree *source.Tree) ([]byte, error) {
	if c.Key == "" {
		return nil, nil
	}
	key, _, err := node.LoadKey(c.Key)
	if err != nil {
		return nil, err
	}
	secret, err := key.Raw()
	if err != nil {
		return nil, err
	}
	root, err := tree.Root()
	if err != nil {
		return nil, err
	}
	return hkdf.Key(sha256.New, secret, nil, "peerlane send: token of "+string(root[:]), tokenSize)
}

// announce prints the ticket. The last line is "ready".
func (c *sendCmd) announce(std stdio, e *endpoint, tree *source.Tree, ref transfer.Ref) error {
	h := e.node.Host()
	text, err := ticket.Ticket{
		Sources: []peer.AddrInfo{{ID: h.ID(), Addrs: ticket.Choose(e.addrs())}}, Root: ref.Root, Token: ref.Token,
	}.Encode()
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "sending  %q: %s, %s\n", tree.Name(), filesText(tree.Files()), bytesText(float64(tree.Bytes())))
	fmt.Fprintf(std.out, "peer     %s\n", h.ID())
	fmt.Fprintf(std.out, "ticket   %s\n", text)
	if c.QR {
		code, err := qrText(text)
		if err != nil {
			return err
		}
		fmt.Fprint(std.out, code)
	}
	line := "peerlane get TICKET [FOLDER]"
	if c.isGiven() {
		line += " --psk-file FILE"
	}
	fmt.Fprintf(std.out, "get it   %s\n", line)
	if c.Keep {
		fmt.Fprintln(std.out, "valid    for every peer that has it, until this is interrupted")
	} else {
		fmt.Fprintln(std.out, "valid    for the first peer that uses it, while this runs")
	}
	fmt.Fprintln(std.out, "ready")
	return std.failed()
}

// serve reports the transfers, until one has brought everything or ctx ends. A file that has changed ends it too, unless there may be
// other peers: the ticket's one peer cannot get it any more.
func (c *sendCmd) serve(ctx context.Context, std stdio, share *transfer.Share, w *watcher) error {
	defer w.wait()
	defer share.Close()
	report := func(o outcome) (sent bool) {
		if o.err != nil && !isPartly(o.Result, o.err) {
			w.sayNotYet(o)
			return false
		}
		fmt.Fprintln(std.out, sentLine(o.Result, o.peer))
		return o.err == nil
	}
	for {
		o, ok := w.next(ctx)
		if !ok {
			share.Close()
			return w.rest(report, c.Keep)
		}
		sent := report(o)
		if err := std.failed(); err != nil {
			return err
		}
		if !c.Keep && (sent || transfer.CodeOf(o.err) == transfer.CodeSourceChanged) {
			return outcomeOf(o.Result, o.err)
		}
	}
}

// errInterrupted: a signal has ended what was not done yet.
var errInterrupted = errors.New("interrupted before everything had arrived")

// hashTree hashes all files, and says how far it is.
func hashTree(ctx context.Context, d *display, tree *source.Tree) error {
	h := newHashing(d, tree)
	defer h.end()
	return tree.Hash(ctx, &source.HashOptions{OnProgress: h.progress})
}
