package transfer

import (
	"bytes"
	"errors"
	"time"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// write verifies and writes deliveries, as one of several such goroutines. It ends with the receiver, and a write failure ends the
// receiver.
func (r *receiver) write() {
	for {
		select {
		case d := <-r.work:
			r.awaitSync()
			err := r.deliver(d)
			d.free()
			if err != nil {
				r.fail(err)
				return
			}
		case <-r.ctx.Done():
			return
		}
	}
}

// deliver handles a frame. Its error is a failure of this side. A bad frame is its origin's failure.
func (r *receiver) deliver(d *delivery) error {
	switch d.h.Kind {
	case wire.Pack:
		return r.unpack(d)
	case wire.Zeros:
		for i := 0; i < int(d.h.Count) && !d.ended; i++ {
			if err := r.piece(d, int(d.h.Piece)+i, nil); err != nil {
				return err
			}
		}
		return nil
	}
	if r.shapeOf(d.h.File).Pieces() == 1 {
		return r.single(d.o, d.h.File, d.hash[:], d.data)
	}
	return r.piece(d, int(d.h.Piece), d.data)
}

// unpack handles the files of a PACK.
func (r *receiver) unpack(d *delivery) error {
	rest := d.data
	for n := range d.h.Count {
		p, after, err := wire.ConsumePacked(rest, d.h.Hashed)
		if err == nil && n == d.h.Count-1 && len(after) > 0 {
			err = wire.Breachf("PACK with %d bytes too many", len(after))
		}
		if err == nil {
			err = r.fits(wire.DataHeader{Kind: wire.Data, Hashed: d.h.Hashed, File: p.File, Count: 1, Length: uint32(len(p.Data))})
		}
		if err == nil && r.shapeOf(p.File).Pieces() > 1 {
			err = wire.Breachf("file %d in a PACK", p.File)
		}
		if err != nil {
			d.o.giveUp(err)
			return nil
		}
		if err := r.single(d.o, p.File, p.Hash, p.Data); err != nil {
			return err
		}
		rest = after
	}
	return nil
}

// claim claims a received piece, and requests more from its origin.
func (r *receiver) claim(o *origin, k key) verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.schedule.claim(&o.supplier, k)
	if v != refused {
		r.planLocked(o)
	}
	return v
}

// single handles a file of one piece. hash is the sender's, if the manifest has none.
func (r *receiver) single(o *origin, id uint32, hash, data []byte) error {
	k := keyOf(id, 0)
	switch r.claim(o, k) {
	case dropped:
		return nil
	case refused:
		o.giveUp(wire.Breachf("file %d, which nobody has wanted", id))
		return nil
	}
	if r.hashed {
		hash = r.entries[id].Hash[:]
	}
	if root := b3tree.Sum(data); !bytes.Equal(root[:], hash) {
		r.bad(o, k, errors.New("the file is not what was said"))
		return nil
	}
	if err := r.stage(func() error { return r.st.WriteFile(id, data) }); err != nil {
		return err
	}
	r.t.meter.verified.Add(int64(len(data)))
	r.mu.Lock()
	defer r.mu.Unlock()
	o.came(len(data))
	r.wholeLocked(id, fileBusy)
	return nil
}

// wholeLocked queues a complete file for its name, if it is still in that state: its sender may have reported it as failed.
func (r *receiver) wholeLocked(id uint32, was fileState) {
	if r.complete(id, was) {
		r.kick()
	}
}

