// Package record carries ordered records between two peers and reports to their writer which have been applied, without a broker.
//
//	orders, err := record.Open(ctx, s, "orders", nil)
//	seq, err := orders.WriteRecord(ctx, order)  // takes its place in the window
//	err = orders.Barrier(ctx)                   // the peer has applied everything up to here
//
//	record.Handle(server, "orders", nil, func(st *record.Stream) {
//		err := record.Apply(ctx, st, func(ctx context.Context, r record.Record) error {
//			return book(r.Payload)              // nil: applied; an error: failed, and the writer learns why
//		}, nil)
//		log.Println(err)
//	})
//
// A stream is bidirectional, and each direction is a separate log, numbered from 1.
//
// # Lifetime
//
// A stream made by Open runs on a session, and outlives its carriers as the session does: every record is read once and in order. The loss
// of the session ends the stream with an error that says how far the peer is known to have come. With a Store, another stream continues
// from there: written, unacknowledged records are sent again, and the reader's position says from where, so that no acknowledged record is
// read twice. A record is applied exactly once if it is applied in the same transaction as its position: see package boltstore.
//
// # Cancellation
//
// Every call that waits has a ctx. A record that WriteRecord has accepted stays accepted: a ctx that ends later does not take it back.
//
// # Limits
//
// The window of a direction, in records and in bytes, is the lower of both sides' limits. A side's memory for it is at most three times its
// WindowBytes plus 192 KiB, at both ends, whatever the peer does: records of the worst sizes leave half of their buffers empty, and a
// buffer is held until its last record has been read. At most 2^24 records, 2^30 bytes.
//
// # Stability
//
// The bytes are in SPEC.md. Capabilities are agreed on when a stream opens: peers of different versions work together.
package record
