package transfer

import "math"

// A supplier is an origin as the schedule sees it: what was requested from it, and what it cannot deliver.
type supplier struct {
	stage    supplierStage
	wanted   map[key]int64     // what was requested from it, with weights
	inflight int64             // sum of the weights
	due      int64             // pieces and files that it may deliver: those requested, less those delivered
	window   int64             // limit of inflight
	lossy    bool              // it has lost a lane, or another one was faster: data may arrive that is no longer wanted
	fresh    bool              // the next WANT makes it forget the earlier ones
	lacks    map[uint32]*Error // files that it cannot deliver, and why
	anyRoot  bool              // it can send the root of any file
	unsure   int               // roots of existing files requested from it
	bad      int               // wrong pieces
}

// supplierStage is how far a supplier's life is.
type supplierStage uint8

const (
	supplierNew      supplierStage = iota
	supplierAttached               // it may be asked
	supplierGone                   // it may be asked nothing more
)

// firstWindow and mostWindow bound the window of a supplier, in bytes.
const (
	firstWindow = 8 << 20
	mostWindow  = 256 << 20
)

func newSupplier(anyRoot bool) supplier {
	return supplier{wanted: make(map[key]int64), window: firstWindow, lacks: make(map[uint32]*Error), anyRoot: anyRoot}
}

// resize sets the window to twice the capacity of the path, but at once to no less than half of what it was.
func (o *supplier) resize(rate, seconds float64) {
	o.window = max(o.window/2, windowFor(rate, seconds))
}

// windowFor returns how many bytes may be under way: twice the capacity of the path.
func windowFor(rate float64, seconds float64) int64 {
	return int64(math.Min(mostWindow, math.Max(firstWindow, 2*rate*seconds)))
}

// attach allows requests to a supplier. Files that were set aside are planned again: it may have them.
func (s *schedule) attach(o *supplier) {
	o.stage = supplierAttached
	s.suppliers[o] = struct{}{}
	if !s.over {
		s.takeUp()
	}
}

// detach ends the requests to a supplier, and returns what is open, so that others can deliver it.
func (s *schedule) detach(o *supplier) {
	o.stage = supplierGone
	s.giveBack(o)
	delete(s.suppliers, o)
	s.unask(o)
	if s.over {
		return
	}
	for other := range s.suppliers {
		for id := range other.lacks { // a file that one supplier has is not set aside
			s.setAside(id)
		}
		break
	}
}

// unask queues again what a lost supplier was asked for, besides pieces, and has not sent.
func (s *schedule) unask(o *supplier) {
	for id, u := range s.unsure {
		if u.asked == o {
			u.asked = nil
			s.unasked = append(s.unasked, id)
		}
	}
	o.unsure = 0
	for _, a := range s.active {
		if a.asked == o {
			a.asked = nil
		}
	}
}

// laneLost returns the open requests to a supplier, which does not know which of them were lost. It reports whether there is anything to do.
func (s *schedule) laneLost(o *supplier) bool {
	if s.over || o.stage == supplierGone {
		return false
	}
	o.lossy, o.fresh = true, true
	s.giveBack(o)
	return true
}

// verdict is the decision about a received piece.
type verdict uint8

const (
	dropped verdict = iota // it is already present, or its file has failed
	taken                  // the caller handles it
	refused                // it was not requested, or not as often
)

// claim claims a received piece, if it is still wanted. From a supplier that has lost a lane, a piece that is no longer wanted is accepted
// too. But no supplier may deliver more than was requested from it: the cost is bounded by the requests, and not by the contents of a frame
// (spec 4.5).
func (s *schedule) claim(o *supplier, k key) verdict {
	s.release(k, o)
	if o.due--; o.due < 0 {
		return refused
	}
	late := o.lossy || o.lacks[k.file()] != nil // data may have been sent before the supplier reported the file as lacking
	if a := s.active[k.file()]; a != nil {
		switch state := &a.state[k.piece()]; {
		case *state == pieceHere || *state == pieceBusy:
			return dropped
		case *state == pieceNew && !late:
			return refused
		case s.hashed && a.tree == nil:
			return refused
		default:
			*state = pieceBusy
			return taken
		}
	}
	switch state := &s.files[k.file()]; *state {
	case fileWanted:
		*state = fileBusy
		return taken
	case fileNew, fileActive:
		if !late || s.shapeOf(k.file()).Pieces() > 1 {
			return refused
		}
		*state = fileBusy
		return taken
	}
	return dropped
}

