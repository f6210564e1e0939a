package session

import (
	"fmt"
	"sync/atomic"
)

// payload says how many of a stream's bytes the user of a lane has written, for errors. It is empty if there is no lane on the stream.
type payload struct{ written atomic.Pointer[func() uint64] }

func (p *payload) setPayload(written func() uint64) { p.written.Store(&written) }

// isFramed reports whether the stream has bytes that are not the user's.
func (p *payload) isFramed() bool { return p.written.Load() != nil }

// isEmpty reports whether the stream has only such bytes.
func (p *payload) isEmpty() bool {
	written := p.written.Load()
	return written != nil && (*written)() == 0
}

// ofAll returns how many of the stream's bytes are the user's.
func (p *payload) ofAll(bytes uint64) uint64 {
	if written := p.written.Load(); written != nil {
		return (*written)()
	}
	return bytes
}

// unknownText is the text of an error about bytes that may have arrived.
func unknownText(bytes uint64) string {
	if bytes == 0 {
		return "nothing was written, and it is not known whether the end of the stream arrived"
	}
	return fmt.Sprintf("%d bytes were written, and it is not known how many of them arrived", bytes)
}

// knownText is the text of an error about bytes of which the peer has some.
func knownText(has, bytes uint64) string {
	return fmt.Sprintf("the peer is known to have %d of %d bytes", min(has, bytes), bytes)
}
