package session

import "sync"

// fifo is a byte queue. It holds no more memory than what is in it needs, but for its first and its last span.
type fifo struct {
	spans queue[*span]
	from  int // where the queue begins in its first span
	n     int
}

const spanSize = 4 << 10

type span [spanSize]byte

// spareSpans recycles spans, among all queues.
var spareSpans = sync.Pool{New: func() any { return new(span) }}

func (f *fifo) len() int { return f.n }

// memory returns the bytes of the spans.
func (f *fifo) memory() int { return f.spans.len() * spanSize }

// growth returns how many bytes of memory the queue needs in addition for n more.
func (f *fifo) growth(n int) int {
	return max(0, (f.from+f.n+n+spanSize-1)/spanSize*spanSize-f.memory())
}

// write appends p.
func (f *fifo) write(p []byte) {
	for len(p) > 0 {
		at := (f.from + f.n) % spanSize
		if f.from+f.n == f.memory() {
			f.spans.push(spareSpans.Get().(*span))
			at = 0
		}
		n := copy(f.spans.at(f.spans.len() - 1)[at:], p)
		f.n += n
		p = p[n:]
	}
}

// read moves the front of the queue into p and returns how much.
func (f *fifo) read(p []byte) (read int) {
	for read < len(p) && f.n > 0 {
		n := copy(p[read:], (*f.spans.peek())[f.from:min(spanSize, f.from+f.n)])
		read += n
		f.n -= n
		if f.from += n; f.from == spanSize || f.n == 0 {
			spareSpans.Put(f.spans.pop())
			f.from = 0
		}
	}
	return read
}

// drop forgets everything, and the memory.
func (f *fifo) drop() {
	for f.spans.len() > 0 {
		spareSpans.Put(f.spans.pop())
	}
	*f = fifo{}
}
