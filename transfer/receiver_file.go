package transfer

import "github.com/peerlane/peerlane/internal/b3tree"

// fileState is how far a file is.
type fileState uint8

const (
	fileNew    fileState = iota
	fileWanted           // one of one piece: it is on its way
	fileBusy             // one of one piece: it is being verified and written
	fileActive           // one of several pieces: see active
	fileWhole            // all is here, to be named
	filePlaced           // it has its name, or is left out
	fileFailed
	fileUnsure // it is there already, and compared with the sender's: see unsure
)

// active is a file of several pieces that is being fetched.
type active struct {
	id       uint32
	shape    b3tree.Shape
	tree     *b3tree.Tree // of a file with a hash: nil until its layer is here
	layer    []b3tree.CV  // of one with a hash: as far as it has come; of another: what the pieces that are here have
	state    []pieceState
	left     int     // pieces that are not here
	next     int     // no piece before it is pieceNew
	asked    *origin // who is asked for its layer or root
	resumed  int64   // bytes of the pieces that an earlier run has left
	restarts int     // times that what an earlier run had left was forgotten
}

// pieceState is how far a piece is.
type pieceState uint8

const (
	pieceNew pieceState = iota
	pieceWanted
	pieceBusy
	pieceHere
)

// key names a piece among those of all files.
type key uint64

func keyOf(file uint32, piece int) key { return key(file)<<32 | key(uint32(piece)) }

func (k key) file() uint32 { return uint32(k >> 32) }
func (k key) piece() int   { return int(uint32(k)) }

// shapeOf returns the shape of a file that begin has taken.
func (r *receiver) shapeOf(id uint32) b3tree.Shape {
	shape, err := b3tree.ShapeOf(r.entries[id].Size)
	if err != nil {
		panic("BUG: " + err.Error()) // begin has checked it
	}
	return shape
}

// newActive returns the state of a file of several pieces, none of which is here.
func (r *receiver) newActive(id uint32) *active {
	shape := r.shapeOf(id)
	a := &active{id: id, shape: shape, state: make([]pieceState, shape.Pieces()), left: shape.Pieces()}
	if !r.hashed {
		a.layer = make([]b3tree.CV, shape.Pieces())
	}
	return a
}

// check compares a piece with the hash that a has of it.
func (a *active) check(i int, data []byte) error {
	if a.tree != nil {
		return a.tree.Verify(i, data)
	}
	cv, err := a.shape.PieceCV(i, data)
	if err == nil && cv != a.layer[i] {
		err = &b3tree.PieceError{Index: i, Reason: "is not what was written"}
	}
	return err
}

// verify compares a piece with its hash: the file's, or the one that came with it, which it returns then.
func (a *active) verify(d *delivery, i int, data []byte) (cv b3tree.CV, err error) {
	switch {
	case a.tree != nil && data == nil:
		return cv, a.tree.VerifyZeros(i)
	case a.tree != nil:
		return cv, a.tree.Verify(i, data)
	case data == nil:
		return a.shape.ZeroCV(i) // the hash that a sender would add says nothing more
	}
	cv, err = a.shape.PieceCV(i, data)
	if err == nil && cv != b3tree.CV(d.hash) {
		err = &b3tree.PieceError{Index: i, Reason: "does not fit the hash that came with it"}
	}
	return cv, err
}
