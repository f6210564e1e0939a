package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/backoff"
	"github.com/peerlane/peerlane/node"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer"
	"github.com/peerlane/peerlane/transfer/source"
)

// transferTag is the tag of send, get, push and receive.
const transferTag = "/peerlane/transfer/1.0.0"

// treeFlags say what is sent, and how.
type treeFlags struct {
	Path     []string `arg:"" help:"File or folder to send, with all that is in it."`
	Rate     size     `placeholder:"N" help:"Bytes per second at most, as in 500k or 10MB."`
	Symlinks bool     `help:"Send symlinks that lead to inside of what is sent. Otherwise they are left out."`
	Compress bool     `help:"Compress what shrinks by it; the other side has to allow it too."`

	SkipSpecial bool `help:"Exit with 0 even if something was left out because it cannot be sent: devices, FIFOs, sockets, unreadable files, unsupported names, symlinks. Otherwise the exit code is 10. If nothing else is left to send, no peer is needed, and nothing is sent."`
}

// mostLeftOut is how many files that are left out are named, each on a line.
const mostLeftOut = 20

// walk finds what is to be sent, and says what is left out. The error matches errNothingLeft if that is everything.
func (f *treeFlags) walk(ctx context.Context, d *display) (*source.Tree, error) {
	left, clamped := 0, 0
	tree, err := source.Walk(ctx, f.Path, &source.Options{
		Rules: transfer.Rules{Symlinks: f.Symlinks},
		OnLeftOut: func(path string, reason error) {
			if left++; left > mostLeftOut {
				return
			}
			if e, ok := errors.AsType[*transfer.Error](reason); ok && e.Text != "" {
				reason = errors.New(e.Text)
			}
			d.printf("left out %q: %s", path, safe(oneLine(reason)))
		},
		OnClamped: func(path string, at time.Time) {
			if clamped++; clamped == 1 {
				d.printf("note     %q: its modification time, year %d, is out of range: the nearest one from 1677 to 2262 is sent", path, at.Year())
			}
		},
	})
	if clamped > 1 {
		d.printf("note     %d more modification times are out of range", clamped-1)
	}
	if left > mostLeftOut {
		d.printf("left out %d more", left-mostLeftOut)
	}
	if e := (*transfer.Error)(nil); errors.Is(err, source.ErrAllLeftOut) && errors.As(err, &e) {
		return nil, fmt.Errorf("%w: %s", errNothingLeft, e.Text)
	}
	return tree, err
}

var (
	// errLeftOut is the error of a send that has left something out and has sent the rest.
	errLeftOut = errors.New("not everything could be sent")

	// errNothingLeft is the error of a send that has left out each path of the command line.
	errNothingLeft = errors.New("nothing is left to send")
)

// unlessMeant returns err, the error of walk, or nil and a note if it is errNothingLeft and --skip-special is set.
func (f *treeFlags) unlessMeant(d *display, err error) error {
	if !f.SkipSpecial || !errors.Is(err, errNothingLeft) {
		return err
	}
	d.printf("note     %s", err)
	return nil
}

// leftOut returns an error if something was left out of the tree, unless --skip-special is set.
func (f *treeFlags) leftOut(tree *source.Tree) error {
	if tree.LeftOut().Count() == 0 || f.SkipSpecial {
		return nil
	}
	return fmt.Errorf("%w: left out %s", errLeftOut, tree.LeftOut())
}

// partlyError is the error of a transfer in which some files failed and the others arrived.
type partlyError struct {
	failed, files int
	first         error
}

func (e *partlyError) Error() string {
	return fmt.Sprintf("%d of %s failed", e.failed, filesText(e.files))
}

func (e *partlyError) Unwrap() error { return e.first }

// outcomeOf returns err, or a *partlyError if only some files failed: those were named in events.
func outcomeOf(r transfer.Result, err error) error {
	if isPartly(r, err) {
		return &partlyError{len(r.Failed), r.Progress.Files, err}
	}
	return err
}

// isPartly reports whether err says that some files failed and the others arrived.
func isPartly(r transfer.Result, err error) bool {
	return err != nil && len(r.Failed) > 0 && errors.Is(err, r.Failed[0])
}

func (f *treeFlags) options(d *display) transfer.Options {
	return transfer.Options{Rate: int(f.Rate), Compress: f.Compress, OnEvent: d.event}
}

