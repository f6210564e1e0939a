package bulk

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/peerlane/peerlane/frame"
)

// receive owns the way in of one strand. It ends with the lane, or with the strand; what is no block ends the lane. It is a goroutine
// of its own.
func (f *framed) receive(st strand) {
	defer f.leave()
	z := unpacker{zstd: f.zstd}
	for {
		b, k, err := readBlock(st, &z)
		switch {
		case err == io.EOF, err != nil && f.isDeaf():
			f.strandEnded()
			return
		case errors.Is(err, ErrProtocol):
			f.fail(err, frame.CodeProtocol)
			return
		case err != nil:
			f.fail(err, frame.CodeCancelled)
			return
		}
		if !f.deliver(b, k) {
			return
		}
	}
}

func (f *framed) isDeaf() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deaf
}

// deliver waits until a block is due and the one before has been read. It reports false when the lane has ended.
func (f *framed) deliver(b *buffer, k block) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.awaitTurn(k.number)
	switch {
	case f.err != nil:
		f.keep(b, k)
		return false
	case f.deaf:
		b.free()
		if k.kind == blockEnd {
			f.fin = true
		} else if f.closed {
			f.unwanted = true
		}
		f.changed.Broadcast()
		return true
	case k.number < f.next || f.fin:
		b.free()
		f.failLocked(protocolErrorf("block %d, and %s is due", k.number, f.due()), frame.CodeProtocol)
		return false
	case k.kind == blockEnd:
		f.fin = true
	default:
		f.current = b
		f.next++
	}
	f.changed.Broadcast()
	return true
}

// An arrival is a block that has come, and what its head says.
type arrival struct {
	raw  *buffer
	head block
}

// keep puts aside a block that has come to a lane that has failed, for Read. f.mu is held.
func (f *framed) keep(b *buffer, k block) {
	if f.forgets || f.deaf {
		b.free()
		return
	}
	if f.kept == nil {
		f.kept = make(map[uint64]arrival)
	}
	f.kept[k.number] = arrival{b, k}
	f.takeKept()
}

// takeKept makes the block that is due the current one, if it is among those that are kept. f.mu is held.
func (f *framed) takeKept() {
	k, ok := f.kept[f.next]
	if !ok || f.current != nil || f.fin {
		return
	}
	delete(f.kept, f.next)
	if f.fin = k.head.kind == blockEnd; f.fin {
		k.raw.free()
	} else {
		f.current = k.raw
		f.next++
	}
	f.changed.Broadcast()
}

// awaitTurn waits while a block may not be read yet.
func (f *framed) awaitTurn(number uint64) {
	waits := func() bool {
		return f.err == nil && !f.deaf && !f.fin && number >= f.next && (number > f.next || f.current != nil)
	}
	if !waits() {
		return
	}
	f.held = append(f.held, number)
	f.checkLocked()
	for waits() {
		f.changed.Wait()
	}
	i := slices.Index(f.held, number)
	f.held = slices.Delete(f.held, i, i+1)
}

func (f *framed) due() string {
	if f.fin {
		return "none"
	}
	return strconv.FormatUint(f.next, 10)
}

// strandEnded takes note that the peer has ended a strand.
func (f *framed) strandEnded() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	f.checkLocked()
}

// Read implements net.Conn.
func (f *framed) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.closed, f.deaf:
			return 0, net.ErrClosed
		case f.readDue.Expired():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case f.current != nil && !f.forgets:
			b := f.current
			n := copy(p, b.raw)
			if b.raw = b.raw[n:]; len(b.raw) == 0 {
				f.current = nil
				b.free()
				f.takeKept()
				f.changed.Broadcast()
			}
			return n, nil
		case f.fin:
			return 0, io.EOF
		case f.err != nil:
			return 0, f.err
		}
		f.changed.Wait()
	}
}
