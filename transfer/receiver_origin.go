package transfer

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/session"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// origin is one sender of a receiver, for the life of one control stream.
type origin struct {
	r    *receiver
	ctl  *control
	peer string
	s    *session.Session

	arrived lane.Budget // of pieces that are not written yet; nil: none

	heard atomic.Int64 // when bytes of a piece last arrived, in ns since 1970

	// Guarded by receiver.mu.
	supplier
	told     wire.Ack // what was last reported to it
	lanes    map[*bulk.Lane]struct{}
	last     time.Time // when the last piece arrived
	answered time.Time // when it last answered, or owed no answer
	rate     float64   // bytes per second, over the last watch
	since    int64     // bytes since the last watch
	bytes    int64     // received bytes
	stalls   int       // in a row
	doubted  time.Time // since when it has been silent for too long; zero: it has not
	asked    bool      // a ping to it is under way
	heedless time.Time // when the last answered ping was sent

	resetting bool // its reader waits for the disk: an answer may lie unread
}

func (r *receiver) newOrigin(ctl *control, s *session.Session, caps wire.Caps) *origin {
	_, arrived := budgetsOf(ctl.st)
	return &origin{
		r: r, ctl: ctl, arrived: arrived, peer: s.Peer(), s: s, supplier: newSupplier(caps.Has(wire.CapAnyRoot)), lanes: make(map[*bulk.Lane]struct{}), last: time.Now(), answered: time.Now(),
	}
}

// came records that bytes have arrived. Receiver.mu guards it.
func (o *origin) came(n int) {
	o.last = time.Now()
	o.since += int64(n)
	o.bytes += int64(n)
	o.stalls = 0
}

func (o *origin) addLane(l *bulk.Lane) {
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	o.lanes[l] = struct{}{}
}

func (o *origin) removeLane(l *bulk.Lane) {
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	delete(o.lanes, l)
}

// giveUp ends the origin with err.
func (o *origin) giveUp(err error) { o.ctl.interrupt(err) }

// run attaches the origin, and reads its frames until the transfer is complete, which is nil, or the origin is lost.
func (o *origin) run(ctx context.Context) error {
	defer o.detach()
	if err := o.attach(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { o.ctl.interrupt(context.Cause(ctx)) })
	defer stop()
	stopToo := context.AfterFunc(o.r.ctx, func() {
		if cause := context.Cause(o.r.ctx); !errors.Is(cause, errOver) {
			o.ctl.interrupt(cause)
		}
	})
	defer stopToo()
	for {
		f, err := o.ctl.read()
		if err == nil && f.Kind == wire.KindComplete {
			return o.completed(f)
		}
		if err == nil {
			err = o.take(f)
		}
		if err != nil {
			return o.lost(o.ctl.cause(err))
		}
	}
}

// lost returns err, unless everything has arrived.
func (o *origin) lost(err error) error {
	select {
	case <-o.r.ended:
		return nil
	default:
		return err
	}
}

// attach allows requests to the origin.
func (o *origin) attach() error {
	if err := o.ctl.send(wire.KindAccept, false, nil); err != nil {
		return err
	}
	r := o.r
	r.mu.Lock()
	defer r.mu.Unlock()
	o.last = time.Now()
	r.origins[&o.supplier] = o
	r.schedule.attach(&o.supplier)
	r.t.meter.found()
	if r.t.meter.isPaused() {
		_ = o.ctl.send(wire.KindPause, false, whyOf(&Error{Code: CodeNoSpace}).Append) // a failure shows at the reader
	}
	if r.over {
		_ = o.ctl.send(wire.KindComplete, false, r.sum.Append) // a failure shows at the reader
		o.ctl.hurry(completeWait)
		return nil
	}
	r.planLocked(o)
	return nil
}

// planLocked requests as much from an origin as its window allows.
func (r *receiver) planLocked(o *origin) {
	q := r.next(&o.supplier)
	for _, next := range q.asks {
		r.askLocked(o, next)
	}
	if q.mustEnd {
		o.giveUp(&Error{Code: CodeProtocol, Text: "the sender is too old to compare content unless it hashes the files before it offers them"})
	}
	if len(q.wants) > 0 {
		_ = o.ctl.send(wire.KindWant, q.fresh, func(b []byte) []byte { return wire.AppendWants(b, q.wants) }) // a failure shows at the reader
	}
}

// planAllLocked is planLocked for all attached origins.
func (r *receiver) planAllLocked() {
	for _, o := range r.origins {
		r.planLocked(o)
	}
}

