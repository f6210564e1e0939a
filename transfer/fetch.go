package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// Ref identifies a tree to fetch, and carries the right to it. Share.Ref returns it at the sender.
type Ref struct {
	Root  [32]byte // of the manifest (manifest spec 3.2)
	Token []byte   // at most 64 bytes; a longer one is CodeInvalid
}

// ID returns the name of the transfer: 32 hexadecimal digits.
func (r Ref) ID() string { return idOf(r.Root) }

// Fetch begins to fetch a tree into the directory dir, which must exist, from one or several sources that share it. It returns at once:
// Wait returns the outcome. The end of ctx cancels it. o may be nil.
//
// Fetch resumes from the data of an earlier Fetch of the same Ref in dir. With several sources, it requests different pieces from each, and
// drops one whose data does not match its hash; the tree must then have been hashed. When a connection is lost, Fetch dials again.
func Fetch(ctx context.Context, sources []Dialer, ref Ref, dir string, o *ReceiveOptions) *Transfer {
	if o == nil {
		o = &ReceiveOptions{}
	}
	opts := o.withDefaults()
	sources, opts.Tokens = slices.Clone(sources), slices.Clone(opts.Tokens) // the caller may change them meanwhile
	ref.Token = bytes.Clone(ref.Token)
	for i := range opts.Tokens {
		opts.Tokens[i] = bytes.Clone(opts.Tokens[i])
	}
	t, own := newTransfer(receives, "", opts.Options)
	t.listed("", ref.Root)
	stop := context.AfterFunc(ctx, func() { t.stop(context.Cause(ctx)) })
	go func() { // ends with the transfer; its error goes to Wait
		defer stop()
		err := opts.validate()
		if err == nil {
			err = validateSources(sources, ref, opts.Tokens)
		}
		if err == nil {
			err = t.fetch(own, sources, ref, dir, opts)
		}
		t.end(ended("fetch", t.other(), err))
	}()
	return t
}

// validateSources returns an error that names an invalid argument of Fetch.
func validateSources(sources []Dialer, ref Ref, tokens [][]byte) error {
	if len(sources) == 0 {
		return invalidf("there is no source")
	}
	for i, dial := range sources {
		if dial == nil {
			return invalidf("source %d is nil", i)
		}
	}
	if tokens == nil && len(ref.Token) > wire.MaxToken {
		return invalidf("Ref.Token has %d bytes, at most %d", len(ref.Token), wire.MaxToken)
	}
	if tokens != nil && len(tokens) != len(sources) {
		return invalidf("ReceiveOptions.Tokens has %d for %d sources", len(tokens), len(sources))
	}
	for i, token := range tokens {
		if len(token) > wire.MaxToken {
			return invalidf("ReceiveOptions.Tokens[%d] has %d bytes, at most %d", i, len(token), wire.MaxToken)
		}
	}
	return nil
}

// fetch runs a receiver, with an origin for each reached source.
func (t *Transfer) fetch(ctx context.Context, sources []Dialer, ref Ref, dir string, o ReceiveOptions) error {
	disk, err := openRoot(dir)
	if err != nil {
		return err
	}
	r := newReceiver(ctx, t, o, disk)
	defer func() { _ = r.disk.Close() }() // durable data has been synced already
	r.several = len(sources) > 1
	if _, err := r.recall(ref.Root); err != nil {
		r.fail(err)
		return r.run()
	}
	all := newOutcomes(len(sources))
	r.suppliersLeft = len(sources)
	for i, dial := range sources {
		ref := ref
		if o.Tokens != nil {
			ref.Token = o.Tokens[i]
		}
		all.Go(func() error {
			defer r.sourceEnded()
			return r.from(dial, ref)
		}, func(err error) { r.fail(err) })
	}
	err = r.run()
	all.Wait()
	r.dropWork()
	return err
}

// outcomes waits for several functions, and reports when all of them have failed.
type outcomes struct {
	sync.WaitGroup
	mu   sync.Mutex
	all  int
	errs []error
}

func newOutcomes(n int) *outcomes { return &outcomes{all: n} }

