// Package boltstore keeps the places and the records of record streams in a bbolt database: the application's own, beside its data.
//
//	orders, err := boltstore.New(db, "orders")                // one for each stream that goes on after a restart
//	s, err := record.Open(ctx, session, "orders", &record.Options{Store: orders})
//
//	r, err := s.ReadRecord(ctx)
//	err = db.Update(func(tx *bbolt.Tx) error {                // the effect, and the place behind it: both or neither
//		if err := store(tx, r.Payload); err != nil {
//			return err
//		}
//		return orders.Commit(tx, r.Seq)
//	})
//	err = s.AckRecord(r.Seq)                                  // after the transaction, never in it
//
// # Applied exactly once
//
// With Commit in the transaction of the effect, each record has its effect once, whatever ends when: the process, the session, the
// machine. A transaction that is rolled back has done nothing, and the record comes again. Two streams at once, as when a peer has
// come back before the loss of the first stream was noticed, do not apply a record twice: bbolt runs one transaction after the
// other, and the later one gets ErrApplied and is rolled back. Several records may share a transaction, with a Commit for each.
//
// Without Commit, AckRecord keeps the place in a transaction of its own: a record whose effect was kept, and its place was not, comes
// again after a crash.
//
// # Transactions, and what not to do in them
//
// bbolt has one writer at a time: each transaction of the application's holds up what streams write, and the other way round. Keep
// them short. In a transaction, also one that only reads, call nothing of a stream that may wait (open, read, write, Barrier, Close),
// nor New: it may wait for a transaction of the Store's, which waits for this one, for ever. AckRecord waits for nothing, but belongs
// behind the transaction all the same: what is acknowledged and then rolled back never comes again.
//
// # Durability, and what it costs
//
// What WriteRecord has returned for is on the disk: each transaction is two fsyncs of bbolt's. Records that are written while one runs
// share the next, so that many writers at once, or WriteBatch, cost little more than one. AckRecord waits for no disk: without Commit
// the place is on the disk before the peer hears of it, and once Close has returned nil; until then it may be lost with the process.
// An acknowledgement costs a transaction, or with Commit none but the application's.
//
// A DB with NoSync loses its last transactions when the machine stops, or all of it; a process that is killed loses nothing. The peer
// then knows more than this side, and the next stream is refused with record.ErrHistory. NoFreelistSync is safe. The file does not
// become smaller when records are forgotten: their room is used again.
//
// # When the histories do not fit together
//
// A DB that has been deleted, or restored from an older copy, no longer fits to that of the peer. Streams are then refused, on both
// sides, with record.ErrHistory and a text that says who is where; nothing is dropped. A person decides: give the right DB back, or
// DropPlace at the reader, or DropLog at the writer. A Store that keeps no place takes a log from record 1 on only.
//
// # Limits
//
// Nothing waits for the network while it has a transaction. A transaction of Append writes the records of one call, one batch of the
// stream's, and forgets at most twice as many and 1024 more; Tail reads 256 KiB, or one record, in each of its transactions. One Store
// for a name: two of them in one process do no harm to what is kept, but do not take over from each other.
//
// # Stability
//
// The buckets are in format.go, format 1. A later format has another version, and this one refuses it with ErrFormat.
package boltstore
