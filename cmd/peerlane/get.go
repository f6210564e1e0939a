package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/ticket"
)

// getCmd is peerlane get.
type getCmd struct {
	Ticket string   `arg:"" help:"What peerlane send has printed; - reads it from stdin, where other users of the machine do not see it."`
	Dir    string   `arg:"" optional:"" default:"." help:"Folder to put it in, made if there is none; without it, the current one."`
	Also   []string `placeholder:"TICKET" help:"Ticket of another peer that sends the same, with --hash; may be repeated."`
	placeFlags
	dialFlags
	Flat    bool `help:"Put everything directly into the folder, and add it to the folders there. By default, one folder of its own gets everything."`
	Hidden  bool `help:"Accept names at the top that begin with a dot."`
	Yes     bool `short:"y" help:"Do not ask on a terminal."`
	Discard bool `help:"Fetch nothing: delete what earlier runs have left of this ticket."`
}

// Run fetches.
func (c *getCmd) Run(ctx context.Context, std stdio) error {
	want, err := c.parse(std)
	if err != nil {
		return err
	}
	if c.Discard {
		if err := hasFolder(c.Dir); err != nil {
			return err
		}
		return c.discard(std, want.ref)
	}
	secret, err := c.load()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o777); err != nil {
		return err
	}
	d := newDisplay(std.err)
	key, forget := c.identity(d, want.ref)
	p := newPlacer(c, d, std, want.ref.ID())
	r, err := c.fetch(ctx, d, key, secret, want, p)
	defer func() { d.nameOthers(p.where(), want.ref.ID()) }()
	if isPartly(r, err) { // the key stays: the sender may have the rest yet
		c.report(std, d, r, p.where())
		return outcomeOf(r, err)
	}
	if err != nil {
		p.undo(err)
		if len(want.peers) > 1 && transfer.CodeOf(err) == transfer.CodeInvalid {
			err = fmt.Errorf("%w: --also: every sender needs --hash: %w", errUsage, err)
		}
		sayKept(d, p.where(), want.ref, r, err)
		return err
	}
	forget()
	c.report(std, d, r, p.where())
	return nil
}

// wanted is what all tickets say together.
type wanted struct {
	ref    transfer.Ref
	peers  []peer.AddrInfo
	tokens [][]byte
}

// maxTicketInput is more than a ticket has, with all that may be around it.
const maxTicketInput = 64 << 10

// parse reads the tickets.
func (c *getCmd) parse(std stdio) (wanted, error) {
	text := c.Ticket
	if text == "-" {
		b, err := io.ReadAll(io.LimitReader(std.in, maxTicketInput))
		if err != nil {
			return wanted{}, err
		}
		text = string(b)
	}
	var w wanted
	seen := make(map[peer.ID]bool)
	for i, text := range append([]string{text}, c.Also...) {
		t, err := ticket.Parse(text)
		if err != nil && i > 0 {
			err = fmt.Errorf("--also: %w", err)
		}
		if err != nil {
			return wanted{}, err
		}
		if i == 0 {
			w.ref = transfer.Ref{Root: t.Root, Token: t.Token}
		}
		if w.ref.Root != t.Root {
			return wanted{}, fmt.Errorf("%w: --also: the tickets are of different files; all senders need the same files, with the same times, and --hash", errUsage)
		}
		for _, info := range t.Sources {
			if !seen[info.ID] {
				w.peers, w.tokens = append(w.peers, info), append(w.tokens, t.Token)
			}
			seen[info.ID] = true
		}
	}
	return w, nil
}

// identity returns the key file to fetch with. Unless --key says which, it is one for this ticket: a sender lets only the first peer
// that shows the ticket have it, so that another run has to be the same peer. forget deletes it.
func (c *getCmd) identity(d *display, ref transfer.Ref) (path string, forget func()) {
	if c.Key != "" {
		return c.Key, func() {}
	}
	path, err := keyPath(ref)
	if err == nil {
		err = makeKey(path)
	}
	if err != nil {
		d.printf("note     no place for a key: if this is interrupted, the sender has to make another ticket: %s", safe(oneLine(err)))
		return "", func() {}
	}
	return path, func() { _ = os.Remove(path) } // one that stays is a few bytes
}

// keyPath returns where the key of a ticket is kept.
func keyPath(ref transfer.Ref) (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "peerlane", "get-"+ref.ID()+".key"), err
}

