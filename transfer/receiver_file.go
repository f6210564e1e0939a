package transfer

import "github.com/peerlane/peerlane/internal/b3tree"

// fileState is the state of a file.
type fileState uint8

const (
	fileNew    fileState = iota
	fileWanted           // of one piece: requested
	fileBusy             // of one piece: being verified and written
	fileActive           // of several pieces: see active
	fileWhole            // complete, needs its name
	filePlaced           // it has its name, or is skipped
	fileFailed
	fileUnsure // it exists, and is compared with the sender's: see unsure
)

// active is a file of several pieces that is being fetched.
type active struct {
	id        uint32
	shape     b3tree.Shape
	tree      *b3tree.Tree // of a file with a hash: nil until its layer has arrived
	layer     []b3tree.CV  // of a file with a hash: as far as it has arrived; of another: the hashes of the present pieces
	state     []pieceState
	left      int     // missing pieces
	next      int     // no piece before it is pieceNew
	asked     *origin // the origin asked for its layer or root
	resumed   int64   // bytes of the pieces from an earlier run
	restarts  int     // how often data of an earlier run was forgotten
	resetting bool    // the disk is forgetting it: another active follows
}

// pieceState is the state of a piece.
type pieceState uint8

const (
	pieceNew pieceState = iota
	pieceWanted
	pieceBusy
	pieceHere
)

// key identifies a piece among those of all files.
type key uint64

func keyOf(file uint32, piece int) key { return key(file)<<32 | key(uint32(piece)) }

func (k key) file() uint32 { return uint32(k >> 32) }
func (k key) piece() int   { return int(uint32(k)) }

// shapeOf returns the shape of a file that begin has accepted.
func (r *receiver) shapeOf(id uint32) b3tree.Shape {
	shape, err := b3tree.ShapeOf(r.entries[id].Size)
	if err != nil {
		panic("BUG: " + err.Error()) // begin has checked it
	}
	return shape
}

// newActive returns the state of a file of several pieces, none of which is present.
func (r *receiver) newActive(id uint32) *active {
	shape := r.shapeOf(id)
	a := &active{id: id, shape: shape, state: make([]pieceState, shape.Pieces()), left: shape.Pieces()}
	if !r.hashed {
		a.layer = make([]b3tree.CV, shape.Pieces())
	}
	return a
}

// check compares a piece with its hash in a.
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

// verify compares a piece with its hash: the file's, or the one sent with the piece, which it then returns.
func (a *active) verify(d *delivery, i int, data []byte) (cv b3tree.CV, err error) {
	switch {
	case a.tree != nil && data == nil:
		return cv, a.tree.VerifyZeros(i)
	case a.tree != nil:
		return cv, a.tree.Verify(i, data)
	case data == nil:
		return a.shape.ZeroCV(i) // the hash from the sender would add nothing
	}
	cv, err = a.shape.PieceCV(i, data)
	if err == nil && cv != b3tree.CV(d.hash) {
		err = &b3tree.PieceError{Index: i, Reason: "does not fit the hash that came with it"}
	}
	return cv, err
}
