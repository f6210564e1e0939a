package transfer

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/fault"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/staging"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// stagingOptions returns the options of the receiver's state.
func (r *receiver) stagingOptions() *staging.Options {
	return &staging.Options{Rules: r.o.Rules, Overwrite: r.o.Overwrite, Sync: r.o.Sync}
}

// recall resumes from the data of an earlier run for the tree with that root, and reports whether there is any. If not, a sender must send
// its listing.
func (r *receiver) recall(root [32]byte) (bool, error) {
	st, err := staging.Open(r.disk, idOf(root), r.stagingOptions())
	if err != nil {
		if CodeOf(err) == fault.CodeNoState {
			return false, nil
		}
		return false, err
	}
	if !isTree(st.Entries(), root) {
		return false, st.Close() // only half of the root is equal: another tree
	}
	hashed, err := isHashed(st.Entries())
	if err != nil {
		_ = st.Close() // only the first error counts
		return false, err
	}
	return true, r.begin(listing{root: root, hashed: hashed, entries: st.Entries()}, st)
}

// begin prepares for a tree: it finds out what is already present, what is left to fetch, and whether there is room. st is the tree's
// state, or nil if begin must find or make it. A second begin only checks that it is the same tree.
func (r *receiver) begin(l listing, st *staging.Staging) (err error) {
	r.beginning.Lock()
	defer r.beginning.Unlock()
	if r.broken != nil {
		return r.broken
	}
	if r.st != nil {
		if r.root != l.root {
			return wire.Breachf("a second manifest, of another root")
		}
		return nil
	}
	defer func() {
		if r.broken = err; err != nil && r.st == nil && st != nil {
			_ = st.Close() // only the first error counts
		}
	}()
	if r.ctx.Err() != nil { // close has run, or runs after this returns: nothing else would close the state
		return context.Cause(r.ctx)
	}
	if err := checkSizes(l.entries); err != nil {
		return err
	}
	complete := false
	if st == nil {
		if complete, err = r.place(l); err != nil {
			return err
		}
		if st, err = r.state(l); err != nil {
			return err
		}
		complete = complete && st.IsEmpty()
	}
	r.st, r.root, r.hashed, r.entries = st, l.root, l.hashed, st.Entries()
	r.named(l.name)
	r.t.meter.setPhase(PhaseList)
	if err := r.survey(); err != nil {
		return err
	}
	if complete {
		if err := r.checkComplete(); err != nil {
			return err
		}
	}
	if err := r.checkRoom(); err != nil {
		return err
	}
	r.t.meter.setPhase(PhaseData)
	close(r.ready)
	r.kick()
	return nil
}

// named records the name of the tree, given the sender's.
func (r *receiver) named(said string) { r.t.listed(nameOf(r.entries, said), r.root) }

// state finds or creates the state of a tree.
func (r *receiver) state(l listing) (*staging.Staging, error) {
	id := idOf(l.root)
	st, err := staging.Open(r.disk, id, r.stagingOptions())
	if err == nil && isTree(st.Entries(), l.root) {
		return st, nil
	}
	if err == nil {
		err = st.Close()
	}
	if err != nil && CodeOf(err) != fault.CodeNoState {
		return nil, err
	}
	if err := staging.Discard(r.disk, id); err != nil {
		return nil, err
	}
	return staging.Create(r.disk, id, l.entries, r.stagingOptions())
}

// checkSizes refuses files whose pieces are too large for memory.
func checkSizes(entries []manifest.Entry) error {
	for i := range entries {
		shape, err := b3tree.ShapeOf(entries[i].Size)
		if err != nil || shape.PieceSize() > maxPiece {
			return &Error{Code: CodeTooLarge, Path: entries[i].Path, Text: "a file of more than 4 TiB: split it"}
		}
	}
	return nil
}

// survey determines the state of each file.
func (r *receiver) survey() error {
	r.files = make([]fileState, len(r.entries))
	m := r.t.meter
	for i := range r.entries {
		e, id := &r.entries[i], uint32(i)
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		if e.Kind != manifest.KindFile {
			r.files[i] = filePlaced
			continue
		}
		m.files.Add(1)
		m.bytes.Add(e.Size)
		if err := r.surveyFile(e, id); err != nil {
			return err
		}
		if r.files[i] == filePlaced {
			m.filesDone.Add(1)
			m.resumed.Add(e.Size)
		} else {
			r.left++
		}
	}
	m.verified.Store(m.resumed.Load())
	m.durable.Store(m.resumed.Load())
	return nil
}

