package flow

// A Queue holds received bytes that have not been read, in chunks that are all full but the tail: it takes little more memory than the bytes
// do, and none while it is empty. The zero value is empty. It is guarded by its owner's lock, except for the buffer that Space returned.
type Queue struct {
	Budget Budget // of the chunks, but for a first small one; nil: none

	head, tail *chunk
	n          int
	filling    bool // Space has returned a part of the tail, which stays
}

// Space returns a buffer for up to most further bytes, of which about want are expected. It is the caller's until Commit. It returns nil if the
// Budget has no room for one.
func (q *Queue) Space(want, most int) []byte {
	if q.tail == nil || q.tail.w == len(q.tail.buf) {
		c := newCounted(q.Budget, want, q.n > 0)
		if c == nil {
			return nil
		}
		if q.tail == nil {
			q.head = c
		} else {
			q.tail.next = c
		}
		q.tail = c
	}
	q.filling = true
	c := q.tail
	return c.buf[c.w:min(len(c.buf), c.w+most)]
}

// Commit adds the first n bytes of the buffer that Space returned, and takes it back. It does nothing if there is none.
func (q *Queue) Commit(n int) {
	if !q.filling {
		return
	}
	q.filling = false
	q.tail.w += n
	q.n += n
	q.shrink()
}

// Len returns the number of bytes.
func (q *Queue) Len() int { return q.n }

// Read moves the front of the queue into p, and returns how many bytes that is.
func (q *Queue) Read(p []byte) int {
	total := 0
	for len(p) > total && q.n > 0 {
		c := q.head
		n := copy(p[total:], c.buf[c.first:c.w])
		c.first += n
		total += n
		q.n -= n
		q.shrink()
	}
	return total
}

// Drop removes all bytes, and returns how many there were.
func (q *Queue) Drop() int {
	dropped := q.n
	for c := q.head; c != nil; c = c.next {
		c.first = c.w
	}
	q.n = 0
	q.shrink()
	return dropped
}

// shrink frees the chunks at the head that have been read.
func (q *Queue) shrink() {
	for c := q.head; c != nil && c.first == c.w && (c != q.tail || !q.filling); c = q.head {
		if q.head = c.next; q.head == nil {
			q.tail = nil
		}
		c.free(q.Budget)
	}
}
