package session

// ring is a byte queue that grows with what is in it.
type ring struct {
	buf  []byte
	head int
	n    int
}

const minRing = 4 << 10

func (r *ring) len() int { return r.n }

// write appends p. The ring at most doubles, and only when it is full.
func (r *ring) write(p []byte) {
	if len(p) == 0 {
		return
	}
	if need := r.n + len(p); need > len(r.buf) {
		bigger := make([]byte, max(minRing, need, 2*len(r.buf)))
		r.copyTo(bigger)
		r.buf, r.head = bigger, 0
	}
	at := (r.head + r.n) % len(r.buf)
	copied := copy(r.buf[at:], p)
	copy(r.buf, p[copied:])
	r.n += len(p)
}

// read moves the front of the ring into p and returns how much.
func (r *ring) read(p []byte) int {
	n := r.copyTo(p)
	r.n -= n
	if r.n == 0 {
		r.head = 0
	} else {
		r.head = (r.head + n) % len(r.buf)
	}
	return n
}

// copyTo copies the front of the ring into p and returns how much.
func (r *ring) copyTo(p []byte) int {
	p = p[:min(len(p), r.n)]
	if len(p) == 0 {
		return 0
	}
	copied := copy(p, r.buf[r.head:])
	copy(p[copied:], r.buf)
	return len(p)
}

// drop forgets everything, and the memory.
func (r *ring) drop() { *r = ring{} }