// Go runs fn. When all functions have failed, it calls failed with the reason.
func (s *outcomes) Go(fn func() error, failed func(error)) {
	s.WaitGroup.Go(func() {
		err := fn()
		if err == nil {
			return // everything has arrived: the errors of others do not matter
		}
		s.mu.Lock()
		s.errs = append(s.errs, err)
		errs := s.errs
		s.mu.Unlock()
		if len(errs) == s.all {
			failed(allFailed(errs))
		}
	})
}

// allFailed returns the error when no source is usable any more, with the code of the first failure.
func allFailed(errs []error) error {
	all := errs[0]
	for _, err := range errs[1:] {
		all = fmt.Errorf("%w; %w", all, err)
	}
	if len(errs) == 1 {
		return all
	}
	return &Error{Code: fault.About("", "", errs[0]).Code, Text: "no source is left", Err: all}
}

// from keeps a source attached as an origin until the transfer is over, or until the source is no longer usable; it then returns why.
func (r *receiver) from(dial Dialer, ref Ref) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.ctx))
	defer cancel()
	stop := context.AfterFunc(r.ctx, func() { // an attempt in progress when the receiver ends still closes properly
		if !errors.Is(context.Cause(r.ctx), errOver) {
			cancel()
		}
	})
	defer stop()
	looking, found := context.WithCancel(ctx) // the search for the source ends when everything has arrived without it
	defer found()
	stopToo := context.AfterFunc(r.ctx, found)
	defer stopToo()
	peer := ""
	err := r.t.persist(looking, r.isAlone, func(context.Context) (reached time.Time, err error) {
		s, err := dial.call(looking)
		if err != nil {
			return reached, err
		}
		r.t.met(s)
		defer r.t.on(s)()
		peer = s.Peer()
		l, err := openLink(looking, s, wire.Receiver, r.o.Options)
		if err != nil {
			return reached, err
		}
		o := r.newOrigin(l.ctl, s, l.caps)
		lane := r.laneOf(o)
		return time.Now(), l.run(ctx, r.o.Options, lane, func(ctx context.Context, begin func()) error { return o.get(ctx, ref, begin) })
	})
	if errors.Is(context.Cause(r.ctx), errOver) {
		return nil
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if err != nil && r.several && peer != "" {
		err = fmt.Errorf("%s: %w", peer, err)
	}
	return err
}

// isAlone reports whether no source is attached.
func (r *receiver) isAlone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.origins) == 0
}

// sourceEnded records that a source is no longer usable. Files that only it had fail.
func (r *receiver) sourceEnded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, why := range r.supplierEnded() {
		r.lackLocked(id, why)
	}
	r.planAllLocked()
}

// get requests a tree, and receives it.
func (o *origin) get(ctx context.Context, ref Ref, begin func()) error {
	r := o.r
	known := false
	select {
	case <-r.ready:
		known = true
	default:
	}
	stop := context.AfterFunc(ctx, func() { o.ctl.interrupt(context.Cause(ctx)) })
	defer stop()
	if err := o.ctl.send(wire.KindGet, known, wire.Get(ref).Append); err != nil {
		return err
	}
	l, err := o.readListing(known)
	if err != nil {
		return o.ctl.cause(err)
	}
	if l.root != ref.Root {
		return wire.Breachf("the sender offers another tree than the one that was asked for")
	}
	if !known {
		if err := r.begin(l, nil); err != nil {
			r.fail(err)
			return err
		}
	}
	if !r.hashed && r.several {
		err := &Error{Code: CodeInvalid, Text: "several sources can serve one fetch only when the files were hashed before they were shared"}
		r.fail(err)
		return err
	}
	r.named(l.name)
	r.t.leftOut(int(l.left.Count), l.left.Text)
	begin()
	return o.run(ctx)
}

// readListing reads the source's listing. If everything has arrived from others meanwhile, it stops early.
func (o *origin) readListing(known bool) (listing, error) {
	read := make(chan struct{})
	defer close(read)
	stop := context.AfterFunc(o.r.ctx, func() {
		select {
		case <-time.After(completeWait):
			o.ctl.interrupt(&Error{Code: CodeCanceled, Text: "all has come from other peers"})
		case <-read:
		}
	})
	defer stop()
	return readListing(o.ctl, *o.r.o.Rules, known, nil)
}
