package transfer

import (
	"context"
	"errors"

	"github.com/peerlane/peerlane/transfer/manifest"
)

// pending is a push that is being decided on, and then received.
type pending struct {
	in *incomingLink
}

// run receives a push, from the manifest on.
func (p *pending) run() error {
	in, v := p.in, p.in.v
	ctx, cancel := context.WithCancelCause(v.ctx)
	defer cancel(nil)
	asked := &origin{r: &receiver{o: ReceiveOptions{Rules: &manifest.Rules{Symlinks: true}}}, ctl: in.ctl} // the Destination's Rules come later
	l, err := asked.list(false)
	if err != nil {
		return in.ctl.cause(err)
	}
	dest, err := p.decide(ctx, l)
	if err != nil {
		return in.ctl.cause(err)
	}
	o := dest.ReceiveOptions.withDefaults()
	if err := o.validate(); err != nil {
		return err
	}
	done, err := v.takePlace(ctx, pushKey{in.s.Peer(), l.root}, cancel)
	if err != nil {
		return err
	}
	defer done()
	t, own := newTransfer(Receiving, in.s.Peer(), o.Options)
	stop := context.AfterFunc(ctx, func() { t.cancel(context.Cause(ctx)) })
	defer stop()
	err = p.receive(own, t, o, dest.Dir, l)
	t.end(ended("receive", in.s.Peer(), err))
	return err
}

// decide asks the application. What the peer says meanwhile, which can only be that it gives up, ends the asking.
func (p *pending) decide(ctx context.Context, l listing) (*Destination, error) {
	in := Incoming{Peer: p.in.s.Peer(), Name: l.name, ID: idOf(l.root), Entries: l.entries}
	for i := range l.entries {
		if l.entries[i].Kind == manifest.KindFile {
			in.Files++
			in.Bytes += l.entries[i].Size
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := p.in.ctl.watch(func(error) { cancel() })
	dest, err := p.in.v.cfg.Receive(ctx, in)
	if lost := stop(); lost != nil {
		return nil, lost
	}
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Code: CodeDenied, Text: "the peer does not take it", Err: err}
		}
		return nil, e
	}
	return dest, nil
}

// takePlace ends an earlier attempt to push the same, and waits for that end.
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

// receive runs a receiver with the peer as its only origin.
func (p *pending) receive(ctx context.Context, t *Transfer, o ReceiveOptions, dir string, l listing) error {
	in := p.in
	if err := checkRules(l.entries, *o.Rules); err != nil {
		return err
	}
	disk, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = disk.Close() }() // what is to last has been synced
	r := newReceiver(ctx, t, o, disk)
	if err := r.begin(l, nil); err != nil {
		r.fail(err)
		return r.run()
	}
	if in.v.cfg.Begun != nil {
		in.v.cfg.Begun(t)
	}
	from := r.newOrigin(in.ctl, in.s.Peer(), in.s.RTT)
	leave, err := in.join(ctx, r.laneOf(from))
	if err != nil {
		r.fail(err)
		return r.run()
	}
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

// checkRules checks entries again, by the rules of their destination.
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
