package transfer

import (
	"math"
	"slices"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// Bounds of the requests to an origin that are still open.
const (
	firstWindow = 8 << 20 // bytes
	mostWindow  = 256 << 20
	mostWanted  = 16384 // pieces and files
	mostLayers  = 8     // files that wait for their layers
	holeWeight  = 64    // a piece of a sparse file counts this much less: most are holes
	stealKeys   = 16    // pieces that an idle origin takes over from a busy one at a time
)

// planLocked requests as much from an origin as its window allows.
func (r *receiver) planLocked(o *origin) {
	if r.over || !o.attached || o.inflight > o.window/2 && !o.fresh {
		return
	}
	r.askLocked(o)
	r.askUnsureLocked(o)
	p := plan{r: r, o: o}
	p.again()
	p.fetched()
	p.further()
	p.steal()
	p.send()
}

// askLocked asks an origin for the layers and roots that have not been requested.
func (r *receiver) askLocked(o *origin) {
	if r.hashed { // files without a layer are in fetched, and there may be many that were set aside
		for _, a := range r.fetched {
			r.askUnaskedLocked(o, a)
		}
		return
	}
	for _, a := range r.active {
		r.askUnaskedLocked(o, a)
	}
}

func (r *receiver) askUnaskedLocked(o *origin, a *active) {
	if r.active[a.id] == a && a.asked == nil && o.lacks[a.id] == nil {
		r.askForLocked(o, a)
	}
}

// askForLocked requests what a file needs next, if that is not a piece.
func (r *receiver) askForLocked(o *origin, a *active) {
	kind := wire.KindWantLayer
	switch {
	case r.hashed && a.tree == nil:
		a.layer = a.layer[:0]
	case !r.hashed && a.left == 0:
		kind = wire.KindWantRoot
	default:
		return
	}
	a.asked = o
	_ = o.ctl.send(kind, false, func(b []byte) []byte { return wire.AppendFile(b, a.id) }) // a failure shows at the reader
}

// plan is a WANT being built. Receiver.mu guards it.
type plan struct {
	r     *receiver
	o     *origin
	items []wire.Want
}

// full reports whether the origin has enough open requests.
func (p *plan) full() bool {
	return p.o.inflight >= p.o.window || len(p.o.wanted) >= mostWanted || len(p.items) >= wire.MaxWants
}

// want requests one piece, or a whole file of one piece.
func (p *plan) want(k key, weight int64) {
	p.o.wanted[k] = weight
	p.o.inflight += weight
	p.o.due++
	n := len(p.items)
	single := p.r.active[k.file()] == nil
	if n > 0 {
		w := &p.items[n-1]
		switch {
		case single && w.Pieces == 0 && w.File+w.Files <= k.file() && p.r.skippable(w.File+w.Files, k.file()):
			w.Files = k.file() - w.File + 1
			return
		case !single && w.File == k.file() && w.Pieces > 0 && int(w.Piece+w.Pieces) == k.piece():
			w.Pieces++
			return
		}
	}
	w := wire.Want{File: k.file(), Files: 1}
	if !single {
		w.Piece, w.Pieces = uint32(k.piece()), 1
	}
	p.items = append(p.items, w)
}

// skippable reports whether a WANT of several files would deliver none of the entries from one to another.
func (r *receiver) skippable(from, to uint32) bool {
	for ; from < to; from++ {
		if e := &r.entries[from]; e.Kind == manifest.KindFile && e.Size > 0 {
			return false
		}
	}
	return true
}

// again requests pieces that were lost on the way.
func (p *plan) again() {
	kept := p.r.again[:0]
	for i, k := range p.r.again {
		switch {
		case p.full():
			kept = append(kept, p.r.again[i:]...)
			p.r.again = kept
			return
		case !p.r.missingLocked(k) || p.r.isAsideLocked(k.file()):
		case p.o.lacks[k.file()] != nil:
			kept = append(kept, k)
		default:
			p.take(k)
		}
	}
	p.r.again = kept
}

// isAsideLocked reports whether a file waits for an origin that has it.
func (r *receiver) isAsideLocked(id uint32) bool {
	_, is := r.aside[id]
	return is
}

// setAsideLocked makes a file that no attached origin has wait, so that it does not block others. plan drops the file's pieces in again and
// fetched; takeUpLocked scans the whole file again.
func (r *receiver) setAsideLocked(id uint32) {
	if len(r.origins) > 0 && !r.isHadLocked(id) {
		r.aside[id] = struct{}{}
	}
}

// takeUpLocked plans all waiting files again, because there is an origin that may have them.
func (r *receiver) takeUpLocked() {
	if len(r.aside) == 0 {
		return
	}
	r.fetched = slices.DeleteFunc(r.fetched, func(a *active) bool { return r.isAsideLocked(a.id) })
	for id := range r.aside {
		if a := r.active[id]; a != nil {
			a.next = 0
			r.fetched = append(r.fetched, a)
		} else if r.files[id] == fileNew {
			r.cursor = min(r.cursor, id)
		}
	}
	clear(r.aside)
}

// missingLocked reports whether a piece is neither present nor requested.
func (r *receiver) missingLocked(k key) bool {
	if a := r.active[k.file()]; a != nil {
		return a.state[k.piece()] == pieceNew
	}
	return r.files[k.file()] == fileNew
}

// take marks a missing piece as wanted, and requests it.
func (p *plan) take(k key) {
	if a := p.r.active[k.file()]; a != nil {
		a.state[k.piece()] = pieceWanted
	} else {
		p.r.files[k.file()] = fileWanted
	}
	p.want(k, p.r.weight(k))
}

// weight returns how much a piece counts in a window.
func (r *receiver) weight(k key) int64 {
	_, n := r.shapeOf(k.file()).Span(k.piece())
	if r.entries[k.file()].Flags&manifest.FlagSparse != 0 {
		return max(1, int64(n)/holeWeight)
	}
	return int64(n)
}

// fetched requests pieces of files that are being fetched.
func (p *plan) fetched() {
	kept := p.r.fetched[:0]
	for _, a := range p.r.fetched {
		if p.r.active[a.id] != a || p.r.isAsideLocked(a.id) {
			continue
		}
		if (p.r.hashed && a.tree == nil) || p.o.lacks[a.id] != nil {
			kept = append(kept, a)
			continue
		}
		for ; a.next < len(a.state) && !p.full(); a.next++ {
			if a.state[a.next] == pieceNew {
				p.take(keyOf(a.id, a.next))
			}
		}
		if a.next < len(a.state) {
			kept = append(kept, a)
		}
	}
	clear(p.r.fetched[len(kept):])
	p.r.fetched = kept
}

// further continues with files that nothing was requested of.
func (p *plan) further() {
	r := p.r
	for ; int(r.cursor) < len(r.entries) && !p.full() && len(r.fetched) < mostLayers; r.cursor++ {
		id := r.cursor
		if r.files[id] != fileNew || r.isAsideLocked(id) {
			continue
		}
		switch {
		case r.shapeOf(id).Pieces() > 1:
			a := r.newActive(id)
			r.files[id] = fileActive
			r.active[id] = a
			r.fetched = append(r.fetched, a)
			r.askUnaskedLocked(p.o, a)
			p.fetched()
		case p.o.lacks[id] != nil: // another origin has it
			r.again = append(r.again, keyOf(id, 0))
		default:
			p.take(keyOf(id, 0))
		}
	}
}

// steal requests from an idle origin some of the data that another origin is slow to deliver.
func (p *plan) steal() {
	if len(p.o.wanted) > 0 || len(p.r.origins) < 2 {
		return
	}
	var from *origin
	for o := range p.r.origins {
		if o != p.o && len(o.wanted) > 0 && (from == nil || len(o.wanted) > len(from.wanted)) {
			from = o
		}
	}
	if from == nil {
		return
	}
	for k, weight := range from.wanted {
		if p.o.lacks[k.file()] == nil && len(p.o.wanted) < stealKeys {
			p.want(k, weight)
		}
	}
}

// send sends the WANT.
func (p *plan) send() {
	if len(p.items) == 0 {
		return // a sender that forgot nothing delivers data that is already present, which is dropped
	}
	fresh := p.o.fresh
	p.o.fresh = false
	_ = p.o.ctl.send(wire.KindWant, fresh, func(b []byte) []byte { return wire.AppendWants(b, p.items) }) // a failure shows at the reader
}

// releaseLocked removes a delivered piece from the requests of all origins. The others may still deliver it.
func (r *receiver) releaseLocked(k key, from *origin) {
	for o := range r.origins {
		if weight, ok := o.wanted[k]; ok {
			delete(o.wanted, k)
			o.inflight -= weight
			o.lossy = o.lossy || o != from
		}
	}
}

// returnLocked puts back an origin's open requests.
func (r *receiver) returnLocked(o *origin) {
	for k := range o.wanted {
		r.putBackLocked(k, o)
	}
	clear(o.wanted)
	o.inflight = 0
}

// putBackLocked marks a piece requested from o as missing, unless it is requested from another origin too.
func (r *receiver) putBackLocked(k key, o *origin) {
	for other := range r.origins {
		if _, too := other.wanted[k]; too && other != o {
			return
		}
	}
	if a := r.active[k.file()]; a != nil {
		if a.state[k.piece()] != pieceWanted {
			return
		}
		a.state[k.piece()] = pieceNew
	} else {
		if r.files[k.file()] != fileWanted {
			return
		}
		r.files[k.file()] = fileNew
	}
	r.again = append(r.again, k)
}

// windowFor returns how many bytes may be under way: twice the capacity of the path.
func windowFor(rate float64, seconds float64) int64 {
	return int64(math.Min(mostWindow, math.Max(firstWindow, 2*rate*seconds)))
}
