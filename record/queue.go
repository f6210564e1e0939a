package record

import (
	"time"

	"github.com/peerlane/peerlane/internal/lane"
)

// The receiving side of a stream:
//
//	readLoop ── checked ── chunks: │ taken, may be in use │ to be taken │ ── ReadRecord ──> application ── AckRecord
//
// inbound is the receiving state of a stream. Stream.mu guards it.
type inbound struct {
	next      uint64 // number of the next record to arrive
	delivered uint64 // the last record given to the application
	applied   uint64 // the last record that the application has reported as applied
	told      uint64 // the last record acknowledged, or being acknowledged, to the peer
	skip      uint64 // the last record that an earlier stream has applied, if beyond the position in the hello

	head, tail *inChunk
	lent       *inChunk      // lent to the application by the last ReadBatch; head, or no longer in the list
	filling    bool          // readLoop is reading into tail
	held       lane.Held     // what the chunks take
	freed      chan struct{} // tells who waits for room in the budget to look again; 1 slot
	bytes      int           // of records not yet taken

	ended     bool     // END has arrived: next - 1 was the last record
	failed    uint64   // everything from this record on is dropped until it is sent again; 0: none
	failure   *failure // to be sent
	ackNow    bool     // the applied position must be sent to the peer
	readSince int      // bytes taken since it was last sent
	delay     *time.Timer
	delaying  bool // delay runs
}

func (in *inbound) begin(first uint64) {
	in.next, in.freed = first, make(chan struct{}, 1)
	in.delivered, in.applied, in.told = first-1, first-1, first-1
}

// space returns the chunk for the next n bytes, with room for them unless they get a chunk of their own, and marks it as being filled. It
// returns nil if the budget has no room for a chunk.
func (in *inbound) space(n int) *inChunk {
	c := in.tail
	if c != nil && cap(c.buf)-len(c.buf) >= n {
		in.filling = true
		return c
	}
	size := pooledSize
	if n > pooledSize {
		size = 2 * n // the buffer is copied as it grows
	}
	if !in.held.Take(size) {
		return nil
	}
	in.filling = true
	c = newInChunk(n)
	c.held = size
	if in.tail == nil {
		in.head = c
	} else {
		in.tail.next = c
	}
	in.tail = c
	return c
}

// first returns the next record of the queue without removing it, or false.
func (in *inbound) first() (*inChunk, bool) {
	for c := in.head; c != nil; c = in.head {
		if c.count > 0 {
			return c, true
		}
		if c == in.tail && in.filling {
			return nil, false
		}
		in.unlink()
	}
	return nil, false
}

// unlink removes the first chunk, which is used up, from the queue.
func (in *inbound) unlink() {
	c := in.head
	in.head = c.next
	if in.head == nil {
		in.tail = nil
	}
	if c != in.lent {
		in.free(c)
	}
}

// take removes the next record of c, the first chunk, and returns it.
func (in *inbound) take(c *inChunk) Record {
	before := len(c.buf) - c.off
	payload, rest, _ := nextRecord(c.buf[c.off:]) // already checked
	r := Record{Seq: in.delivered + 1, Payload: payload}
	c.off = len(c.buf) - len(rest)
	c.count--
	in.delivered++
	in.bytes -= before - len(rest)
	in.readSince += before - len(rest)
	return r
}

// giveBack ends the loan of the last ReadBatch.
func (in *inbound) giveBack() {
	c := in.lent
	in.lent = nil
	if c == nil {
		return
	}
	for k := in.head; k != nil; k = k.next {
		if k == c {
			return
		}
	}
	in.free(c)
}

// free releases a chunk.
func (in *inbound) free(c *inChunk) {
	in.held.Give(c.held)
	c.held = 0
	c.free()
	select {
	case in.freed <- struct{}{}:
	default:
	}
}

// clear drops all records that have not been taken.
func (in *inbound) clear() {
	for c := in.head; c != nil; {
		next := c.next
		if c == in.tail && in.filling {
			c.off, c.count = len(c.buf), 0 // readLoop is using it, and drops it itself
			in.head, in.bytes = c, 0
			return
		}
		if c != in.lent {
			in.free(c)
		}
		c = next
	}
	in.head, in.tail, in.bytes = nil, nil, 0
}

// onRewind handles the peer's notice that it sends failed records again.
func (in *inbound) onRewind(seq uint64) error {
	switch {
	case in.failed == 0:
		return protocolErrorf("REWIND to %d, and nothing has failed", seq)
	case seq < in.failed:
		return protocolErrorf("REWIND to %d, and %d has failed", seq, in.failed)
	case seq > in.failed: // refers to the previous failure
		return nil
	}
	in.next, in.failed, in.ended = seq, 0, false
	return nil
}

// onEnd handles the peer's notice that there are no more records.
func (in *inbound) onEnd(next uint64) error {
	switch {
	case in.failed > 0: // END is sent again too
		return nil
	case in.ended || next != in.next:
		return protocolErrorf("END at %d, after record %d", next, in.next-1)
	}
	in.ended = true
	return nil
}

func (in *inbound) stopDelay() {
	if in.delaying {
		in.delay.Stop()
		in.delaying = false
	}
}
