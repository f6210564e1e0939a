package record

import (
	"crypto/rand"
	"iter"
)

// A Store keeps the places of one record stream, and the records that its peer has not acknowledged, so that another stream
// goes on where this one stood: after a lost session, or in another process. Package boltstore has one on disk.
//
// A stream calls it from one goroutine at a time. An error ends the stream, with ErrStore. While a stream of this process has the
// Store, another one with the same Store (compared with ==) calls Begin only once its peer has accepted it.
type Store interface {
	// Begin takes the store for one stream and returns its place. Who had it before is told by calling the lost that it gave,
	// and Begin waits until it has called End.
	Begin(lost func()) (Place, error)
	// Tail returns the records from seq on that are kept, in their order. A payload is valid until the next is asked for.
	Tail(seq uint64) iter.Seq2[Record, error]
	// Append keeps records, the first of which has the number first: durably, when it returns. Those up to acked may be
	// forgotten.
	Append(first uint64, records iter.Seq[[]byte], acked uint64) error
	// Applied keeps the place in the peer's log, durably. One that is not beyond what is kept changes nothing. A stream begins
	// with the place that it reads on from, so that the Store knows the log before anything of it is applied: an error that
	// matches ErrHistory then refuses the stream.
	Applied(log LogID, seq uint64) error
	// End gives the store back; records up to acked may be forgotten.
	End(acked uint64) error
}

// A Place is where a side stands in both logs (spec 3.4, 3.5).
type Place struct {
	Log     LogID  // names the log that this side writes
	Next    uint64 // the number of the next record that it writes; the first is 1
	Acked   uint64 // the last that it knows to be applied: all from here on are kept
	Peer    LogID  // the log that it reads; zero: it keeps no place there
	Applied uint64 // the last record of that which is applied
}

// NewLogID returns a random LogID.
func NewLogID() LogID {
	var id LogID
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// noStore is the place of a stream that keeps none.
func noStore() Place { return Place{Log: NewLogID(), Next: 1} }