// piece handles one piece of a file of several; data is nil for zeros.
func (r *receiver) piece(d *delivery, i int, data []byte) error {
	id, o := d.h.File, d.o
	switch r.claim(o, keyOf(id, i)) {
	case dropped:
		return nil
	case refused:
		d.ended = true
		o.giveUp(wire.Breachf("piece %d of file %d, which nobody has wanted", i, id))
		return nil
	}
	r.mu.Lock()
	a := r.active[id]
	r.mu.Unlock()
	if a == nil {
		return nil // the file has failed meanwhile
	}
	cv, err := a.verify(i, data, d.hash[:])
	if err != nil {
		d.ended = r.bad(o, keyOf(id, i), err)
		return nil
	}
	off, n := a.shape.Span(i)
	err = r.stage(func() error {
		if a.tree == nil {
			if err := r.st.SetLayer(id, i, cv[:]); err != nil {
				return err
			}
		}
		if data == nil {
			return r.st.WriteZeros(id, off, int64(n))
		}
		return r.st.WriteAt(id, data, off)
	})
	if err != nil {
		return err
	}
	r.t.meter.verified.Add(int64(n))
	if r.st.Dirty() >= settleBytes {
		r.kick()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o.came(n)
	r.hereLocked(a, i, cv)
	return nil
}

// hereLocked records that a piece is present, and continues with the file after its last one.
func (r *receiver) hereLocked(a *active, i int, cv b3tree.CV) {
	if r.active[a.id] != a {
		return // the file has failed meanwhile
	}
	switch {
	case !r.here(a, i, cv):
	case a.tree != nil:
		r.wholeLocked(a.id, fileActive)
	default:
		if o, next, ok := r.askAny(a); ok {
			r.askLocked(r.origins[o], next)
		}
	}
}

// rooted handles the root of a file whose pieces are all present, and compares it (spec 5.5).
func (r *receiver) rooted(o *origin, said wire.Root) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.unsure[said.File]; u != nil && u.asked == &o.supplier {
		o.answered = time.Now()
		r.comparedLocked(o, u, said)
		return nil
	}
	a := r.active[said.File]
	if a != nil && a.asked == &o.supplier && a.left > 0 && !r.hashed { // some of the file was lost since
		a.asked = nil
		return nil
	}
	if a == nil || a.asked != &o.supplier || a.left > 0 || r.hashed {
		if r.isSettled(said.File) && !r.hashed { // the root was requested twice, as some of the file was lost in between
			return nil
		}
		return wire.Breachf("ROOT of file %d, which nobody has asked for", said.File)
	}
	o.answered = time.Now()
	root, err := a.shape.Fold(a.layer)
	if err == nil && root == b3tree.Root(said.Root) {
		if err := r.st.SetRoot(a.id, said.Root); err != nil {
			r.fail(err)
			return nil
		}
		r.wholeLocked(a.id, fileActive)
		return nil
	}
	return r.startOverLocked(o, a)
}

// startOverLocked forgets a file's present data: data of an earlier run does not match the current file. It releases mu while the disk does
// so.
func (r *receiver) startOverLocked(o *origin, a *active) error {
	e := &r.entries[a.id]
	err := &Error{Op: "receive", Peer: o.peer, Path: e.Path, Code: CodeHashMismatch, Text: "the file that has come is not what the sender has"}
	if a.restarts > 0 {
		delete(r.active, a.id)
		r.failLocked(a.id, err)
		return nil
	}
	a.resetting = true
	if err := r.resetLocked(o, a.id); err != nil {
		r.fail(err)
		return nil
	}
	if r.active[a.id] != a {
		return nil // the file has failed meanwhile
	}
	r.t.meter.forget(e.Size, a.resumed)
	r.restart(a)
	r.t.tell(Event{EventFetchedAgain, o.peer, e.Path, err})
	r.planLocked(o)
	return nil
}

// resetLocked forgets a file on the disk for o's reader. It releases mu meanwhile, because Reset waits for a running sync and syncs the
// journal: the other origins, the writers and the callers of Snapshot do not wait for the disk.
func (r *receiver) resetLocked(o *origin, id uint32) error {
	o.resetting = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		o.resetting, o.answered = false, time.Now()
	}()
	return r.st.Reset(id)
}

// bad requeues a corrupt piece, for another origin if possible, and reports whether its origin is given up.
func (r *receiver) bad(o *origin, k key, cause error) (drop bool) {
	path := r.entries[k.file()].Path
	err := &Error{Op: "receive", Peer: o.peer, Path: path, Code: CodeHashMismatch, Text: cause.Error()}
	r.t.meter.bad.Add(1)
	r.t.tell(Event{EventBadPiece, o.peer, path, err})
	r.mu.Lock()
	drop = r.refute(&o.supplier, k)
	if !drop {
		r.planLocked(o)
	}
	r.mu.Unlock()
	if drop {
		r.t.tell(Event{EventSourceDropped, o.peer, path, err})
		o.giveUp(err)
	}
	return drop
}

// fullRetry is how often a full disk is checked again.
const fullRetry = time.Second

// stage calls write, and waits while the disk is full.
func (r *receiver) stage(write func() error) error {
	for {
		err := write()
		if errors.Is(err, staging.ErrLost) {
			continue
		}
		if CodeOf(err) != CodeNoSpace {
			if err == nil && r.t.meter.isPaused() {
				r.pause(nil)
			}
			return err
		}
		r.pause(err)
		select {
		case <-time.After(fullRetry):
		case <-r.ctx.Done():
			return err
		}
	}
}

// pause reports to all origins that the disk is full, as err says, or that there is room again.
func (r *receiver) pause(err error) {
	r.mu.Lock() // keeps the reports in order
	defer r.mu.Unlock()
	if !r.t.meter.setPaused(err != nil) {
		return
	}
	if err != nil {
		r.t.tell(Event{EventPaused, "", "", err})
	} else {
		r.t.tell(Event{EventResumed, "", "", nil})
	}
	for _, o := range r.origins {
		if err == nil {
			_ = o.ctl.send(wire.KindResume, false, nil) // a failure shows at the reader
		} else {
			_ = o.ctl.send(wire.KindPause, false, whyOf(err).Append) // same
		}
	}
}
