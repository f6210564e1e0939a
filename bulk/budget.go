package bulk

import (
	"errors"
	"net"
	"time"

	"github.com/peerlane/peerlane/internal/lane"
)

// What a lane in blocks holds on a session that the peer has opened is in the peer's share of memory. Where there is no room for a block, a
// Write waits, or a strand is not read, so that the peer waits; only what compresses goes without.

// bufferSize is what a buffer takes, and a buffer of compressed bytes.
const bufferSize = blockHead + maxBlock

// claim counts b in a budget until it is freed, and reports false if there is no room for it.
func (b *buffer) claim(in lane.Budget) bool {
	if in == nil {
		return true
	}
	if !in.Take(bufferSize) {
		return false
	}
	b.in = in
	return true
}

// errDeaf means that there is no room for a block that nobody wants any more.
var errDeaf = errors.New("nobody reads the block")

// awaitBuffer returns a buffer for a block of the peer's, once there is room for it in the budget, and for what z unpacks it from. The error is
// errDeaf, or net.ErrClosed when the lane has ended.
func (f *framed) awaitBuffer(z *unpacker, k block) (*buffer, error) {
	if b := f.bufferFor(z, k); b != nil {
		return b, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var retry lane.Retry
	for {
		switch {
		case f.err != nil:
			return nil, net.ErrClosed
		case f.deaf:
			return nil, errDeaf
		}
		f.awaitChange(retry.Next())
		if b := f.bufferFor(z, k); b != nil {
			return b, nil
		}
	}
}

// bufferFor is awaitBuffer without waiting: it returns nil if there is no room.
func (f *framed) bufferFor(z *unpacker, k block) *buffer {
	b := newBuffer()
	if b.claim(f.arrived) && (k.kind != blockZstd || z.held.UpTo(bufferSize)) {
		return b
	}
	b.free()
	return nil
}

// nextBuffer returns a buffer for a block to send, or nil if there is no room for it in the budget.
func (f *framed) nextBuffer() *buffer {
	b := newBuffer()
	if b.claim(f.kept) {
		return b
	}
	b.free()
	return nil
}

// awaitChange waits for something of the lane to change, or until d has passed. mu is held, and released while it waits.
func (f *framed) awaitChange(d time.Duration) {
	timer := time.AfterFunc(d, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})
	defer timer.Stop()
	f.changed.Wait()
}

// dropCurrent drops the block that nobody reads any more. mu is held.
func (f *framed) dropCurrent() {
	f.current.free()
	f.current = nil
}
