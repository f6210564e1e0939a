package transfer

import (
	"context"
	"sync"

	"golang.org/x/time/rate"

	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/files"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
	"github.com/peerlane/peerlane/transfer/source"
)

// How a sender sends a file:
//
//	control ── WANT ──> wantQueue ──> a lane's reader ── frames ──> the lane's writer ──> lane
//	control ── WANT_LAYER, WANT_ROOT ──> askQueue ──> answer ──> control
//
// A sender sends one tree to one receiver, over one control stream. It keeps only data that the receiver has requested, so there is nothing
// to resume after a loss: another sender begins, and the receiver requests the missing data.
type sender struct {
	t       *Transfer
	tree    *source.Tree
	files   files.Reader // of tree
	entries []manifest.Entry
	hashed  bool
	root    [32]byte
	name    string
	left    wire.LeftOut // Count is 0 when nothing was left out, or the receiver cannot be told
	ctl     *control
	limit   *rate.Limiter
	wants   *wantQueue
	asks    *askQueue
	book    hashBook

	accepted bool // by the receiver; owned by run

	mu   sync.Mutex
	gone map[uint32]bool // files that have failed: the receiver knows
}

func newSender(t *Transfer, o *offer, ctl *control, caps wire.Caps) *sender {
	s := &sender{
		t: t, tree: o.tree, files: o.tree.Reader(), entries: o.tree.Entries(), hashed: o.hashed, root: o.root, name: o.name, ctl: ctl, limit: newLimiter(t.o.Rate),
		wants: newWantQueue(o.tree.Entries()), asks: newAskQueue(), gone: make(map[uint32]bool),
	}
	if left := o.tree.LeftOut(); caps.Has(wire.CapLeftOut) {
		s.left = wire.LeftOut{Count: uint32(left.Count()), Text: left.String()}
	}
	return s
}

// offer is a tree that can be sent, with the results of examining it.
type offer struct {
	tree   *source.Tree
	name   string
	root   [32]byte
	hashed bool
}

// newOffer returns the offer of a tree.
func newOffer(tree *source.Tree, name string) (*offer, error) {
	if tree == nil {
		return nil, invalidf("tree is nil")
	}
	root, err := tree.Root()
	if err != nil {
		return nil, err
	}
	o := &offer{tree: tree, name: name, root: root, hashed: true}
	if o.name == "" {
		o.name = tree.Name()
	}
	for i := range tree.Entries() {
		e := &tree.Entries()[i]
		if e.Kind == manifest.KindFile && e.Flags&manifest.FlagHashed == 0 {
			o.hashed = false
			break
		}
	}
	return o, nil
}

// count adds the contents of the offer to a transfer's meter.
func (o *offer) count(t *Transfer) {
	t.listed(o.name, o.root)
	left := o.tree.LeftOut()
	t.leftOut(left.Count(), left.String())
	t.meter.files.Store(int64(filesOf(o.tree.Entries())))
	t.meter.bytes.Store(o.tree.Bytes())
}

// filesOf returns how many of the entries are files.
func filesOf(entries []manifest.Entry) int {
	n := 0
	for i := range entries {
		if entries[i].Kind == manifest.KindFile {
			n++
		}
	}
	return n
}

// run offers the tree and serves the receiver until the receiver has sent COMPLETE, which run answers, or until an error, which it returns.
// known means that the receiver has the manifest. run calls accepted when the receiver accepts the tree. The data lanes belong to the
// caller, which makes lane serve them until run returns.
func (s *sender) run(ctx context.Context, known bool, accepted func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() { s.ctl.interrupt(context.Cause(ctx)) })
	var side sync.WaitGroup
	for _, work := range []func() error{func() error { return s.list(known) }, func() error { return s.answer(ctx) }} {
		side.Go(func() {
			if err := work(); err != nil {
				cancel(err)
			}
		})
	}
	err := s.listen(accepted)
	stop()
	s.wants.close()
	s.asks.close()
	cancel(nil)
	s.ctl.interrupt(errOver) // the receiver is not waited for any more
	side.Wait()
	return err
}

// listen reads the receiver's frames, until COMPLETE.
func (s *sender) listen(accepted func()) error {
	for {
		f, err := s.ctl.read()
		if err == nil {
			err = s.take(f)
		}
		if err == nil && f.Kind == wire.KindAccept {
			accepted()
		}
		if err != nil {
			return s.ctl.cause(err)
		}
		if f.Kind == wire.KindComplete {
			return s.ctl.send(wire.KindComplete, false, nil)
		}
	}
}

