package record

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/peerlane/peerlane/internal/lane"
)

// The sending side of a stream:
//
//	WriteRecord ── room in the window ── number ── chunk ──> kept: │ sent, not acknowledged │ unsent │
//	                                                               head                     unsent   tail
//
// writer.go sends the unsent records. An acknowledgement frees records at the head.

// outbound is the sending state of a stream. Stream.mu guards it.
type outbound struct {
	next    uint64 // number of the next record
	acked   uint64 // the last record that the peer has applied
	reached uint64 // the last record sent or being sent
	written uint64 // the last record that the conn has taken
	durable uint64 // the last record in the Store, if there is one

	head, unsent, tail *outChunk // unsent: the first with unsent records; nil: none has
	bytes              int       // of the records of all chunks
	sentBytes          int       // of those that are sent

	held  lane.Held // what the chunks may take
	short bool      // there was no room for more in the budget
	spent int       // bytes of the records of an acknowledged chunk that the writer is using

	window      int // records and
	windowBytes int // bytes that may be in the chunks: the lower of both sides'
	largest     int // record
	fill        int // bytes of records after which a chunk takes no more

	waiting  int        // callers that wait for room
	barriers []*barrier // callers that wait for an acknowledgement, or for the Store

	failed   *RecordFailure // retryable, and Resend has not been called; or final
	leaving  bool           // the last frame is being sent
	rewindTo uint64         // REWIND must be sent with this number; 0: not due
	gone     error          // the error when the peer has closed and accepts no more; nil: it has not
	given    uint64         // the last record that the peer's application was given, as the peer reported
	ended    bool           // CloseWrite
	saidEnd  bool           // END has been sent
	closing  error          // why this side closes, by Close or a final failure; nil while it does not
	scratch  []byte         // for frames outside of a chunk
	linger   *time.Timer    // runs while the writer waits for more records
	hurried  uint64         // the last record that must not wait for more records
}

func (o *outbound) begin(first uint64, ours, theirs hello, fill int) {
	o.next, o.acked, o.reached, o.written = first, first-1, first-1, first-1
	o.window = int(min(ours.records, theirs.records))
	o.windowBytes = int(min(ours.bytes, theirs.bytes))
	o.largest = largestRecord(ours, theirs)
	o.fill = max(1, min(fill, o.windowBytes/4))
}

// largestRecord returns the size limit of a record of this side.
func largestRecord(ours, theirs hello) int {
	return int(min(theirs.largest, min(ours.bytes, theirs.bytes)-maxLengthSize))
}

// tooLarge returns the error for a stored record seq that is too large for this peer.
func tooLarge(seq uint64, payload []byte, largest int) error {
	return fmt.Errorf("%w: record %d has %d bytes, and the peer takes %d", ErrTooLarge, seq, len(payload), largest)
}

// loadTail loads the records from the Store that the peer has not applied: those up to next.
func (s *Stream) loadTail(next uint64) error {
	o := &s.out
	o.durable = next - 1
	if s.store == nil || o.next == next {
		return nil
	}
	for r, err := range s.store.Tail(o.next) {
		switch {
		case err != nil:
			return storeError(err)
		case r.Seq != o.next:
			return storeError(fmt.Errorf("record %d is kept where %d is due", r.Seq, o.next))
		case len(r.Payload) > o.largest:
			return tooLarge(r.Seq, r.Payload, o.largest)
		}
		if t := o.tail; t != nil && (t.count >= max(1, o.window/4) || t.size()+recordSize(len(r.Payload)) > o.windowBytes) {
			t.open = false // the peer may have room for only a part of the stored records
		}
		if !o.hold(o.bytes + recordSize(len(r.Payload))) {
			return errNoRoom
		}
		o.add(r.Payload)
		s.payload.Add(uint64(len(r.Payload)))
	}
	if o.next != next {
		return storeError(fmt.Errorf("record %d is not kept", o.next))
	}
	return nil
}

// add appends one record, for which there is room, and numbers it.
func (o *outbound) add(payload []byte) {
	n := recordSize(len(payload))
	c := o.tail
	if c == nil || !c.open || c.size() >= o.fill || cap(c.buf)-len(c.buf) < n {
		c = newOutChunk(o.next, max(n, o.fill))
		if o.tail != nil {
			o.tail.next, o.tail.open = c, false
		} else {
			o.head = c
		}
		o.tail = c
	}
	c.buf = appendRecord(c.buf, payload)
	c.count++
	if o.unsent == nil {
		o.unsent = c
	}
	o.bytes += n
	o.next++
}