// placeFlags say how what comes is kept.
type placeFlags struct {
	Overwrite bool   `help:"Replace files that are there and differ; never a folder."`
	Symlinks  bool   `help:"Take symlinks that lead to inside of what comes."`
	Rate      size   `placeholder:"N" help:"Bytes per second at most, as in 500k or 10MB."`
	Lanes     int    `default:"0" help:"Data lanes at most, 1 to 16; 0 for 4."`
	Verify    string `enum:"sample,all,none" default:"sample" help:"How much of an interrupted run is read again: sample, all or none. With a ticket of send --hash, all also reads files that already exist."`
	Checksum  bool   `help:"Compare the content of files that already exist with the sender's; both sides read them. By default the same size and modification time count as the same file, which does not prove it."`
	Sync      string `enum:"batch,none,each" default:"batch" help:"How much the disk is asked for: batch (every 2 s), none or each (piece)."`
	Compress  bool   `help:"Allow the data to be compressed."`
}

var (
	verifies = map[string]transfer.Verify{"sample": transfer.VerifySample, "all": transfer.VerifyAll, "none": transfer.VerifyNothing}
	syncs    = map[string]transfer.SyncPolicy{"batch": transfer.SyncBatch, "none": transfer.SyncNone, "each": transfer.SyncEach}
)

func (f *placeFlags) options(d *display) transfer.ReceiveOptions {
	rules := transfer.LocalRules()
	rules.Symlinks = f.Symlinks
	return transfer.ReceiveOptions{
		Options:   transfer.Options{Rate: int(f.Rate), Lanes: f.Lanes, Compress: f.Compress, OnEvent: d.event},
		Rules:     &rules,
		Overwrite: f.Overwrite, Sync: syncs[f.Sync], Verify: verifies[f.Verify], Checksum: f.Checksum,
	}
}

// dialFlags say as whom a command calls, and how long.
type dialFlags struct {
	Key   string `placeholder:"FILE" help:"Key file of the own identity."`
	Retry bool   `help:"While the peer cannot be reached, try again until interrupted: this side may start first."`
	findFlags
	pathFlags
	secretFlags
}

// Help is shown by --help.
func (*dialFlags) Help() string { return callerHelp }

// connectTimeout bounds one attempt to reach a peer.
const connectTimeout = 30 * time.Second

// dialPeers returns a host, and a Dialer for each peer. secret is nil, or what all of them have too.
func (f *dialFlags) dialPeers(ctx context.Context, d *display, key string, secret []byte, peers []peer.AddrInfo) (*client, []transfer.Dialer, error) {
	n, err := node.New(ctx, f.caller(key, peers...))
	if err != nil {
		return nil, nil, err
	}
	cfg := clientConfig(connectTimeout, 0)
	d.paths = newPaths(d, len(peers) > 1)
	cfg.Path, cfg.ConnectTimeout, cfg.OnPath = f.policy(), f.connectTimeout(), d.paths.onPath
	c, err := newClient(n, secret, cfg)
	if err != nil {
		return nil, nil, errors.Join(err, n.Close())
	}
	var dialers []transfer.Dialer
	for _, info := range peers {
		if info.ID == n.ID() {
			err := fmt.Errorf("%w: this is the own Peer ID: the two sides need different --key files", errUsage)
			return nil, nil, errors.Join(err, c.Close(), n.Close())
		}
		n.Remember(info)
		dial := func(ctx context.Context) (*session.Session, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			return c.Connect(ctx, info.ID, transferTag)
		}
		if f.Retry {
			dial = retried(dial, d, info.ID)
		}
		dialers = append(dialers, dial)
	}
	return &client{Client: c, node: n}, dialers, nil
}

// retried returns dial that is tried again until the peer is there, or ctx ends.
func retried(dial transfer.Dialer, d *display, id peer.ID) transfer.Dialer {
	return func(ctx context.Context) (s *session.Session, err error) {
		said := false
		err = backoff.Backoff{}.Retry(ctx, nil, func(ctx context.Context) error {
			if s, err = dial(ctx); err != nil && isAway(err) && !said {
				d.printf("waiting  for %s, which cannot be reached yet", id)
				said = true
			}
			return err
		}, func(err error) bool { return !isAway(err) })
		return s, err
	}
}

// isAway reports whether err says that the peer, or what it serves, is not there now.
func isAway(err error) bool {
	return errors.Is(err, peerlane.ErrUnreachable) || errors.Is(err, peerlane.ErrNotServed)
}
