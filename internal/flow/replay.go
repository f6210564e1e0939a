package flow

import (
	"encoding/binary"
	"sync"
)

// replay keeps the written, unacknowledged bytes, as the segments that they are sent in, so that sending them to the carrier needs no
// further copy:
//
//	head ──> chunk ──> chunk ──> tail
//	         [first ... sent ... w]      segments before first are acknowledged, before sent handed to a carrier
//
// The zero value with a limit is empty. It is guarded by its owner's lock.
type replay struct {
	limit  int    // bytes of segments it holds at most, headers included
	budget Budget // of the chunks; nil: none

	head, tail *chunk
	unsent     *chunk // the first chunk with segments that are not sent; nil if there is none
	held       int    // bytes of segments in all chunks
	acked      uint64 // offset of the first byte that is not acknowledged
	sent       uint64 // offset of the first byte that is not sent
	reached    uint64 // the most that sent has been: rewinding takes it back
	end        uint64 // offset of the next byte to be written
}

// A chunk is a buffer of whole segments.
type chunk struct {
	next  *chunk
	buf   []byte
	first int    // where the first segment begins that is not acknowledged completely
	sent  int    // where the first segment begins that is not sent completely
	rest  int    // bytes of that segment that have not been sent, if some have; 0 otherwise
	last  int    // where the last segment begins
	w     int    // where the last segment ends
	base  uint64 // the offset of the segment at first

	writing bool // a carrier's Write reads from buf: it must stay as it is
	freed   bool // acknowledged completely while writing
	counted bool // in the flow's budget
}

const (
	smallChunk = 4 << 10
	largeChunk = 136 << 10 // the largest batch of a session's writer, and a header
)

// Chunks are recycled, so that an idle flow holds none, or a small one.
var (
	smallChunks = sync.Pool{New: func() any { return &chunk{buf: make([]byte, smallChunk)} }}
	largeChunks = sync.Pool{New: func() any { return &chunk{buf: make([]byte, largeChunk)} }}
)

// newChunk returns an empty chunk for n bytes, or a large one if n is too much for any. more says that others are already in use.
func newChunk(n int, more bool) *chunk {
	pool := &largeChunks
	if n+headerSize <= smallChunk && !more {
		pool = &smallChunks
	}
	c := pool.Get().(*chunk)
	*c = chunk{buf: c.buf}
	return c
}

// free recycles c once no carrier reads from it, and gives it back to the budget b.
func (c *chunk) free(b Budget) {
	c.next = nil
	if c.writing {
		c.freed = true
		return
	}
	c.release(b)
	switch len(c.buf) {
	case smallChunk:
		smallChunks.Put(c)
	default:
		largeChunks.Put(c)
	}
}

// room returns how many bytes may be written now.
func (r *replay) room() int { return max(r.limit-r.held-headerSize, 0) }

// write keeps as much of p as there is room for, in the limit and in the budget, and returns how many bytes that is.
func (r *replay) write(p []byte) int {
	written := 0
	for len(p) > 0 {
		n := min(len(p), r.room())
		if n == 0 {
			break
		}
		if r.extend(p[:n]) {
			written += n
			break
		}
		if n = r.begin(p[:n]); n == 0 {
			break
		}
		written += n
		p = p[n:]
	}
	return written
}

// extend adds p to the last segment if that has not been sent, and reports whether it did.
func (r *replay) extend(p []byte) bool {
	c := r.tail
	if c == nil || c.sent > c.last || c.w == c.first || len(c.buf)-c.w < len(p) {
		return false
	}
	h := headerOf(c.buf[c.last:])
	if h.kind == kindFin {
		return false
	}
	h.length += len(p)
	h.put(c.buf[c.last:])
	copy(c.buf[c.w:], p)
	r.grow(c, len(p), uint64(len(p)))
	return true
}

// begin keeps as much of p as fits into one segment, and returns how many bytes that is: none if the budget has no room for them.
func (r *replay) begin(p []byte) int {
	c := r.open(len(p))
	if c == nil {
		return 0
	}
	n := min(len(p), len(c.buf)-c.w-headerSize)
	r.place(c, header{kind: kindData, length: n})
	copy(c.buf[c.w:], p[:n])
	r.grow(c, n, uint64(n))
	return n
}

// adopt keeps n bytes that are in c, behind the room for a header, as one segment.
func (r *replay) adopt(c *chunk, n int) {
	r.append(c)
	r.place(c, header{kind: kindData, length: n})
	r.grow(c, n, uint64(n))
}

// finish keeps a FIN. The budget always has room for it.
func (r *replay) finish() {
	c := r.open(0)
	if c == nil {
		c = r.append(newChunk(0, false))
	}
	r.place(c, header{kind: kindFin})
	r.grow(c, 0, 1)
}

// place writes the header of a new last segment.
func (r *replay) place(c *chunk, h header) {
	c.last = c.w
	h.put(c.buf[c.w:])
	r.grow(c, headerSize, 0)
}

// grow records n more bytes in c, which cover the given number of offsets.
func (r *replay) grow(c *chunk, n int, offsets uint64) {
	c.w += n
	r.held += n
	r.end += offsets
	if r.unsent == nil {
		r.unsent = c
	}
}

// open returns the chunk for a new segment of n bytes: the tail if the segment fits completely, or a new one. If the budget has no room for
// one, it returns a chunk for a part of the bytes, or nil.
func (r *replay) open(n int) *chunk {
	room := 0
	if c := r.tail; c != nil {
		room = len(c.buf) - c.w
	}
	if room >= headerSize+min(n, largeChunk-headerSize) {
		return r.tail
	}
	c := newCounted(r.budget, n, r.tail != nil)
	switch {
	case c != nil:
		return r.append(c)
	case room > headerSize:
		return r.tail
	}
	return nil
}

