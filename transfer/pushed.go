package transfer

import (
	"context"
	"errors"

	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// pushed receives a push, from the manifest on.
func (in *incomingLink) pushed() error {
	v := in.v
	ctx, cancel := context.WithCancelCause(v.ctx)
	defer cancel(nil)
	_, arrived := budgetsOf(in.ctl.st)
	in.share = lane.In(arrived)
	defer in.share.End()
	l, dest, err := in.asked(ctx)
	if err != nil {
		return in.ctl.cause(err)
	}
	o := dest.ReceiveOptions.withDefaults()
	o.Place = nil // dest is the place
	done, err := v.takePlace(ctx, pushKey{in.s.Peer(), l.root}, cancel)
	if err != nil {
		return err
	}
	defer done()
	t, own := newTransfer(receives, in.s.Peer(), o.Options)
	defer t.on(in.s)()
	stop := context.AfterFunc(ctx, func() { t.cancel(context.Cause(ctx)) })
	defer stop()
	t.leftOut(int(l.left.Count), l.left.Text)
	begun(v.cfg.OnBegun, t)
	if err = o.validate(); err == nil {
		err = in.receiveTo(own, t, o, dest.Dir, l)
	}
	in.ctl.close(err) // before the transfer is reported as over; this closes its stream
	t.end(ended("receive", in.s.Peer(), err))
	return err
}

// asked reads the listing, and asks the application.
func (in *incomingLink) asked(ctx context.Context) (listing, *Destination, error) {
	list := heldList{v: in.v}
	defer list.release()
	hold := func(n int) error {
		if !in.share.Take(entryFactor * n) {
			return errNoMemory
		}
		return list.hold(n)
	}
	l, err := readListing(in.ctl, manifest.Rules{Symlinks: true}, false, hold) // the Destination's Rules apply later
	if err != nil {
		return l, nil, err
	}
	dest, err := in.decide(ctx, l)
	return l, dest, err
}

// Bounds of the manifests that wait for a decision, in bytes on the wire: in memory they take several times as much.
const (
	mostLists = 512 << 20 // of all peers: two of the largest
	smallList = 1 << 20   // this much of each is not counted, so that large ones do not exclude small ones
)

// heldList is the share of mostLists that one push holds.
type heldList struct {
	v     *Service
	bytes int64
	held  int64 // of these, counted in Service.lists
}

// hold reserves room for n more bytes.
func (h *heldList) hold(n int) error {
	h.v.mu.Lock()
	defer h.v.mu.Unlock()
	h.bytes += int64(n)
	more := max(0, h.bytes-smallList) - h.held
	if h.v.lists+more > mostLists {
		return &Error{Code: CodeBusy, Text: "too many large transfers wait for an answer: try again later"}
	}
	h.held += more
	h.v.lists += more
	return nil
}

// release releases the reserved room.
func (h *heldList) release() {
	h.v.mu.Lock()
	defer h.v.mu.Unlock()
	h.v.lists -= h.held
	h.held = 0
}

// decide asks the application. A frame of the peer, which can only mean that it gives up, ends the question.
func (in *incomingLink) decide(ctx context.Context, l listing) (*Destination, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := in.ctl.listen(cancel)
	dest, err := in.v.cfg.receive(ctx, incoming(in.s.Peer(), l))
	if gone := over(); gone != nil {
		return nil, gone
	}
	if err != nil || dest == nil {
		return nil, refusal(err)
	}
	return dest, nil
}

// refusal returns the refusal for the peer, given the application's error or nil. It hides the error but for the Text of an *Error, and
// whether that is CodeBusy.
func refusal(err error) error {
	refused := &Error{Code: CodeDenied, Text: "the peer does not take it", Err: err}
	var e *Error
	if errors.As(err, &e) && e != nil {
		if e.Text != "" {
			refused.Text = e.Text
		}
		if e.Code == CodeBusy {
			refused.Code = CodeBusy
		}
	}
	return refused
}

// takePlace ends an earlier attempt to push the same tree, and waits for its end.
func (v *Service) takePlace(ctx context.Context, key pushKey, cancel context.CancelCauseFunc) (done func(), err error) {
	mine := &pushed{cancel, make(chan struct{})}
	for {
		v.mu.Lock()
		old := v.pushes[key]
		if old == nil {
			v.pushes[key] = mine
			v.mu.Unlock()
			break
		}
		v.mu.Unlock()
		old.cancel(&Error{Code: CodeLost, Text: "the peer has begun again"})
		select {
		case <-old.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return func() {
		v.mu.Lock()
		delete(v.pushes, key)
		v.mu.Unlock()
		close(mine.done)
	}, nil
}

// receiveTo runs a receiver with the peer as its only origin.
func (in *incomingLink) receiveTo(ctx context.Context, t *Transfer, o ReceiveOptions, dir string, l listing) error {
	if err := checkRules(l.entries, *o.Rules); err != nil {
		return err
	}
	disk, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }() // durable data has been synced already
	r := newReceiver(ctx, t, o, disk)
	if err := r.begin(l, nil); err != nil {
		r.fail(err)
		return r.run()
	}
	from := r.newOrigin(in.ctl, in.s, in.caps)
	leave, err := in.join(ctx, r.laneOf(from))
	if err != nil {
		r.fail(err)
		return r.run()
	}
	defer r.dropWork()
	defer leave()
	talked := make(chan struct{})
	go func() { // ends with the stream, which the end of the receiver ends too
		defer close(talked)
		if err := from.run(context.WithoutCancel(ctx)); err != nil {
			r.fail(err)
		}
	}()
	err = r.run()
	<-talked
	return err
}

// checkRules checks the entries again, by the rules of their destination.
func checkRules(entries []manifest.Entry, rules manifest.Rules) error {
	check, err := manifest.NewChecker(rules)
	if err != nil {
		return &Error{Code: CodeInvalid, Text: "ReceiveOptions.Rules", Err: err}
	}
	for i := range entries {
		if err := check.Add(entries[i]); err != nil {
			return err
		}
	}
	return nil
}
