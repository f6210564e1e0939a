package bulk

import (
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/peerlane/peerlane/frame"
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
		for len(f.queue) >= len(f.strands) && f.writeFailure() == nil {
			f.changed.Wait()
		}
		if err := f.writeFailure(); err != nil {
			return n, err
		}
		f.mu.Unlock()
		b := newBuffer()
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
	var z packer
	for {
		b, number, do := f.takeBlock()
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
			if err != nil {
				f.outFailed(err)
			}
			_ = st.CloseWrite() // END says it all
			return
		case endStrand:
			_ = st.CloseWrite() // likewise
			return
		}
		wire := b.seal(number, f.zstd, &z)
		_, err := st.Write(wire)
		f.sent(b, len(wire), err)
		if err != nil {
			f.outFailed(err)
		}
	}
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

// takeBlock waits for a block to send, or for the end of the direction, and returns its number.
func (f *framed) takeBlock() (*buffer, uint64, job) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.err != nil:
			return nil, 0, sendNothing
		case f.outErr != nil:
			return nil, 0, endStrand
		case len(f.queue) > 0:
			b := f.queue[0]
			f.queue = append(f.queue[:0], f.queue[1:]...)
			number := f.number
			f.number++
			f.sending++
			f.changed.Broadcast()
			return b, number, sendBlock
		case f.ended && f.saidEnd:
			return nil, 0, endStrand
		case f.ended && f.sending == 0:
			f.saidEnd = true
			f.changed.Broadcast()
			return nil, f.number, sendEnd
		}
		f.changed.Wait()
	}
}

// sent gives back a block that a strand has tried to send; with an error it has not left whole.
func (f *framed) sent(b *buffer, wire int, err error) {
	raw := len(b.raw)
	b.free()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sending--
	if err != nil {
		f.dropped++
	}
	f.raw += uint64(raw)
	f.wire += uint64(wire)
	f.changed.Broadcast()
}

// outFailed ends the way out alone when the peer reads no more, as far as that can be told from a loss, and when the session has ended:
// who reads finds out about that, behind what has come. Other errors end the lane.
func (f *framed) outFailed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) && !isSessionEnd(err) {
		f.failLocked(err, frame.CodeCancelled)
		return
	}
	if f.outErr == nil {
		f.outErr = err
		f.dropQueue()
	}
}

// isSessionEnd reports whether err is the end of a stream with its session, from which what has come can still be read.
func isSessionEnd(err error) bool {
	return errors.Is(err, session.ErrClosed) || errors.Is(err, session.ErrGoingAway) || errors.Is(err, session.ErrSessionLost)
}
