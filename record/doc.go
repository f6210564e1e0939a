// Package record carries ordered records between two peers and tells their writer what has been applied: no broker stands between.
//
//	s, err := record.Open(ctx, session, "orders", nil)
//	seq, err := s.WriteRecord(ctx, order)       // takes its place in the window
//	err = s.Barrier(ctx)                        // the peer has applied everything up to here
//
//	record.Handle(server, "orders", nil, func(s *record.Stream) {
//		err := record.Apply(ctx, s, func(ctx context.Context, r record.Record) error {
//			return store(r.Payload)             // nil: applied; an error: failed, and the writer learns why
//		}, nil)
//	})
//
// A stream goes both ways, and each direction is a log of its own, numbered from 1.
//
// # Lifetime
//
// A stream that Open has made is carried by a session, and outlives its carriers as that does: every record is read once and in order.
// A session that is lost ends it, with how far the peer is known to have come. With a Store, another stream goes on where it stood:
// what was written and not acknowledged is sent again, and the reader's place says from where, so that nothing is read twice that
// was acknowledged. Applied exactly once is what is applied in the same transaction as its place: see package boltstore.
//
// # Cancellation
//
// Every call that waits has a ctx. What WriteRecord has taken, it has taken: a ctx that ends later takes nothing back.
//
// # Limits
//
// The window of a direction, in records and in bytes, is the lower of what both sides allow. A side's memory for it is at most three
// times its WindowBytes and 192 KiB more, on both ends, whatever the peer does: records of the worst sizes leave half of their
// buffers empty, and a buffer is held until the last of its records has been read. 2^24 records, 2^30 bytes.
//
// # Stability
//
// The bytes are in SPEC.md. Capabilities are agreed on when a stream opens: peers of different versions work together.
package record