// append puts an empty chunk behind the others.
func (r *replay) append(c *chunk) *chunk {
	c.base = r.end
	r.link(c)
	return c
}

// link puts a chunk behind the others.
func (r *replay) link(c *chunk) {
	if r.tail == nil {
		r.head = c
	} else {
		r.tail.next = c
	}
	r.tail = c
}

// nextSize returns how many bytes next will return.
func (r *replay) nextSize(most int) int {
	c := r.unsent
	if c == nil {
		return 0
	}
	if n := c.part(most); n > 0 {
		return headerSize + n
	}
	_, end := c.upTo(most)
	return end - c.sent
}

// part returns the size of the next segment if it is a part of a stored one, and 0 otherwise.
func (c *chunk) part(most int) int {
	n := c.rest
	if n == 0 {
		if n = headerOf(c.buf[c.sent:]).length; headerSize+n <= most {
			return 0
		}
	}
	return min(n, most-headerSize)
}

// upTo returns where the last of the next segments that together have at most most bytes begins, and where it ends. There is at least one.
func (c *chunk) upTo(most int) (last, end int) {
	if c.w-c.sent <= most {
		return c.last, c.w
	}
	for end = c.sent; ; {
		next := end + headerSize + headerOf(c.buf[end:]).length
		if next-c.sent > most {
			return last, end
		}
		last, end = end, next
	}
}

// next returns the next bytes to send, at most most, and their chunk. The bytes are whole segments: the last of kind k, unless it is a FIN,
// and the first with number. If a segment is longer than most, they are a part of it as a segment of its own. There must be some unsent
// bytes. They then count as sent; the chunk is in use until done.
func (r *replay) next(k kind, number uint64, most int) ([]byte, *chunk) {
	c := r.unsent
	if n := c.part(most); n > 0 {
		return r.nextPart(header{k, n, number})
	}
	last, end := c.upTo(most)
	segments := c.buf[c.sent:end]
	binary.BigEndian.PutUint64(segments[4:], number)
	if kind(c.buf[last]) != kindFin {
		c.buf[last] = byte(k)
	}
	for at := c.sent; at < end; {
		h := headerOf(c.buf[at:])
		r.sent += h.takes()
		at += headerSize + h.length
	}
	c.sent, c.writing = end, true
	r.passed(c)
	return segments, c
}

// nextPart returns the segment h, and a chunk with a copy of its bytes, because in their own chunk they follow other bytes.
func (r *replay) nextPart(h header) ([]byte, *chunk) {
	c := r.unsent
	if c.rest == 0 {
		c.rest = headerOf(c.buf[c.sent:]).length
		c.sent += headerSize
	}
	part := newCounted(r.budget, h.length, false)
	h.length = min(h.length, len(part.buf)-headerSize)
	part.writing, part.freed = true, true // done releases it
	b := append(h.append(part.buf[:0]), c.buf[c.sent:c.sent+h.length]...)
	c.sent += h.length
	c.rest -= h.length
	r.sent += uint64(h.length)
	r.passed(c)
	return b, part
}

// passed records that c.sent and sent have moved.
func (r *replay) passed(c *chunk) {
	if c.sent == c.w {
		r.unsent = c.next
	}
	r.reached = max(r.reached, r.sent)
}

// done records that no carrier reads from c any more.
func (r *replay) done(c *chunk) {
	c.writing = false
	if c.freed {
		c.freed = false
		c.free(r.budget)
	}
}

// ack forgets everything before offset, which must have been sent.
func (r *replay) ack(offset uint64) {
	r.acked = max(r.acked, offset)
	for c := r.head; c != nil; c = r.head {
		for c.first < c.sent {
			h := headerOf(c.buf[c.first:])
			if c.base+h.takes() > r.acked {
				return
			}
			c.base += h.takes()
			c.first += headerSize + h.length
			r.held -= headerSize + h.length
		}
		if c.first < c.w {
			return
		}
		if r.head = c.next; r.head == nil {
			r.tail = nil
		}
		if r.unsent == c {
			r.unsent = c.next
		}
		c.free(r.budget)
	}
}

// rewind makes everything from offset on unsent. offset must be between acked and reached, and no carrier may be reading from the chunks. A
// segment that begins before offset is cut: its new header overwrites bytes that the other side has.
func (r *replay) rewind(offset uint64) {
	for c := r.unsent; c != nil; c = c.next {
		c.sent, c.rest = c.w, 0 // it has been sent before, up to offset
	}
	r.ack(offset)
	r.sent, r.unsent = offset, r.head
	for c := r.head; c != nil; c = c.next {
		c.sent, c.rest = c.first, 0
	}
	c := r.head
	if c == nil || c.base == offset {
		return
	}
	h := headerOf(c.buf[c.first:])
	passed := int(offset - c.base)
	if c.last == c.first {
		c.last += passed
	}
	c.first += passed
	c.sent, c.base = c.first, offset
	h.length -= passed
	h.put(c.buf[c.first:])
	r.held -= passed
}

// drop forgets everything.
func (r *replay) drop() {
	for c := r.head; c != nil; c = r.head {
		r.head = c.next
		c.free(r.budget)
	}
	r.tail, r.unsent, r.held = nil, nil, 0
}