// list sends the listing to the receiver (spec 3.3).
func (s *sender) list(known bool) error {
	name := wire.CutName(s.name)
	err := s.ctl.sendSlow(wire.KindOffer, s.hashed, func(b []byte) []byte { return append(b, name...) })
	if err == nil && s.left.Count > 0 {
		err = s.ctl.sendSlow(wire.KindLeftOut, false, s.left.Append)
	}
	var batch []byte
	for rest := s.entries; err == nil && !known && len(rest) > 0; {
		var n int
		if batch, n, err = manifest.AppendBatch(batch[:0], rest); err != nil {
			return err
		}
		rest = rest[n:]
		err = s.ctl.sendSlow(wire.KindManifest, false, func(b []byte) []byte { return append(b, batch...) })
	}
	if err != nil {
		return err
	}
	listed := wire.Listed{Root: s.root, Entries: uint32(len(s.entries)), Bytes: uint64(s.tree.Bytes())}
	return s.ctl.sendSlow(wire.KindListed, false, listed.Append)
}

// take handles a frame of the receiver. It never waits for the receiver, because the reading goroutine must not write.
func (s *sender) take(f wire.Frame) error {
	if s.accepted == (f.Kind == wire.KindAccept) {
		return wire.Breachf("%v at the wrong time", f.Kind)
	}
	switch f.Kind {
	case wire.KindAccept:
		s.accepted = true
		s.t.meter.setPaused(false) // otherwise the receiver's next frame says so
		s.t.meter.setPhase(PhaseData)
	case wire.KindWant:
		return s.wants.add(f)
	case wire.KindWantLayer, wire.KindWantRoot:
		return s.ask(f)
	case wire.KindFailed:
		return s.theirFailure(f)
	case wire.KindAck:
		s.acked(wire.ConsumeAck(f.Body))
	case wire.KindPause:
		why, err := wire.ConsumeWhy(f.Body)
		if err == nil && s.t.meter.setPaused(true) {
			s.t.tell(Event{EventPaused, s.t.other(), "", said(why)})
		}
		return err
	case wire.KindResume:
		if s.t.meter.setPaused(false) {
			s.t.tell(Event{EventResumed, s.t.other(), "", nil})
		}
	case wire.KindComplete:
		sum, err := wire.ConsumeSummary(f.Body)
		s.acked(wire.Ack{Durable: sum.Bytes, Verified: sum.Bytes, Published: sum.Files})
		return err
	default:
		return wire.Breachf("%v from a receiver", f.Kind)
	}
	return nil
}

// acked records the receiver's reported progress, limited to what the tree has.
func (s *sender) acked(a wire.Ack) {
	m := s.t.meter
	m.verified.Store(int64(min(a.Verified, uint64(m.bytes.Load()))))
	m.durable.Store(int64(min(a.Durable, uint64(m.bytes.Load()))))
	m.filesDone.Store(min(int64(a.Published), m.files.Load()))
}

// theirFailure handles FAILED of the receiver: it no longer wants the file.
func (s *sender) theirFailure(f wire.Frame) error {
	file, why, err := wire.ConsumeFailed(f.Body)
	if err != nil {
		return err
	}
	if int64(file) >= int64(len(s.entries)) {
		return wire.Breachf("FAILED of file %d", file)
	}
	if s.drop(file) {
		e := saidOfFile(why, int(s.t.meter.filesBad.Load()))
		e.Op, e.Peer, e.Path = "send", s.t.other(), s.entries[file].Path
		s.t.fileFailed(e)
	}
	return nil
}

// drop marks a file as failed, and reports whether that is new.
func (s *sender) drop(file uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.gone[file]
	s.gone[file] = true
	return !was
}

func (s *sender) isGone(file uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone[file]
}

// ourFailure notifies the receiver that a file is no longer available (spec 5.6). It returns an error that ends the transfer, if other
// files would be unavailable too.
func (s *sender) ourFailure(file uint32, cause error) error {
	if isTooManyOpen(cause) {
		return cause
	}
	if !s.drop(file) {
		return nil
	}
	e := fault.About("send", s.t.other(), cause)
	e.Path = s.entries[file].Path
	if CodeOf(cause) == "" {
		e.Code = CodeIO
	}
	s.t.fileFailed(e)
	why := whyOf(cause)
	return s.ctl.sendSlow(wire.KindFailed, false, func(b []byte) []byte { return wire.AppendFailed(b, file, why) })
}
