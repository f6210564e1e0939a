// Package packet cuts a byte stream into packets, each with a header that says how long it is, and writes them.
//
//	in := packet.NewReader(stream, packet.Values[Order](json.Codec{}), 1<<20)
//	for {
//		order, err := in.Next()
//		if err != nil {
//			return err // io.EOF at the end
//		}
//		fmt.Println(order)
//	}
//
// A Format is the hook for a wire of your own. Values is one with a length and a codec's value.
//
// # Limits
//
// The size that a header declares is checked before anything of the body is read, and memory grows with the bytes that have arrived, to at most
// twice as many: a peer that declares much and sends little costs little.
package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
)

// Errors of readers and writers, for errors.Is.
var (
	ErrTooLarge  = errors.New("packet too large")    // over the limit of the Reader or Writer
	ErrMalformed = errors.New("packet is malformed") // the Format does not accept it
)

// MaxHeader bounds the bytes that Format.Size may ask for before it knows the size.
const MaxHeader = 4096

// A Format is the form of the packets of a stream. Its methods must not keep data.
type Format[P any] interface {
	// Size returns the size of the packet that data begins with, its header included, or 0 if the header is not complete. data may have less
	// than the packet or more. It is called again with more data while it returns 0.
	Size(data []byte) (int, error)
	// Decode decodes a packet of that size.
	Decode(data []byte) (P, error)
	// Append appends p with its header to b.
	Append(b []byte, p P) ([]byte, error)
}

// A Reader reads packets. It is not safe for concurrent use.
type Reader[P any] struct {
	r      io.Reader
	format Format[P]
	max    int
	buf    []byte // has arrived
	at     int    // how much of it has been decoded
	empty  int    // Reads in a row that brought nothing
	err    error  // of the stream, or of a packet; nothing is read after it
}

// NewReader returns a Reader of r. max limits the size of a packet, its header included. It panics if max is not positive.
func NewReader[P any](r io.Reader, f Format[P], max int) *Reader[P] {
	if max <= 0 {
		panic(fmt.Sprintf("packet: max is %d, want more than 0", max))
	}
	return &Reader[P]{r: r, format: f, max: max}
}

// Next returns the next packet. The error is io.EOF if the stream ends between packets, and io.ErrUnexpectedEOF if it ends within one. It
// matches ErrTooLarge for a packet that declares more than the limit, and ErrMalformed for one that the Format does not accept. After an error
// all further calls return it: the place of the next packet is not known. Close the stream then.
func (r *Reader[P]) Next() (P, error) {
	var none P
	size, err := r.header()
	if err != nil {
		return none, err
	}
	for len(r.buf)-r.at < size {
		if err := r.fill(size); err != nil {
			return none, err
		}
	}
	p, err := r.format.Decode(r.buf[r.at : r.at+size : r.at+size])
	if err != nil {
		return none, r.fail(fmt.Errorf("%w: %w", ErrMalformed, err))
	}
	if r.at += size; r.at == len(r.buf) {
		if r.at, r.buf = 0, r.buf[:0]; cap(r.buf) > maxKept {
			r.buf = nil
		}
	}
	return p, nil
}

// header reads until the size of the next packet is known, and returns it.
func (r *Reader[P]) header() (int, error) {
	for {
		if data := r.buf[r.at:]; len(data) > 0 {
			size, err := r.format.Size(data)
			switch {
			case err != nil:
				return 0, r.fail(fmt.Errorf("%w: %w", ErrMalformed, err))
			case size < 0:
				return 0, r.fail(fmt.Errorf("%w: a size of %d bytes", ErrMalformed, size))
			case size > r.max:
				return 0, r.fail(fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, r.max))
			case size > 0:
				return size, nil
			case len(data) >= min(r.max, MaxHeader):
				return 0, r.fail(fmt.Errorf("%w: no size in %d bytes", ErrMalformed, len(data)))
			}
		}
		if err := r.fill(min(r.max, MaxHeader)); err != nil {
			return 0, err
		}
	}
}

const (
	minBuffer = 512      // the first size of the buffer
	maxKept   = 64 << 10 // a larger buffer is not kept between packets
	maxEmpty  = 100      // Reads in a row that may bring nothing
)

// fill reads once. want is the size of a packet that is not complete, or the most that its header may have.
func (r *Reader[P]) fill(want int) error {
	if r.err != nil {
		return r.err
	}
	if r.at > 0 && len(r.buf) == cap(r.buf) {
		r.buf = r.buf[:copy(r.buf, r.buf[r.at:])]
		r.at = 0
	}
	if len(r.buf) == cap(r.buf) {
		grown := make([]byte, len(r.buf), max(min(want, 2*cap(r.buf)), minBuffer))
		copy(grown, r.buf)
		r.buf = grown
	}
	n, err := r.r.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	switch {
	case n > 0:
		r.empty = 0
		return nil // an error comes again
	case err == io.EOF && len(r.buf) > r.at:
		return r.fail(io.ErrUnexpectedEOF)
	case err != nil:
		return r.fail(err)
	}
	if r.empty++; r.empty > maxEmpty {
		return r.fail(io.ErrNoProgress)
	}
	return nil
}

// fail ends the Reader with err.
func (r *Reader[P]) fail(err error) error {
	r.err, r.buf, r.at = err, nil, 0
	return err
}

// A Writer writes packets. It is safe for concurrent use.
type Writer[P any] struct {
	format Format[P]
	max    int

	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// NewWriter returns a Writer to w. max limits the size of a packet, its header included. It panics if max is not positive.
func NewWriter[P any](w io.Writer, f Format[P], max int) *Writer[P] {
	if max <= 0 {
		panic(fmt.Sprintf("packet: max is %d, want more than 0", max))
	}
	return &Writer[P]{w: w, format: f, max: max}
}

// Write writes p in one Write of the stream. Nothing is written if the Format fails, or if the packet is over the limit, which is an error that
// matches ErrTooLarge.
func (w *Writer[P]) Write(p P) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, err := w.format.Append(w.buf[:0], p)
	if err != nil {
		return fmt.Errorf("packet: %w", err)
	}
	if w.buf = nil; cap(b) <= maxKept {
		w.buf = b
	}
	if len(b) > w.max {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), w.max)
	}
	_, err = w.w.Write(b)
	return err
}

// A Codec turns values into bytes and back, as a session.Codec does.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// lengthSize is the size of the header of Values.
const lengthSize = 4

// Values returns a Format for values of a codec. A packet is the length of the value, in four bytes, the highest first, and the value.
func Values[P any](c Codec) Format[P] { return values[P]{c} }

type values[P any] struct{ codec Codec }

// Size implements Format.
func (values[P]) Size(data []byte) (int, error) {
	if len(data) < lengthSize {
		return 0, nil
	}
	n := binary.BigEndian.Uint32(data)
	if n > math.MaxInt32-lengthSize {
		return 0, fmt.Errorf("a value of %d bytes", n)
	}
	return lengthSize + int(n), nil
}

// Decode implements Format.
func (v values[P]) Decode(data []byte) (P, error) {
	var p P
	err := v.codec.Unmarshal(data[lengthSize:], &p)
	return p, err
}

// Append implements Format.
func (v values[P]) Append(b []byte, p P) ([]byte, error) {
	value, err := v.codec.Marshal(p)
	if err != nil {
		return b, err
	}
	if len(value) > math.MaxInt32-lengthSize {
		return b, fmt.Errorf("%w: a value of %d bytes", ErrTooLarge, len(value))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
	return append(b, value...), nil
}
