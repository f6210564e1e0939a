package record

import (
	"iter"
	"sync"
)

// batchBytes is Options.BatchBytes by default, and what the pooled buffers have room for.
const batchBytes = 64 << 10

// outChunk is a buffer of records that are kept until they are acknowledged, one after the other as in a BATCH. It is sent in one
// BATCH or several: those after the first are copied, for there is no room for their header.
type outChunk struct {
	next  *outChunk
	buf   []byte // batchRoomAck bytes for a header, then the records
	first uint64 // number of the first
	count int
	sent  int  // how many have been sent, or are being sent
	off   int  // where the first of the others begins
	open  bool // takes more records
	busy  bool // the writer is at it
	gone  bool // acknowledged while the writer was at it
}

func (c *outChunk) last() uint64 { return c.first + uint64(c.count) - 1 }

// size returns how many bytes its records are.
func (c *outChunk) size() int { return len(c.buf) - batchRoomAck }

// sentSize returns how many bytes of them have been sent, or are being sent.
func (c *outChunk) sentSize() int { return c.off - batchRoomAck }

// rewind makes the records from seq on unsent.
func (c *outChunk) rewind(seq uint64) {
	rest := c.buf[batchRoomAck:]
	c.sent = 0
	for n := c.first; n < seq; n++ {
		_, rest, _ = nextRecord(rest) // this side's own
		c.sent++
	}
	c.off = len(c.buf) - len(rest)
}

// recordsOf returns those of the records in buf, the first of which has the number first, that have at least the number from.
func recordsOf(buf []byte, first, from uint64) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		rest := buf
		for n := first; len(rest) > 0; n++ {
			var payload []byte
			payload, rest, _ = nextRecord(rest) // this side's own
			if n >= from && !yield(payload) {
				return
			}
		}
	}
}

// inChunk is a buffer of records that have come and have not all been taken, one after the other.
type inChunk struct {
	next  *inChunk
	buf   []byte // records, as in a BATCH
	off   int    // where the first one that has not been taken begins
	count int    // how many have not been taken
}

var (
	outPool = sync.Pool{New: func() any { return &outChunk{buf: make([]byte, 0, pooledSize)} }}
	inPool  = sync.Pool{New: func() any { return &inChunk{buf: make([]byte, 0, pooledSize)} }}
)

const pooledSize = batchRoomAck + batchBytes + 4<<10

// newOutChunk returns an empty open chunk with room for n bytes of records, or more. Those of a small window are no larger than they
// have to be.
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

// newInChunk returns an empty chunk with room for n bytes, or more. For more than there is in the pool it has none: what arrives is
// its buffer.
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
