package transfer

import (
	"slices"

	"github.com/peerlane/peerlane/transfer/internal/manifest"
	"github.com/peerlane/peerlane/transfer/internal/wire"
)

// Bounds of the requests to a supplier that are still open.
const (
	mostWanted = 16384 // pieces and files
	mostLayers = 8     // files that wait for their layers
	mostUnsure = 256   // roots of existing files
	holeWeight = 64    // a piece of a sparse file counts this much less: most are holes
	stealKeys  = 16    // pieces that an idle supplier takes over from a busy one at a time
)

// request is what a supplier is to be asked: layers and roots, and then pieces.
type request struct {
	asks    []ask
	wants   []wire.Want // one WANT, unless empty
	fresh   bool        // the WANT makes it forget the earlier ones
	mustEnd bool        // it cannot send what only it could be asked for: the roots of existing files
}

// next returns what to request from a supplier now: as much as its window allows.
func (s *schedule) next(o *supplier) request {
	if s.over || o.stage != supplierAttached || o.inflight > o.window/2 && !o.fresh {
		return request{}
	}
	p := plan{schedule: s, o: o}
	p.ask()
	p.askUnsure()
	p.repeat()
	p.fetch()
	p.further()
	p.steal()
	if len(p.wants) > 0 { // a supplier that forgot nothing delivers data that is already present, which is dropped
		p.fresh, o.fresh = o.fresh, false
	}
	return p.request
}

// plan is a request being built.
type plan struct {
	*schedule
	o *supplier
	request
}

// ask asks for the layers and roots that have not been requested.
func (p *plan) ask() {
	if p.hashed { // files without a layer are in fetched, and there may be many that were set aside
		for _, a := range p.fetched {
			p.askUnasked(a)
		}
		return
	}
	for _, a := range p.active {
		p.askUnasked(a)
	}
}

func (p *plan) askUnasked(a *active) {
	if p.active[a.id] != a || a.asked != nil || p.o.lacks[a.id] != nil {
		return
	}
	if next, ok := p.askFor(p.o, a); ok {
		p.asks = append(p.asks, next)
	}
}

// askFor returns what a file needs next from a supplier, if that is not a piece, and records the request.
func (s *schedule) askFor(o *supplier, a *active) (next ask, ok bool) {
	switch {
	case s.hashed && a.tree == nil:
		a.layer = a.layer[:0]
		next.kind = wire.KindWantLayer
	case !s.hashed && a.left == 0:
		next.kind = wire.KindWantRoot
	default:
		return next, false
	}
	a.asked, next.file = o, a.id
	return next, true
}

// askAny is askFor of any supplier that has the file.
func (s *schedule) askAny(a *active) (o *supplier, next ask, ok bool) {
	for o := range s.suppliers {
		if o.lacks[a.id] == nil {
			next, ok = s.askFor(o, a)
			return o, next, ok
		}
	}
	return nil, next, false
}

// askUnsure asks for the roots of existing files, mostUnsure at a time.
func (p *plan) askUnsure() {
	for len(p.unasked) > 0 && p.o.unsure < mostUnsure {
		if !p.o.anyRoot {
			p.mustEnd = true
			return
		}
		id := p.unasked[0]
		p.unasked = p.unasked[1:]
		u := p.unsure[id]
		if u == nil {
			continue // it has failed
		}
		u.asked = p.o
		p.o.unsure++
		p.asks = append(p.asks, ask{wire.KindWantRoot, id})
	}
}

// isFull reports whether the supplier has enough open requests.
func (p *plan) isFull() bool {
	return p.o.inflight >= p.o.window || len(p.o.wanted) >= mostWanted || len(p.wants) >= wire.MaxWants
}

// want requests one piece, or a whole file of one piece.
func (p *plan) want(k key, weight int64) {
	p.o.wanted[k] = weight
	p.o.inflight += weight
	p.o.due++
	single := p.active[k.file()] == nil
	if n := len(p.wants); n > 0 {
		w := &p.wants[n-1]
		switch {
		case single && w.Pieces == 0 && w.File+w.Files <= k.file() && p.isSkippable(w.File+w.Files, k.file()):
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
	p.wants = append(p.wants, w)
}

// isSkippable reports whether a WANT of several files would deliver none of the entries from one to another.
func (s *schedule) isSkippable(from, to uint32) bool {
	for ; from < to; from++ {
		if e := &s.entries[from]; e.Kind == manifest.KindFile && e.Size > 0 {
			return false
		}
	}
	return true
}

// take marks a missing piece as wanted, and requests it.
func (p *plan) take(k key) {
	if a := p.active[k.file()]; a != nil {
		a.state[k.piece()] = pieceWanted
	} else {
		p.files[k.file()] = fileWanted
	}
	p.want(k, p.weight(k))
}

// weight returns how much a piece counts in a window.
func (s *schedule) weight(k key) int64 {
	_, n := s.shapeOf(k.file()).Span(k.piece())
	if s.entries[k.file()].Flags&manifest.FlagSparse != 0 {
		return max(1, int64(n)/holeWeight)
	}
	return int64(n)
}

// repeat requests pieces that were lost on the way.
func (p *plan) repeat() {
	kept := p.again[:0]
	for i, k := range p.again {
		switch {
		case p.isFull():
			p.again = append(kept, p.again[i:]...)
			return
		case !p.missing(k) || p.isAside(k.file()):
		case p.o.lacks[k.file()] != nil:
			kept = append(kept, k)
		default:
			p.take(k)
		}
	}
	p.again = kept
}

// fetch requests pieces of files that are being fetched.
func (p *plan) fetch() {
	kept := p.fetched[:0]
	for _, a := range p.fetched {
		if p.active[a.id] != a || p.isAside(a.id) {
			continue
		}
		if (p.hashed && a.tree == nil) || p.o.lacks[a.id] != nil {
			kept = append(kept, a)
			continue
		}
		for ; a.next < len(a.state) && !p.isFull(); a.next++ {
			if a.state[a.next] == pieceNew {
				p.take(keyOf(a.id, a.next))
			}
		}
		if a.next < len(a.state) {
			kept = append(kept, a)
		}
	}
	clear(p.fetched[len(kept):])
	p.fetched = kept
}

// further continues with files that nothing was requested of.
func (p *plan) further() {
	for ; int(p.cursor) < len(p.entries) && !p.isFull() && len(p.fetched) < mostLayers; p.cursor++ {
		id := p.cursor
		if p.files[id] != fileNew || p.isAside(id) {
			continue
		}
		switch {
		case p.shapeOf(id).Pieces() > 1:
			a := p.newActive(id)
			p.activate(a)
			p.askUnasked(a)
			p.fetch()
		case p.o.lacks[id] != nil: // another supplier has it
			p.again = append(p.again, keyOf(id, 0))
		default:
			p.take(keyOf(id, 0))
		}
	}
}

// steal requests from an idle supplier some of the data that another one is slow to deliver.
func (p *plan) steal() {
	if len(p.o.wanted) > 0 || len(p.suppliers) < 2 {
		return
	}
	var from *supplier
	for o := range p.suppliers {
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

// takeUp plans all waiting files again, because there is a supplier that may have them.
func (s *schedule) takeUp() {
	if len(s.aside) == 0 {
		return
	}
	s.fetched = slices.DeleteFunc(s.fetched, func(a *active) bool { return s.isAside(a.id) })
	for id := range s.aside {
		if a := s.active[id]; a != nil {
			a.next = 0
			s.fetched = append(s.fetched, a)
		} else if s.files[id] == fileNew {
			s.cursor = min(s.cursor, id)
		}
	}
	clear(s.aside)
}