// release removes a delivered piece from the requests to all suppliers. The others may still deliver it.
func (s *schedule) release(k key, from *supplier) {
	for o := range s.suppliers {
		if weight, ok := o.wanted[k]; ok {
			delete(o.wanted, k)
			o.inflight -= weight
			o.lossy = o.lossy || o != from
		}
	}
}

// badPieces is how many wrong pieces an only supplier may send.
const badPieces = 3

// refute makes a claimed piece missing again that is not what it should be, and reports whether its supplier must go.
func (s *schedule) refute(o *supplier, k key) (mustGo bool) {
	if a := s.active[k.file()]; a != nil {
		a.state[k.piece()] = pieceNew
		s.again = append(s.again, k)
	} else if s.files[k.file()] == fileBusy {
		s.files[k.file()] = fileNew
		s.again = append(s.again, k)
	}
	o.bad++
	return o.bad >= badPieces || len(s.suppliers) > 1
}

// giveBack makes missing again what was requested from a supplier and has not arrived.
func (s *schedule) giveBack(o *supplier) {
	for k := range o.wanted {
		s.putBack(k, o)
	}
	clear(o.wanted)
	o.inflight = 0
}

// putBack marks a piece requested from o as missing, unless it is requested from another supplier too.
func (s *schedule) putBack(k key, o *supplier) {
	for other := range s.suppliers {
		if _, too := other.wanted[k]; too && other != o {
			return
		}
	}
	if a := s.active[k.file()]; a != nil {
		if a.state[k.piece()] != pieceWanted {
			return
		}
		a.state[k.piece()] = pieceNew
	} else {
		if s.files[k.file()] != fileWanted {
			return
		}
		s.files[k.file()] = fileNew
	}
	s.again = append(s.again, k)
}

// lack records that a supplier cannot deliver a file, and reports whether no other one can.
func (s *schedule) lack(o *supplier, id uint32, why *Error) (isLacked bool) {
	o.lacks[id] = why
	for k, weight := range o.wanted {
		if k.file() == id {
			s.putBack(k, o)
			o.inflight -= weight
			delete(o.wanted, k)
		}
	}
	if a := s.active[id]; a != nil && a.asked == o {
		a.asked = nil
	}
	s.dropUnsure(id)
	if s.isLacked(id) {
		return true
	}
	s.setAside(id)
	return false
}

// supplierEnded records that a supplier is no longer usable, and returns the files that now nobody has, and why.
func (s *schedule) supplierEnded() (lacked map[uint32]*Error) {
	s.suppliersLeft--
	for o := range s.suppliers {
		for id, why := range o.lacks {
			if s.files != nil && s.isLacked(id) {
				if lacked == nil {
					lacked = make(map[uint32]*Error)
				}
				lacked[id] = why
			}
		}
		break // not all suppliers lack the file if one does not
	}
	return lacked
}

// isLacked reports whether no supplier has a file. One that is not attached at the moment may have it.
func (s *schedule) isLacked(id uint32) bool {
	return len(s.suppliers) >= s.suppliersLeft && !s.isHad(id)
}

// isHad reports whether an attached supplier may have a file.
func (s *schedule) isHad(id uint32) bool {
	for o := range s.suppliers {
		if o.lacks[id] == nil {
			return true
		}
	}
	return false
}

// isAside reports whether a file waits for a supplier that has it.
func (s *schedule) isAside(id uint32) bool {
	_, is := s.aside[id]
	return is
}

// setAside makes a file that no attached supplier has wait, so that it does not block others. plan drops the file's pieces in again and
// fetched; takeUp scans the whole file again.
func (s *schedule) setAside(id uint32) {
	if len(s.suppliers) > 0 && !s.isHad(id) {
		s.aside[id] = struct{}{}
	}
}
