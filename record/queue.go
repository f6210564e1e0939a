package record

import "time"

// The way in of a stream:
//
//	readLoop ── checked ── chunks: │ taken, may be in use │ to be taken │ ── ReadRecord ──> application ── AckRecord
//
// inbound is what a stream reads. Stream.mu guards it.
type inbound struct {
	next      uint64 // the record that comes next
	delivered uint64 // the last that the application has been given
	applied   uint64 // the last that it says it has applied
	told      uint64 // the last that the peer has been told of, or is being told of
	skip      uint64 // the last that a stream before has applied, when that is beyond what the hello has said

	head, tail *inChunk
	lent       *inChunk // its bytes are in the hands of the last ReadBatch; head, or no longer in the list
	filling    bool     // readLoop is reading into tail
	bytes      int      // of records that have not been taken

	ended     bool     // END has come: next - 1 was the last
	failed    uint64   // everything from this record on is dropped until it comes again; 0: nothing is
	failure   *failure // to be sent
	ackNow    bool     // the peer is to be told what is applied
	readSince int      // bytes that were taken since it was told
	delay     *time.Timer
	delaying  bool // delay runs
}

func (in *inbound) begin(first uint64) {
	in.next = first
	in.delivered, in.applied, in.told = first-1, first-1, first-1
}

// space returns the chunk for n bytes more, with room for them unless it is a chunk of their own, and marks it as being filled.
func (in *inbound) space(n int) *inChunk {
	in.filling = true
	c := in.tail
	if c != nil && cap(c.buf)-len(c.buf) >= n {
		return c
	}
	c = newInChunk(n)
	if in.tail == nil {
		in.head = c
	} else {
		in.tail.next = c
	}
	in.tail = c
	return c
}

// first returns the next record of the queue without taking it off, or false.
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

// unlink takes the first chunk, of which nothing is left, off the queue.
func (in *inbound) unlink() {
	c := in.head
	in.head = c.next
	if in.head == nil {
		in.tail = nil
	}
	if c != in.lent {
		c.free()
	}
}

// take takes the next record of c, the first chunk.
func (in *inbound) take(c *inChunk) Record {
	before := len(c.buf) - c.off
	payload, rest, _ := nextRecord(c.buf[c.off:]) // has been checked
	r := Record{Seq: in.delivered + 1, Payload: payload}
	c.off = len(c.buf) - len(rest)
	c.count--
	in.delivered++
	in.bytes -= before - len(rest)
	in.readSince += before - len(rest)
	return r
}

// giveBack ends the loan of the last read.
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
	c.free()
}

// clear drops everything that has not been taken.
func (in *inbound) clear() {
	for c := in.head; c != nil; {
		next := c.next
		if c == in.tail && in.filling {
			c.off, c.count = len(c.buf), 0 // readLoop is at it, and drops it itself
			in.head, in.bytes = c, 0
			return
		}
		if c != in.lent {
			c.free()
		}
		c = next
	}
	in.head, in.tail, in.bytes = nil, nil, 0
}

// onRewind takes the peer's word that it sends again what has failed.
func (in *inbound) onRewind(seq uint64) error {
	switch {
	case in.failed == 0:
		return protocolErrorf("REWIND to %d, and nothing has failed", seq)
	case seq < in.failed:
		return protocolErrorf("REWIND to %d, and %d has failed", seq, in.failed)
	case seq > in.failed: // of the failure before
		return nil
	}
	in.next, in.failed, in.ended = seq, 0, false
	return nil
}

// onEnd takes the peer's word that there are no more records.
func (in *inbound) onEnd(next uint64) error {
	switch {
	case in.failed > 0: // comes again
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
