package record

import (
	"iter"
	"sync"
)

// batchBytes is the default of Options.BatchBytes, and the room in the pooled buffers.
const batchBytes = 64 << 10

// outChunk is a buffer of consecutive records, kept until they are acknowledged, as in a BATCH. It is sent in one or several BATCHes: those
// after the first are copied, because there is no room for their header.
type outChunk struct {
	next  *outChunk
	buf   []byte // batchRoomAck bytes for a header, then the records
	first uint64 // number of the first record
	count int
	sent  int  // records sent or being sent
	off   int  // where the first unsent record begins
	open  bool // accepts more records
	busy  bool // the writer is using it
	gone  bool // acknowledged while the writer was using it
}

func (c *outChunk) last() uint64 { return c.first + uint64(c.count) - 1 }

// size returns the size of its records.
func (c *outChunk) size() int { return len(c.buf) - batchRoomAck }

// sentSize returns the size of the records that are sent or being sent.
func (c *outChunk) sentSize() int { return c.off - batchRoomAck }

// rewind makes the records from seq on unsent.
func (c *outChunk) rewind(seq uint64) {
	rest := c.buf[batchRoomAck:]
	c.sent = 0
	for n := c.first; n < seq; n++ {
		_, rest, _ = nextRecord(rest) // written by this side
		c.sent++
	}
	c.off = len(c.buf) - len(rest)
}

// recordsOf returns the records in buf from number from on. The first record in buf has the number first.
func recordsOf(buf []byte, first, from uint64) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		rest := buf
		for n := first; len(rest) > 0; n++ {
			var payload []byte
			payload, rest, _ = nextRecord(rest) // written by this side
			if n >= from && !yield(payload) {
				return
			}
		}
	}
}

// inChunk is a buffer of consecutive received records that have not all been taken.
type inChunk struct {
	next  *inChunk
	buf   []byte // records, as in a BATCH
	off   int    // where the first record begins that has not been taken
	count int    // records that have not been taken
	held  int    // bytes taken from the budget
}

var (
	outPool = sync.Pool{New: func() any { return &outChunk{buf: make([]byte, 0, pooledSize)} }}
	inPool  = sync.Pool{New: func() any { return &inChunk{buf: make([]byte, 0, pooledSize)} }}
)

const pooledSize = batchRoomAck + batchBytes + 4<<10

// newOutChunk returns an empty open chunk with room for n bytes of records or more. The chunks of a small window are no larger than
// necessary.
func newOutChunk(first uint64, n int) *outChunk {
	if room := batchRoomAck + n; room > pooledSize || room < pooledSize/2 {
		return &outChunk{buf: make([]byte, batchRoomAck, batchRoomAck+n), first: first, off: batchRoomAck, open: true}
	}
	c := outPool.Get().(*outChunk)
	*c = outChunk{buf: c.buf[:batchRoomAck], first: first, off: batchRoomAck, open: true}
	return c
}

func (c *outChunk) free() {
	if cap(c.buf) == pooledSize {
		c.next = nil
		outPool.Put(c)
	}
}

// newInChunk returns an empty chunk with room for n bytes or more. If n exceeds the pooled size, the chunk has no buffer: the received
// bytes become its buffer.
func newInChunk(n int) *inChunk {
	if n > pooledSize {
		return new(inChunk)
	}
	c := inPool.Get().(*inChunk)
	*c = inChunk{buf: c.buf[:0]}
	return c
}

func (c *inChunk) free() {
	if cap(c.buf) == pooledSize {
		c.next = nil
		inPool.Put(c)
	}
}