// room reports whether the window, and the budget, have room for the given number of records, whose size with their lengths is size.
func (o *outbound) room(records, size int) bool {
	if int(o.next-1-o.acked)+records > o.window || o.bytes+size > o.windowBytes {
		return false
	}
	o.short = !o.hold(o.bytes + o.spent + size)
	return !o.short
}

// WriteRecord accepts one record and returns its number, from 1. It waits while the window is full and, with a Store, until the Store has
// the record. It does not wait for the peer: use Barrier for that. The payload may be reused at once.
//
// The error is an *Error. If it matches the ctx's error, seq is 0 if the record was not accepted, and otherwise the number of a record that
// the Store may not have. It may also match ErrTooLarge for a record over the peer's limit, ErrClosed, ErrPeerClosed, or say why the stream
// has ended. Or the error is a *RecordFailure without a Resend.
func (s *Stream) WriteRecord(ctx context.Context, payload []byte) (seq uint64, err error) {
	one := [1][]byte{payload}
	return s.write(ctx, one[:])
}

// WriteBatch accepts all payloads, as consecutive records, or none, and returns the number of the last. It is otherwise like WriteRecord. A
// batch that does not fit into an empty window is ErrTooLarge. With the default window, or any from 256 KiB on, WriteBatch allocates
// nothing.
func (s *Stream) WriteBatch(ctx context.Context, payloads [][]byte) (last uint64, err error) {
	return s.write(ctx, payloads)
}

func (s *Stream) write(ctx context.Context, payloads [][]byte) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, s.opError("write", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	size, err := s.sizeOf(payloads)
	if err != nil {
		return 0, err
	}
	if s.out.waiting > 0 || !s.out.room(len(payloads), size) {
		if err := s.awaitRoom(ctx, len(payloads), size); err != nil {
			return 0, err
		}
	}
	if err := s.writeFailure(); err != nil {
		return 0, err
	}
	for _, p := range payloads {
		s.out.add(p)
		s.payload.Add(uint64(len(p)))
		s.stats.bytesOut += uint64(len(p))
	}
	s.stats.recordsOut += uint64(len(payloads))
	last := s.out.next - 1
	s.wake.Signal()
	if s.store != nil {
		return last, s.awaitDurable(ctx, last)
	}
	return last, nil
}

// sizeOf returns the size of payloads in a BATCH, or an error if they can never be written. mu is held.
func (s *Stream) sizeOf(payloads [][]byte) (int, error) {
	size := 0
	for _, p := range payloads {
		if len(p) > s.out.largest {
			return 0, s.opError("write", fmt.Errorf("%w: record of %d bytes, the peer takes %d", ErrTooLarge, len(p), s.out.largest))
		}
		size += recordSize(len(p))
	}
	if len(payloads) > s.out.window || size > s.out.windowBytes {
		return 0, s.opError("write", fmt.Errorf("%w: %d records of %d bytes together, and the window is %d and %d",
			ErrTooLarge, len(payloads), size, s.out.window, s.out.windowBytes))
	}
	return size, s.writeFailure()
}

// writeFailure returns why nothing can be written now, or nil. mu is held.
func (s *Stream) writeFailure() error {
	switch o := &s.out; {
	case s.err != nil:
		return s.endedLocked("write")
	case o.closing != nil:
		return s.opError("write", o.closing)
	case o.ended:
		return s.opError("write", ErrClosed)
	case o.gone != nil:
		return &Error{Op: "write", Name: s.name, Applied: o.acked, Err: o.gone}
	case o.failed != nil:
		return o.failed
	}
	return nil
}

// awaitRoom waits until there is room, in the order in which callers arrived. mu is held, and released while it waits.
func (s *Stream) awaitRoom(ctx context.Context, records, size int) error {
	s.out.waiting++
	defer func() { s.out.waiting-- }()
	s.wake.Signal() // the queued records need not wait for more: no caller can add any
	s.mu.Unlock()
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		s.mu.Lock()
		return s.opError("write", ctx.Err())
	case <-s.ended:
		s.mu.Lock()
		return s.endedLocked("write")
	}
	s.mu.Lock()
	defer func() { <-s.turn }()
	var retry lane.Retry // no acknowledgement says that there is room in the budget again
	for !s.out.room(records, size) {
		if err := s.writeFailure(); err != nil {
			return err
		}
		var again <-chan time.Time
		if s.out.short {
			again = time.After(retry.Next())
		}
		s.mu.Unlock()
		var err error
		select {
		case <-s.roomy:
		case <-again:
		case <-s.ended:
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
		if err != nil {
			return s.opError("write", err)
		}
	}
	return nil
}

