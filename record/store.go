package record

import (
	"crypto/rand"
	"iter"
)

// A Store keeps the positions of one record stream, and the records that its peer has not acknowledged, so that another stream can continue
// from there after a lost session or in another process. Package boltstore has one on disk.
//
// A stream calls it from one goroutine at a time. An error ends the stream, with ErrStore. While a stream of this process has the Store,
// another one with the same Store (compared with ==) calls Begin only once its peer has accepted it.
type Store interface {
	// Begin takes the store for one stream and returns its place. It calls the previous holder's lost function, and waits until that holder
	// has called End.
	Begin(lost func()) (Place, error)
	// Tail returns the stored records from seq on, in order. A payload is valid until the next record is requested.
	Tail(seq uint64) iter.Seq2[Record, error]
	// Append stores records, the first of which has the number first, durably before it returns. Records up to acked may be forgotten.
	Append(first uint64, records iter.Seq[[]byte], acked uint64) error
	// Applied stores the position in the peer's log, durably. A position that is not beyond the stored one changes nothing. A stream begins
	// with the position that it reads from, so that the Store knows the log before anything of it is applied; an error that matches
	// ErrHistory then refuses the stream.
	Applied(log LogID, seq uint64) error
	// End releases the store; records up to acked may be forgotten.
	End(acked uint64) error
}

// A Place is a side's position in both logs (spec 3.4, 3.5).
type Place struct {
	Log     LogID  // the log that this side writes
	Next    uint64 // the number of the next record that it writes; the first is 1
	Acked   uint64 // the last record known to be applied: all later ones are kept
	Peer    LogID  // the log that this side reads; zero: it has no position there
	Applied uint64 // the last applied record of that log
}

// NewLogID returns a random LogID.
func NewLogID() LogID {
	var id LogID
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// noStore returns the place of a stream without a Store.
func noStore() Place { return Place{Log: NewLogID(), Next: 1} }