func (r *receiver) surveyFile(e *manifest.Entry, id uint32) error {
	isPublished := r.st.Published(id)
	if isPublished && !r.readsExisting() {
		r.files[id] = filePlaced
		return nil
	}
	same, err := r.st.Existing(id)
	switch {
	case err != nil:
		return err
	case same && r.readsExisting():
		err := r.compare(e, id)
		if err != nil || r.files[id] != fileNew {
			return err
		}
	case same:
		return r.adopt(id)
	case isPublished: // it was present a moment ago
		if err := r.st.Reset(id); err != nil {
			return err
		}
	}
	if e.Size == 0 {
		r.empty = append(r.empty, id)
		r.files[id] = fileBusy
		return nil
	}
	switch {
	case r.shapeOf(id).Pieces() == 1:
		return nil
	case len(r.st.Have(id)) > 0:
		return r.resume(id)
	}
	return r.trimLayer(id, nil)
}

// samplePieces is how many pieces of a file VerifySample reads again, in addition to the first and the last.
const samplePieces = 64

// resume takes over a file's data from an earlier run, as far as it passes verification.
func (r *receiver) resume(id uint32) error {
	a := r.newActive(id)
	have := piecesIn(a.shape, r.st.Have(id))
	err := r.recallLayer(a, have)
	if err == nil {
		err = r.verify(a, have)
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if err != nil { // then no data on the disk is trusted
		r.t.tell(Event{EventFetchedAgain, "", r.entries[id].Path, err})
		return r.st.Reset(id)
	}
	if err := r.trimLayer(id, have); err != nil {
		return err
	}
	for _, i := range have {
		a.state[i] = pieceHere
		_, n := a.shape.Span(i)
		a.resumed += int64(n)
	}
	r.t.meter.resumed.Add(a.resumed)
	if a.left -= len(have); a.left == 0 && r.hashed {
		r.files[id] = fileWhole
		r.whole = append(r.whole, id)
		return nil
	}
	r.activate(a)
	return nil
}

// piecesIn returns the pieces that lie completely in the ranges.
func piecesIn(shape b3tree.Shape, ranges []staging.Range) []int {
	var in []int
	size := int64(shape.PieceSize())
	for _, g := range ranges {
		first := (g.From + size - 1) / size
		for i := int(first); i < shape.Pieces(); i++ {
			off, n := shape.Span(i)
			if off+int64(n) > g.To {
				break
			}
			in = append(in, i)
		}
	}
	return in
}

// recallLayer loads the hashes that the state has of a file.
func (r *receiver) recallLayer(a *active, have []int) error {
	b, err := r.st.Layer(a.id)
	if err != nil {
		return err
	}
	layer, err := a.shape.ConsumeLayer(nil, b)
	if err != nil {
		return err
	}
	if !r.hashed {
		for _, i := range have {
			if i >= len(layer) {
				return fmt.Errorf("piece %d has no hash", i)
			}
			a.layer[i] = layer[i]
		}
		return nil
	}
	a.tree, err = b3tree.NewTree(a.shape, b3tree.Root(r.entries[a.id].Hash), layer)
	return err
}

// trimLayer forgets the hashes of pieces that are not present, unless the file's own hash vouches for them: the pieces may arrive with
// others.
func (r *receiver) trimLayer(id uint32, have []int) error {
	if r.hashed {
		return nil
	}
	keep := make([]staging.Range, 0, len(have))
	for _, i := range have {
		keep = append(keep, staging.Range{From: int64(i), To: int64(i) + 1})
	}
	return r.st.TrimLayer(id, keep)
}

// verify reads some or all of the present pieces again, and compares them with their hashes.
func (r *receiver) verify(a *active, have []int) error {
	if r.o.Verify == VerifyNothing || len(have) == 0 {
		return nil
	}
	picked := have
	if r.o.Verify == VerifySample && len(have) > samplePieces+2 {
		picked = []int{have[0], have[len(have)-1]}
		for range samplePieces {
			picked = append(picked, have[rand.IntN(len(have))])
		}
	}
	buf := make([]byte, a.shape.PieceSize())
	for _, i := range picked {
		if err := r.ctx.Err(); err != nil {
			return err // resume knows why
		}
		off, n := a.shape.Span(i)
		if _, err := r.st.ReadAt(a.id, buf[:n], off); err != nil {
			return err
		}
		if err := a.check(i, buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// checkRoom refuses to begin a transfer that has no room to finish.
func (r *receiver) checkRoom() error {
	bytes, inodes := r.st.Needs()
	for id := range r.unsure { // these files exist, and will most likely stay
		bytes, inodes = bytes-r.entries[id].Size, inodes-1
	}
	freeBytes, freeInodes, err := staging.Free(r.disk)
	if err != nil {
		return nil // a full disk is noticed later
	}
	if bytes > freeBytes {
		return &Error{Code: CodeNoSpace, Text: fmt.Sprintf("%d bytes are needed, and %d are free: make room and try again", bytes, freeBytes)}
	}
	if freeInodes >= 0 && inodes > freeInodes {
		return &Error{Code: CodeNoSpace, Text: fmt.Sprintf("%d files are to come, and the disk has room for %d", inodes, freeInodes)}
	}
	return nil
}
