package resume

// queue is the bytes that have come and have not been read, in chunks that are all full but the tail, so that it holds
// little more memory than bytes, and none while it is empty. It is guarded by its owner's lock, but for the space that it
// has given away.
type queue struct {
	head, tail *chunk
	n          int
	filling    bool // space has been given away: the tail stays
}

// space returns where up to most further bytes may be put, of which about want are expected, until commit.
func (q *queue) space(want, most int) []byte {
	if q.tail == nil || q.tail.w == len(q.tail.buf) {
		c := newChunk(want, q.n > 0)
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

// commit takes back the space, of which the first n bytes have been filled.
func (q *queue) commit(n int) {
	if !q.filling {
		return
	}
	q.filling = false
	q.tail.w += n
	q.n += n
	q.shrink()
}

// read moves the front of the queue into p and returns how much.
func (q *queue) read(p []byte) int {
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

// drop forgets everything, and returns how much that was.
func (q *queue) drop() int {
	dropped := q.n
	for c := q.head; c != nil; c = c.next {
		c.first = c.w
	}
	q.n = 0
	q.shrink()
	return dropped
}

// shrink frees the chunks at the head that have been read.
func (q *queue) shrink() {
	for c := q.head; c != nil && c.first == c.w && (c != q.tail || !q.filling); c = q.head {
		if q.head = c.next; q.head == nil {
			q.tail = nil
		}
		c.free()
	}
}
