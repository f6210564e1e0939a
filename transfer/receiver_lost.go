package transfer

import (
	"slices"

	"github.com/peerlane/peerlane/transfer/internal/staging"
)

// wantLost wants again what was here and has been lost by a sync that failed, as it does where a disk finds out only then that it is
// full.
func (r *receiver) wantLost() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.active {
		if !a.resetting {
			r.wantLostPiecesLocked(a)
		}
	}
	var kept []uint32
	for _, id := range r.whole {
		if len(r.st.Missing(id)) == 0 || r.entries[id].Size == 0 {
			kept = append(kept, id)
			continue
		}
		if err := r.wantLostFileLocked(id); err != nil {
			return err
		}
	}
	r.whole = kept
	r.planAllLocked()
	return nil
}

// wantLostPiecesLocked has the pieces of a that are lost be missing.
func (r *receiver) wantLostPiecesLocked(a *active) {
	missing := r.st.Missing(a.id)
	for i := range a.state {
		off, n := a.shape.Span(i)
		isLost := slices.ContainsFunc(missing, func(g staging.Range) bool { return g.From < off+int64(n) && off < g.To })
		if a.state[i] == pieceHere && isLost {
			r.lose(a, i)
			r.t.meter.forget(int64(n), 0)
		}
	}
}

// wantLostFileLocked has a file that was whole, and of which something is lost, be fetched again as far as that goes.
func (r *receiver) wantLostFileLocked(id uint32) error {
	if r.shapeOf(id).Pieces() == 1 {
		r.t.meter.forget(r.entries[id].Size, 0)
		r.loseFile(id)
		return nil
	}
	a := r.newActive(id)
	all := make([]int, len(a.state))
	for i := range all {
		all[i], a.state[i] = i, pieceHere
	}
	if err := r.recallLayer(a, all); err != nil {
		return err
	}
	a.left, a.next = 0, len(a.state)
	r.files[id] = fileActive
	r.active[id] = a
	r.wantLostPiecesLocked(a)
	return nil
}
