// Package boltstore stores the positions and the records of record streams in a bbolt database: the application's own, next to its data.
//
//	orders, err := boltstore.New(db, "orders")                // one for each stream that continues after a restart
//	st, err := record.Open(ctx, s, "orders", &record.Options{Store: orders})
//
//	r, err := st.ReadRecord(ctx)
//	err = db.Update(func(tx *bbolt.Tx) error {                // the effect, and the place behind it: both or neither
//		if err := save(tx, r.Payload); err != nil {
//			return err
//		}
//		return orders.Commit(tx, r.Seq)
//	})
//	err = st.AckRecord(r.Seq)                                 // after the transaction, never in it
//
// # Applied exactly once
//
// With Commit in the transaction of the effect, each record has its effect once, whichever of the process, the session and the machine
// fails. A transaction that is rolled back has done nothing, and the record is sent again. Two concurrent streams, as when a peer returns
// before the loss of the first stream is noticed, do not apply a record twice: bbolt runs one transaction after the other, and the later
// one gets ErrApplied and is rolled back. Several records may share a transaction, with a Commit for each.
//
// Without Commit, AckRecord stores the position in a transaction of its own. After a crash, a record whose effect was stored and whose
// position was not is sent again.
//
// # Transactions, and what to avoid in them
//
// bbolt has one writer at a time: each transaction of the application holds up the writes of streams, and vice versa. Keep transactions
// short. In a transaction, even a read-only one, call no method of a stream that may wait (open, read, write, Barrier, Close), nor New: it
// may wait for ever for a transaction of the Store, which waits for this one. AckRecord does not wait, but belongs after the transaction as
// well: a record that is acknowledged and then rolled back is never sent again.
//
// # Durability and its cost
//
// Records for which WriteRecord has returned are on the disk: each transaction costs two fsyncs of bbolt. Records that are written during
// one transaction share the next, so that many concurrent writers, or WriteBatch, cost little more than one. AckRecord waits for no disk.
// Without Commit the position is on the disk before the peer is notified, and once Close has returned nil; until then it may be lost with
// the process. An acknowledgement costs a transaction, or with Commit none but the application's.
//
// A DB with NoSync loses its last transactions, or everything, when the machine stops; a killed process loses nothing. The peer then knows
// more than this side, and the next stream is refused with record.ErrHistory. NoFreelistSync is safe. The file does not shrink when records
// are forgotten, but their space is reused.
//
// # When the histories do not fit together
//
// A DB that has been deleted, or restored from an older copy, no longer fits the peer's. Both sides then refuse streams with
// record.ErrHistory and a text with the positions of both; nothing is dropped. An operator must decide: restore the right DB, or call
// DropPlace at the reader, or DropLog at the writer. A Store without a position accepts a log only from record 1 on.
//
// # Limits
//
// No transaction waits for the network. A transaction of Append writes the records of one call, which is one batch of the stream, and
// forgets at most twice as many and 1024 more. Tail reads 256 KiB, or one record, in each of its transactions. Use one Store for a name:
// two of them in one process do not damage the stored data, but do not take over from each other.
//
// # Stability
//
// The buckets are in format.go, format 1. A later format has another version, and this one refuses it with ErrFormat.
package boltstore