// askLocked asks an origin for a layer or a root.
func (r *receiver) askLocked(o *origin, next ask) {
	_ = o.ctl.send(next.kind, false, func(b []byte) []byte { return wire.AppendFile(b, next.file) }) // a failure shows at the reader
}

// detach returns the origin's open requests, so that others can deliver the data.
func (o *origin) detach() {
	for _, l := range o.detachLanes() {
		_ = l.Abort(codes.Cancelled) // a failure shows at the reader
	}
}

// detachLanes is detach, but returns the lanes to abort, so that no lock is held while they are aborted.
func (o *origin) detachLanes() []*bulk.Lane {
	r := o.r
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.origins, &o.supplier)
	r.schedule.detach(&o.supplier)
	r.planAllLocked()
	return slices.Collect(maps.Keys(o.lanes))
}

// completed handles the answer to COMPLETE.
func (o *origin) completed(f wire.Frame) error {
	select {
	case <-o.r.ended:
	default:
		return wire.Breachf("COMPLETE before the end")
	}
	if len(f.Body) != 0 {
		return wire.Breachf("COMPLETE of %d bytes", len(f.Body))
	}
	return nil
}

// take handles a frame of the sender.
func (o *origin) take(f wire.Frame) error {
	switch f.Kind {
	case wire.KindLayer:
		l, err := wire.ConsumeLayer(f.Body)
		if err != nil {
			return err
		}
		return o.r.layered(o, l)
	case wire.KindRoot:
		return o.r.rooted(o, wire.ConsumeRoot(f.Body))
	case wire.KindFailed:
		file, why, err := wire.ConsumeFailed(f.Body)
		if err != nil {
			return err
		}
		return o.r.lacking(o, file, why)
	}
	return wire.Breachf("%v from a sender", f.Kind)
}

// layered handles a part of a layer (spec 5.4).
func (r *receiver) layered(o *origin, l wire.Layer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.active[l.File]
	if a == nil || a.asked != &o.supplier || a.tree != nil || !r.hashed || int64(l.First) != int64(len(a.layer)) {
		if int64(l.File) < int64(len(r.files)) && r.files[l.File] == fileFailed {
			return nil
		}
		return wire.Breachf("LAYER of file %d, which nobody has asked for", l.File)
	}
	o.answered = time.Now()
	var err error
	if a.layer, err = a.shape.ConsumeLayer(a.layer, l.CVs); err != nil {
		return wire.Breachf("LAYER of file %d: %w", l.File, err)
	}
	if len(a.layer) < a.shape.LayerLen() {
		return nil
	}
	tree, err := b3tree.NewTree(a.shape, b3tree.Root(r.entries[a.id].Hash), a.layer)
	if err != nil {
		return &Error{
			Op: "receive", Peer: o.peer, Path: r.entries[a.id].Path, Code: CodeHashMismatch, Text: "its hashes are not those of the file", Err: err,
		}
	}
	if err := r.st.SetLayer(a.id, 0, b3tree.AppendLayer(nil, a.layer)); err != nil {
		r.fail(err)
		return nil
	}
	a.tree = tree
	r.planAllLocked()
	return nil
}

// lacking handles FAILED of a sender: the file fails if no other sender has it.
func (r *receiver) lacking(o *origin, id uint32, why wire.Why) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if int64(id) >= int64(len(r.entries)) || r.entries[id].Kind != manifest.KindFile {
		return wire.Breachf("FAILED of %d, which is no file", id)
	}
	err := saidOfFile(why, len(o.lacks))
	err.Op, err.Peer = "receive", o.peer
	if r.lack(&o.supplier, id, err) {
		r.lackLocked(id, err)
	}
	r.planAllLocked()
	return nil
}

// lackLocked fails a file that no source has.
func (r *receiver) lackLocked(id uint32, why *Error) {
	if r.files[id] == fileWhole || r.files[id] == filePlaced {
		return // it has already arrived
	}
	delete(r.active, id)
	r.failLocked(id, why)
}

// sources returns the state of the origins.
func (r *receiver) sources() []Source {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Source, 0, len(r.origins))
	for _, o := range r.origins {
		all = append(all, Source{o.peer, len(o.lanes), o.bytes, o.rate, len(o.wanted), o.bad})
	}
	slices.SortFunc(all, func(a, b Source) int { return cmp.Compare(a.Peer, b.Peer) })
	return all
}
