package session

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
)

// chunkSize is the unit in which a body of several parts is held until it is whole.
const chunkSize = 64 << 10

// slowStart is how much of a body has to come before a whole chunk is reserved for it: who sends the heads of many bodies
// and little else makes this side hold little.
const slowStart = 16 << 10

// chunks recycles what assemblies are made of.
var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// assembly gathers the parts of one body. It holds at most four times what has arrived.
type assembly struct {
	start    frame.Start
	flags    frame.Flags
	got      int
	whole    []byte             // a body of at most a chunk
	parts    []*[chunkSize]byte // a larger one
	progress time.Duration      // when the last part came, as Session.carriedLocked
}

// begin takes the head of a body.
func (a *assembly) begin(start frame.Start, flags frame.Flags) {
	a.start, a.flags = start, flags
}

// add copies the next part. It reports an error when there is more than the head declared.
func (a *assembly) add(p []byte) error {
	if len(p) > a.start.Total-a.got {
		return fmt.Errorf("body of %d bytes goes past its %d: %w", a.got+len(p), a.start.Total, frame.ErrMalformed)
	}
	switch {
	case a.got == 0 && len(p) == a.start.Total:
		a.whole = bytes.Clone(p)
	case a.got+len(p) <= slowStart:
		a.whole = append(a.whole, p...)
	case a.start.Total <= chunkSize:
		a.whole = append(slices.Grow(a.whole, a.start.Total-len(a.whole)), p...)
	default:
		a.spread(a.whole, 0)
		a.whole = nil
		a.spread(p, a.got)
	}
	a.got += len(p)
	return nil
}

// spread copies p to where at is in the parts.
func (a *assembly) spread(p []byte, at int) {
	for len(p) > 0 {
		if at/chunkSize == len(a.parts) {
			a.parts = append(a.parts, chunks.Get().(*[chunkSize]byte))
		}
		n := copy(a.parts[at/chunkSize][at%chunkSize:], p)
		p, at = p[n:], at+n
	}
}

// complete reports whether the body is whole.
func (a *assembly) complete() bool { return a.got == a.start.Total }

// drop gives back what is held.
func (a *assembly) drop() {
	for _, c := range a.parts {
		chunks.Put(c)
	}
	a.parts, a.whole = nil, nil
}

// size returns the body's bytes once decompressed.
func (a *assembly) size() int {
	if a.packed() {
		return a.start.Raw
	}
	return a.start.Total
}

// packed reports whether the body is compressed.
func (a *assembly) packed() bool { return a.flags&frame.FlagCompressed != 0 }

// refusal returns why a body with this head is not taken, or no code: it is over limit, on the wire or decompressed, or expands too much.
func (a *assembly) refusal(limit int) frame.Failure {
	switch {
	case a.size() > limit || a.start.Total > limit:
		return frame.Failure{Code: codes.TooLarge, Text: fmt.Sprintf("%d bytes, at most %d", a.size(), limit)}
	case a.packed() && frame.Expands(a.start.Total, a.start.Raw):
		return frame.Failure{Code: codes.TooLarge, Text: fmt.Sprintf("%d bytes that expand to %d, more than %d times; send them as they are",
			a.start.Total, a.start.Raw, frame.MaxRatio)}
	}
	return frame.Failure{}
}

// value returns the whole body, decompressed, and forgets it. The slice belongs to the caller; an empty body is an empty
// slice, never nil.
func (a *assembly) value() ([]byte, error) {
	v := a.whole
	if a.parts != nil {
		v = make([]byte, 0, a.got)
		for _, c := range a.parts {
			v = append(v, c[:min(chunkSize, a.got-len(v))]...)
		}
	}
	a.drop()
	if v == nil {
		v = []byte{}
	}
	if !a.packed() {
		return v, nil
	}
	return frame.Decompress(v, a.start.Raw)
}
