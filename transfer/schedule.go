package transfer

import (
	"github.com/peerlane/peerlane/internal/b3tree"
	"github.com/peerlane/peerlane/transfer/internal/manifest"
)

// A schedule knows what is missing of a tree, and decides what is requested from which supplier. It does no I/O and has no lock and no clock:
// its receiver guards it, sends what it requests, and reports what has arrived.
//
//	next ── request ──> supplier ── claim ──> the receiver verifies and writes ──> here, complete
//	                        │                                    └── bad, lose ──> missing again
//	                        └── laneLost, detach, lack ──> missing again, or set aside until a supplier has it
type schedule struct {
	entries []manifest.Entry
	hashed  bool // the entries have the files' hashes

	files   []fileState
	active  map[uint32]*active  // files of several pieces in state fileActive
	fetched []*active           // those of active that plan takes pieces from, in order
	cursor  uint32              // the first entry that plan has not reached
	again   []key               // pieces that were lost on the way: they are requested first
	aside   map[uint32]struct{} // files that no attached supplier has: not planned until another one is attached
	unsure  map[uint32]*unsure  // files that are fileUnsure
	unasked []uint32            // those of unsure whose root has not been requested
	whole   []uint32            // complete files that need their names
	left    int                 // files that are neither in their place nor failed
	over    bool                // left is 0 and everything is settled: nothing more is requested

	suppliers     map[*supplier]struct{} // those that are attached
	suppliersLeft int                    // those that may still deliver something, now or after another connection
}

func newSchedule() schedule {
	return schedule{
		active: make(map[uint32]*active), aside: make(map[uint32]struct{}), unsure: make(map[uint32]*unsure),
		suppliers: make(map[*supplier]struct{}), suppliersLeft: 1,
	}
}

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
	left      int       // missing pieces
	next      int       // no piece before it is pieceNew
	asked     *supplier // the supplier asked for its layer or root
	resumed   int64     // bytes of the pieces from an earlier run
	restarts  int       // how often data of an earlier run was forgotten
	resetting bool      // the disk is forgetting it: another active follows
}

// pieceState is the state of a piece.
type pieceState uint8

const (
	pieceNew pieceState = iota
	pieceWanted
	pieceBusy
	pieceHere
)

// unsure is an existing file with the right size and time whose content is being compared with the sender's root.
type unsure struct {
	root  b3tree.Root // of the existing file
	asked *supplier   // the supplier asked for the root, or nil
}

// key identifies a piece among those of all files.
type key uint64

func keyOf(file uint32, piece int) key { return key(file)<<32 | key(uint32(piece)) }

func (k key) file() uint32 { return uint32(k >> 32) }
func (k key) piece() int   { return int(uint32(k)) }

// shapeOf returns the shape of a file that begin has accepted.
func (s *schedule) shapeOf(id uint32) b3tree.Shape {
	shape, err := b3tree.ShapeOf(s.entries[id].Size)
	if err != nil {
		panic("BUG: " + err.Error()) // begin has checked it
	}
	return shape
}

// newActive returns the state of a file of several pieces, none of which is present.
func (s *schedule) newActive(id uint32) *active {
	shape := s.shapeOf(id)
	a := &active{id: id, shape: shape, state: make([]pieceState, shape.Pieces()), left: shape.Pieces()}
	if !s.hashed {
		a.layer = make([]b3tree.CV, shape.Pieces())
	}
	return a
}

// activate makes plan take pieces from a file.
func (s *schedule) activate(a *active) {
	s.files[a.id] = fileActive
	s.active[a.id] = a
	s.fetched = append(s.fetched, a)
}

// missing reports whether a piece is neither present nor requested.
func (s *schedule) missing(k key) bool {
	if a := s.active[k.file()]; a != nil {
		return a.state[k.piece()] == pieceNew
	}
	return s.files[k.file()] == fileNew
}

// here records that a piece is present, and reports whether all pieces of the file are.
func (s *schedule) here(a *active, i int, cv b3tree.CV) (isLast bool) {
	a.state[i] = pieceHere
	if a.tree == nil {
		a.layer[i] = cv
	}
	if a.left--; a.left > 0 {
		return false
	}
	a.asked = nil
	return true
}

// complete queues a file that has all its data for its name, if it is still in the state was: its sender may have reported it as failed. It
// reports whether the queue is due.
func (s *schedule) complete(id uint32, was fileState) (isDue bool) {
	delete(s.active, id)
	if s.files[id] != was {
		return false
	}
	s.files[id] = fileWhole
	s.whole = append(s.whole, id)
	return len(s.whole) >= settleFiles || len(s.whole) == s.left
}

// isSettled reports whether a file is complete, in its place, or failed.
func (s *schedule) isSettled(id uint32) bool {
	if int64(id) >= int64(len(s.files)) {
		return false
	}
	f := s.files[id]
	return f == fileWhole || f == filePlaced || f == fileFailed
}

// lose makes a present piece missing again.
func (s *schedule) lose(a *active, i int) {
	a.state[i] = pieceNew
	a.left++
	s.again = append(s.again, keyOf(a.id, i))
}

// loseFile makes a complete file of one piece missing again.
func (s *schedule) loseFile(id uint32) {
	s.files[id] = fileNew
	s.again = append(s.again, keyOf(id, 0))
}

// restart makes all pieces of a file missing again.
func (s *schedule) restart(a *active) {
	again := s.newActive(a.id)
	again.restarts = a.restarts + 1
	s.activate(again)
}

// renew makes plan fetch a file that exists with another content.
func (s *schedule) renew(id uint32) {
	s.files[id] = fileNew
	s.cursor = min(s.cursor, id)
}

// drop ends a file that will not arrive, and reports whether that is new.
func (s *schedule) drop(id uint32) bool {
	if s.files[id] == fileFailed || s.files[id] == filePlaced {
		return false
	}
	s.files[id] = fileFailed
	s.left--
	return true
}

// dropUnsure ends the comparison of a file.
func (s *schedule) dropUnsure(id uint32) {
	if u := s.unsure[id]; u != nil {
		if u.asked != nil {
			u.asked.unsure--
		}
		delete(s.unsure, id)
	}
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

// verify compares a piece with its hash: the file's, or the one sent with the piece, which it then returns. data is nil for zeros.
func (a *active) verify(i int, data, hash []byte) (cv b3tree.CV, err error) {
	switch {
	case a.tree != nil && data == nil:
		return cv, a.tree.VerifyZeros(i)
	case a.tree != nil:
		return cv, a.tree.Verify(i, data)
	case data == nil:
		return a.shape.ZeroCV(i) // the hash from the sender would add nothing
	}
	cv, err = a.shape.PieceCV(i, data)
	if err == nil && cv != b3tree.CV(hash) {
		err = &b3tree.PieceError{Index: i, Reason: "does not fit the hash that came with it"}
	}
	return cv, err
}