// makeKey creates the key of a ticket unless it exists. A damaged one is replaced.
func makeKey(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	forgetOld(filepath.Dir(path))
	_, _, err := node.LoadKey(path)
	if errors.Is(err, node.ErrKeyFormat) && os.Remove(path) == nil {
		_, _, err = node.LoadKey(path)
	}
	return err
}

// keyAge is how long the key of a ticket is kept that nobody has come back to.
const keyAge = 30 * 24 * time.Hour

// forgetOld deletes keys of tickets that nobody has come back to.
func forgetOld(dir string) {
	keys, _ := filepath.Glob(filepath.Join(dir, "get-*.key")) // of a good pattern, there is no error
	for _, key := range keys {
		if info, err := os.Stat(key); err == nil && time.Since(info.ModTime()) > keyAge {
			_ = os.Remove(key) // one that stays is a few bytes
		}
	}
}

// fetch runs the transfer.
func (c *getCmd) fetch(
	ctx context.Context, d *display, key string, secret []byte, want wanted, p *placer,
) (r transfer.Result, err error) {
	cl, dialers, err := c.dialPeers(ctx, d, key, secret, want.peers)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, cl.close()) }()
	o := c.options(d)
	o.AllowLimited = c.AllowRelay
	if !oneToken(want.tokens) {
		o.Tokens = want.tokens
	}
	o.Place = p.place
	t := transfer.Fetch(ctx, dialers, want.ref, p.where(), &o)
	select { // a question and a bar do not go together
	case <-p.settled:
	case <-t.Done():
	}
	d.follow(t, "")
	d.paths.end()
	return t.Wait()
}

func oneToken(tokens [][]byte) bool {
	for _, token := range tokens {
		if !bytes.Equal(token, tokens[0]) {
			return false
		}
	}
	return true
}

// report says what has come.
func (c *getCmd) report(std stdio, d *display, r transfer.Result, dir string) {
	defer d.sayLeftOut(r)
	if gotNothing(r.Progress) {
		fmt.Fprintf(std.out, "there    %q: %s%s%s\n", safe(r.Name), thereText(r, "in "+safe(dir)), c.proofText(), missingText(r, " by the sender"))
		return
	}
	fmt.Fprintf(std.out, "got      %q: %s, in %s\n", safe(r.Name), gotText(r), safe(dir))
}

// proofText says how existing files were recognised.
func (c *getCmd) proofText() string {
	switch {
	case c.Checksum:
		return ", by content"
	case verifies[c.Verify] == transfer.VerifyAll: // the receiver does not know which
		return ", by content if the ticket was made with --hash, and else by size and time"
	}
	return ", by size and time"
}

// sayKept says what a failed run leaves behind. It says nothing if another process is receiving the same, or if the folder
// is not trusted.
func sayKept(d *display, dir string, ref transfer.Ref, r transfer.Result, why error) {
	partial := filepath.Join(dir, transfer.StagingPrefix+ref.ID())
	if _, err := os.Stat(partial); err != nil || isHere(why, transfer.CodeBusy) || isHere(why, transfer.CodePathUnsafe) {
		return
	}
	p := r.Progress
	if p.Verified > 0 {
		d.printf("kept     %s of %s, in %s", bytesText(float64(p.Verified)), bytesText(float64(p.Bytes)), partial)
	}
	d.printf("kept     the same command, or a new ticket of the same files, resumes it; --discard deletes it")
}

// isHere reports whether an error is of this code and about the destination.
func isHere(err error, code transfer.Code) bool {
	e, ok := errors.AsType[*transfer.Error](err)
	return ok && e.Code == code && e.Area == transfer.AreaDestination
}

// discard deletes what earlier runs have left.
func (c *getCmd) discard(std stdio, ref transfer.Ref) error {
	dir := c.Dir
	if found, ok := c.stateDir(ref.ID()); ok {
		dir = found
	}
	if err := transfer.Discard(dir, ref.ID()); err != nil {
		return err
	}
	if dir != c.Dir {
		_ = os.Remove(dir) // it fails if there is something in it
	}
	if path, err := keyPath(ref); err == nil && c.Key == "" {
		_ = os.Remove(path) // one that stays is a few bytes
	}
	fmt.Fprintln(std.out, "deleted  what was left of this ticket; files that are whole stay")
	return nil
}
