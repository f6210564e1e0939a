package transfer

import (
	"context"
	"time"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/source"
)

// Push begins to send a tree to the peer of dial, whose Service has a Receive. It returns at once: Wait returns the outcome. The end of ctx
// cancels it. o may be nil. The tree remains the caller's, which must close it after the transfer.
//
// Files are hashed while they are sent. When the connection is lost, Push dials again and continues where the receiver says.
func Push(ctx context.Context, dial Dialer, tree *source.Tree, o *Options) *Transfer {
	if o == nil {
		o = &Options{}
	}
	opts := o.withDefaults()
	t, own := newTransfer(sends, "", opts)
	stop := context.AfterFunc(ctx, func() { t.stop(context.Cause(ctx)) })
	go func() { // ends with the transfer; its error goes to Wait
		defer stop()
		err := opts.validate()
		if err == nil && dial == nil {
			err = invalidf("dial is nil")
		}
		if err == nil {
			err = t.push(own, dial, tree)
		}
		t.end(ended("push", t.other(), err))
	}()
	return t
}

// ended returns the error of Wait: nil or an *Error.
func ended(op, peer string, err error) error {
	if err == nil {
		return nil
	}
	return fault.About(op, peer, err)
}

func (t *Transfer) push(ctx context.Context, dial Dialer, tree *source.Tree) error {
	offer, err := newOffer(tree, "")
	if err != nil {
		return err
	}
	offer.count(t)
	return t.persist(ctx, func() bool { return true }, func(ctx context.Context) (reached time.Time, err error) {
		s, err := dial.call(ctx)
		if err != nil {
			return reached, err
		}
		t.met(s)
		defer t.on(s)()
		l, err := openLink(ctx, s, wire.Sender, t.o)
		if err != nil {
			return reached, err
		}
		t.meter.setPhase(PhaseList)
		sender := newSender(t, offer, l.ctl, l.caps)
		return time.Now(), l.run(ctx, t.o, sender.lane, func(ctx context.Context, begin func()) error {
			return sender.run(ctx, false, begin)
		})
	})
}
