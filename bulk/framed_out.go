package bulk

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/session"
)

// Write implements net.Conn: it returns once all of p waits to be sent, of which there is at most a block for each strand.
func (f *framed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.turn && f.writeFailure() == nil {
		f.changed.Wait()
	}
	if err := f.writeFailure(); err != nil {
		return 0, err
	}
	f.turn = true
	defer func() {
		f.turn = false
		f.changed.Broadcast()
	}()
	n := 0
	for n < len(p) {
		b, err := f.awaitTurnOut()
		if err != nil {
			return n, err
		}
		f.mu.Unlock()
		b.raw = b.room[blockHead : blockHead+copy(b.room[blockHead:blockHead+maxBlock], p[n:])]
		f.mu.Lock()
		if err := f.writeFailure(); err != nil { // END may have been said meanwhile
			b.free()
			return n, err
		}
		f.queue = append(f.queue, b)
		n += len(b.raw)
		f.changed.Broadcast()
	}
	return n, nil
}

// awaitTurnOut waits until a further block may wait to be sent, and returns a buffer for it. mu is held, and released while it waits.
func (f *framed) awaitTurnOut() (*buffer, error) {
	var retry lane.Retry
	for {
		if err := f.writeFailure(); err != nil {
			return nil, err
		}
		if len(f.queue) >= len(f.strands) {
			f.changed.Wait()
			continue
		}
		if b := f.nextBuffer(); b != nil {
			return b, nil
		}
		f.awaitChange(retry.Next())
	}
}

func (f *framed) writeFailure() error {
	switch {
	case f.closed, f.ended:
		return net.ErrClosed
	case f.err != nil:
		return f.err
	case f.outErr != nil:
		return f.outErr
	case f.writeDue.Expired():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// send owns the way out of one strand. It ends with the lane, or when the direction has ended; an error ends the direction or the
// lane. It is a goroutine of its own.
func (f *framed) send(st strand) {
	defer f.leave()
	defer f.sentAll()
	z := packer{held: lane.In(f.kept)}
	defer z.held.End()
	var after uint64
	var payload atomic.Uint64 // bytes of the blocks that this strand has been given
	if l := laneOf(st); l != nil {
		l.SetPayload(payload.Load)
	}
	for {
		b, number, do := f.takeBlock(after)
		switch do {
		case sendNothing:
			return
		case sendEnd:
			var head [blockHead]byte
			block{kind: blockEnd, number: number}.put(head[:])
			_, err := st.Write(nil) // a peer that reads no more is not sent what it would drop
			if err == nil {
				_, err = st.Write(head[:])
			}
			f.sentEnd(st, err)
			_ = st.CloseWrite() // END says it all
			return
		case endStrand:
			_ = st.CloseWrite() // likewise
			return
		}
		after = number + 1
		payload.Add(uint64(len(b.raw)))
		wire := b.seal(number, f.zstd, &z)
		_, err := st.Write(wire)
		f.sent(b, number, len(wire))
		if err != nil {
			f.outFailed(err, 1)
		}
	}
}

// sentEnd notes that a strand has sent END, or could not.
func (f *framed) sentEnd(st strand, err error) {
	if err != nil {
		f.outFailed(err, 0)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endOn = st
}

// sentAll ends send.
func (f *framed) sentAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.senders--
	f.changed.Broadcast()
}

// job is what a strand is to do next.
type job uint8

const (
	sendNothing job = iota // the lane has ended
	sendBlock
	sendEnd   // END, and the strand's half close
	endStrand // its half close alone
)

// takeBlock waits for a block to send, or for the end of the direction, and returns its number. All of the strand's own are
// below after: while an earlier one than those has not left, the strand waits. Its next block would lie unread at the peer, in a window that the streams of a
// QUIC connection share, and might leave no room there for the one that is due (spec 4.5).
func (f *framed) takeBlock(after uint64) (*buffer, uint64, job) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.err != nil:
			return nil, 0, sendNothing
		case f.outErr != nil:
			return nil, 0, endStrand
		case len(f.queue) > 0 && (len(f.sending) == 0 || f.sending[0] >= after):
			b := f.queue[0]
			f.queue = append(f.queue[:0], f.queue[1:]...)
			number := f.number
			f.number++
			f.sending = append(f.sending, number)
			f.changed.Broadcast()
			return b, number, sendBlock
		case f.saidEnd:
			return nil, 0, endStrand
		case f.ended && len(f.queue)+len(f.sending) == 0:
			f.saidEnd = true
			f.changed.Broadcast()
			return nil, f.number, sendEnd
		}
		f.changed.Wait()
	}
}

// sent gives back a block that a strand has tried to send.
func (f *framed) sent(b *buffer, number uint64, wire int) {
	raw := len(b.raw)
	b.free()
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.sending, number)
	f.sending = slices.Delete(f.sending, i, i+1)
	f.raw += uint64(raw)
	f.wire += uint64(wire)
	f.changed.Broadcast()
}

// outFailed ends the way out alone when the peer reads no more, as far as that can be told from a loss, or the session is being closed:
// what has arrived can still be read, and a loss ends the strands' Reads too. Other errors end the lane. lost is how many blocks have
// not left for err.
func (f *framed) outFailed(err error, lost int) {
	f.mu.Lock()
	defer f.unlock()
	f.dropped += lost
	if f.outErr != nil { // it has been ended already
		return
	}
	if !endsOneWay(err) {
		f.failLocked(err, codes.Cancelled)
		return
	}
	f.outErr = err
	f.dropQueue()
}

func endsOneWay(err error) bool {
	for _, one := range []error{syscall.EPIPE, syscall.ECONNRESET, session.ErrClosed, session.ErrSessionLost, session.ErrGoingAway} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}