// CloseWrite ends the writing direction: the peer reads the written records and then io.EOF. Barriers and the other direction continue. A
// second call does nothing.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.endedLocked("close write")
	}
	s.out.ended = true
	s.wake.Signal()
	s.signal(s.roomy)
	return nil
}

// acknowledged handles the peer's notice that it has applied everything up to seq. mu is held.
func (s *Stream) acknowledged(seq uint64) error {
	o := &s.out
	if seq < o.acked || seq > o.reached {
		return protocolErrorf("record %d is acknowledged after %d, and %d were sent", seq, o.acked, o.reached)
	}
	if seq == o.acked {
		return nil
	}
	o.acked = seq
	for c := o.head; c != nil && c.last() <= seq; c = o.head {
		o.forget(c)
	}
	o.settleBarriers(func(b *barrier) bool { return !b.durable && b.seq <= seq }, nil)
	s.signal(s.roomy)
	if o.unsent != nil {
		s.wake.Signal() // records from the Store may now be sent
	}
	return nil
}

// forget releases c, the first chunk, once all its records are acknowledged.
func (o *outbound) forget(c *outChunk) {
	o.head = c.next
	if o.head == nil {
		o.tail = nil
	}
	o.bytes -= c.size()
	o.sentBytes -= c.size()
	c.open = false
	if c.busy {
		c.gone, o.spent = true, c.size()
	} else {
		c.free()
	}
	o.hold(o.bytes + o.spent)
}

// drop releases all chunks. The writer uses none of them.
func (o *outbound) drop() {
	for c := o.head; c != nil; {
		next := c.next
		c.free()
		c = next
	}
	o.head, o.unsent, o.tail, o.bytes, o.sentBytes = nil, nil, nil, 0, 0
	o.held.End()
	if o.linger != nil {
		o.linger.Stop()
	}
}

// onFail handles the peer's notice that a record cannot be applied. mu is held.
func (s *Stream) onFail(f failure) error {
	if err := s.acknowledged(f.applied); err != nil {
		return err
	}
	o := &s.out
	if f.seq > o.reached {
		return protocolErrorf("record %d has failed, and %d were sent", f.seq, o.reached)
	}
	s.stats.failuresIn++
	o.failed = &RecordFailure{FailedSeq: f.seq, Applied: f.applied, Code: f.code, Retryable: f.retryable, Message: f.message}
	o.rewindTo, o.reached = 0, f.seq-1 // no later record can be acknowledged before it is sent again
	o.settleBarriers(func(b *barrier) bool { return !b.durable && b.seq >= f.seq }, func(*barrier) error { return o.failed })
	s.signal(s.roomy)
	return nil
}

// Resend sends the failed record and all later ones again, after a retryable failure. Without a failure it does nothing. The error is the
// *RecordFailure if that is final, or why the stream has ended.
func (s *Stream) Resend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch o := &s.out; {
	case s.err != nil:
		return s.endedLocked("resend")
	case o.failed == nil:
	case !o.failed.Retryable:
		return o.failed
	default:
		o.rewindTo = o.failed.FailedSeq
		o.hurried = o.next - 1
		o.failed = nil
		s.wake.Signal()
	}
	return nil
}

// rewind makes everything from seq on unsent. mu is held, and the writer is idle.
func (o *outbound) rewind(seq uint64) {
	c := o.head
	for c.last() < seq {
		c = c.next
	}
	o.unsent = c
	for ; c != nil; c = c.next {
		o.sentBytes -= c.sentSize()
		c.rewind(max(seq, c.first))
		o.sentBytes += c.sentSize()
	}
	o.reached = seq - 1
	o.saidEnd = false
}

// everyone selects all waits.
func everyone(*barrier) bool { return true }

// settleBarriers ends the waits selected by which.
func (o *outbound) settleBarriers(which func(*barrier) bool, why func(*barrier) error) {
	o.barriers = slices.DeleteFunc(o.barriers, func(b *barrier) bool {
		if !which(b) {
			return false
		}
		if why != nil {
			b.err = why(b)
		}
		close(b.met)
		return true
	})
}
