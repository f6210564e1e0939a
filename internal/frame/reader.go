package frame

import "io"

// Sizes of a Reader's buffer.
const (
	minBuffer = 4 << 10
	maxBuffer = 2 * (HeaderSize + MaxPayload) // a whole frame and the beginning of the next
)

// A Reader reads frames. It is for one goroutine.
type Reader struct {
	src   io.Reader
	reads func(n int) // called after every Read of src that brought n > 0 bytes; may be nil

	buf  []byte // buf[r:w] has arrived and is not yet consumed
	r, w int
	err  error // of src; reported once the whole frames before it are out
}

// NewReader returns a Reader of src. onRead, if not nil, is called after every Read of src that brought n > 0 bytes.
func NewReader(src io.Reader, onRead func(n int)) *Reader {
	return &Reader{src: src, reads: onRead}
}

// Buffered reports whether Next returns without waiting for src: a frame that Next would skip does not count.
func (r *Reader) Buffered() bool {
	for at := r.r; ; {
		h, n, err := ConsumeHeader(r.buf[at:r.w])
		if err != nil {
			return true
		}
		if n == 0 || r.w-at-n < h.Length {
			return false
		}
		if h.Type.Known() {
			return true
		}
		at += n + h.Length
	}
}

// Next returns the next frame; payload is valid until the next call. Unknown optional frames are skipped. The error is
// io.EOF at the end between frames, io.ErrUnexpectedEOF in the middle of one, a decoding error (ErrTooLong, ErrCritical,
// ErrMalformed), or the source's own.
func (r *Reader) Next() (Header, []byte, error) {
	for {
		h, n, err := ConsumeHeader(r.buf[r.r:r.w])
		if err != nil {
			return h, nil, err
		}
		if n > 0 && r.w-r.r-n >= h.Length {
			payload := r.buf[r.r+n : r.r+n+h.Length : r.r+n+h.Length]
			r.r += n + h.Length
			if !h.Type.Known() {
				continue
			}
			return h, payload, nil
		}
		if err := r.fill(); err != nil {
			return Header{}, nil, err
		}
	}
}

// fill reads more bytes behind those that wait, moving or growing the buffer when there is no room.
func (r *Reader) fill() error {
	if r.err != nil {
		if r.err == io.EOF && r.w > r.r {
			return io.ErrUnexpectedEOF
		}
		return r.err
	}
	r.makeRoom()
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	r.err = err
	if n > 0 && r.reads != nil {
		r.reads(n)
	}
	return nil
}

// makeRoom leaves at least one free byte behind w. The buffer doubles only when it is full of bytes that have arrived.
func (r *Reader) makeRoom() {
	if r.r == r.w {
		full := r.w == len(r.buf) && len(r.buf) > 0
		r.r, r.w = 0, 0
		if full && len(r.buf) < maxBuffer {
			r.buf = make([]byte, min(2*len(r.buf), maxBuffer))
		}
	}
	if r.buf == nil {
		r.buf = make([]byte, minBuffer)
	}
	if r.w < len(r.buf) {
		return
	}
	if r.r > 0 {
		copy(r.buf, r.buf[r.r:r.w])
		r.r, r.w = 0, r.w-r.r
		return
	}
	bigger := make([]byte, min(2*len(r.buf), maxBuffer))
	copy(bigger, r.buf[:r.w])
	r.buf = bigger
}
