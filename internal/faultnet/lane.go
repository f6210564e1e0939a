package faultnet

import "time"

// A lane is one direction of a Link. Its fields are guarded by Link.mu.
type lane struct {
	chunks []chunk   // written and not yet read, in order
	size   int       // bytes in chunks
	last   time.Time // when the latest thing sent arrives; the zero time for at once
	busy   time.Time // until when what was written takes to leave, with a Rate

	end   mark // the writer is done: its reader gets io.EOF
	reset mark // the writer is gone without a good-bye: its reader's end breaks
	gone  mark // the reader is done: its writer gets syscall.EPIPE
}

// A chunk is bytes that arrive at the same time.
type chunk struct {
	data []byte
	at   time.Time
}

// A mark is a state that one end has entered and that the other end learns of later.
type mark struct {
	set bool
	at  time.Time
}

// seen reports whether the other end knows.
func (m mark) seen() bool { return m.set && arrived(m.at) }

func arrived(at time.Time) bool { return !time.Now().Before(at) }

// push copies b to the end of the lane.
func (ln *lane) push(b []byte, at time.Time) {
	ln.size += len(b)
	if n := len(ln.chunks); n > 0 && ln.chunks[n-1].at.Equal(at) {
		ln.chunks[n-1].data = append(ln.chunks[n-1].data, b...)
		return
	}
	ln.chunks = append(ln.chunks, chunk{append([]byte(nil), b...), at})
}

// pop moves what has arrived into b, as much as fits.
func (ln *lane) pop(b []byte) int {
	n := 0
	for n < len(b) && len(ln.chunks) > 0 && arrived(ln.chunks[0].at) {
		head := &ln.chunks[0]
		m := copy(b[n:], head.data)
		n += m
		if head.data = head.data[m:]; len(head.data) == 0 {
			ln.chunks = ln.chunks[1:]
		}
	}
	ln.size -= n
	return n
}

// clear loses what was not read.
func (ln *lane) clear() { ln.chunks, ln.size = nil, 0 }
