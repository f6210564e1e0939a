package record

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// readLoop owns the conn's read side: it handles every frame. It waits for the application only when the peer's share of memory has no room for
// records, see awaitSpace; acknowledgements then wait, too. It ends when the stream has ended, and after the peer's CLOSE.
func (s *Stream) readLoop() {
	r := &reader{s: s, br: s.br}
	for {
		over, err := r.next()
		switch {
		case errors.Is(err, ErrProtocol):
			s.refuse(s.opError("carry", err), codeProtocol, err.Error())
		case err == errNoRoom:
			s.refuse(s.opError("carry", err), codeBusy, err.Error())
		case err != nil && !s.isLeaving(): // the peer does not answer the last frame
			s.fail(s.broken(err))
		}
		if over || err != nil {
			return
		}
	}
}

// isLeaving reports whether this side's last frame is being sent: the writer ends the stream.
func (s *Stream) isLeaving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.leaving
}

// readBuffer is the size of the buffer for small frames. Large frames bypass it.
const readBuffer = 4 << 10

// reader reads the frames of a stream's conn.
type reader struct {
	s    *Stream
	br   *bufio.Reader
	head [batchHead + ackSize]byte // of a body
}

// next handles one frame. It reports whether that was the last.
func (r *reader) next() (over bool, err error) {
	b, err := r.br.Peek(headerSize)
	if err != nil {
		if err == io.EOF && len(b) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return false, err
	}
	h, err := consumeHeader(b, r.s.opts.WindowBytes)
	if err != nil {
		return false, err
	}
	r.s.heard.Store(true)
	_, _ = r.br.Discard(headerSize) // already peeked
	switch h.kind {
	case kindBatch:
		return false, r.batch(h)
	case kindAck, kindRewind, kindEnd:
		return false, r.number(h)
	}
	body := make([]byte, h.length) // at most failHead + maxText
	if _, err := io.ReadFull(r.br, body); err != nil {
		return false, err
	}
	if h.kind == kindFail {
		f, err := consumeFail(body)
		if err != nil {
			return false, err
		}
		s := r.s
		s.mu.Lock()
		defer s.mu.Unlock()
		return false, s.onFail(f)
	}
	code, text := consumeClose(body)
	return true, r.s.onClose(code, text)
}

// number handles an ACK, REWIND or END.
func (r *reader) number(h header) error {
	if _, err := io.ReadFull(r.br, r.head[:ackSize]); err != nil {
		return err
	}
	seq := binary.BigEndian.Uint64(r.head[:])
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch h.kind {
	case kindAck:
		s.stats.acksIn++
		return s.acknowledged(seq)
	case kindRewind:
		return s.in.onRewind(seq)
	}
	if s.closedFor() && s.in.failed == 0 { // of the records before it, some may have been skipped
		s.in.ended = true
		return nil
	}
	if err := s.in.onEnd(seq); err != nil {
		return err
	}
	s.signal(s.readable)
	return nil
}

// batch handles a BATCH.
func (r *reader) batch(h header) error {
	size := batchHead
	if h.flags&flagAck != 0 {
		size += ackSize
	}
	if _, err := io.ReadFull(r.br, r.head[:size]); err != nil {
		return err
	}
	b, n, err := consumeBatch(h, r.head[:size])
	if err != nil {
		return err
	}
	s := r.s
	c, skip, err := s.expect(b, h.length-n)
	if err != nil {
		return err
	}
	if skip {
		_, err := r.br.Discard(h.length - n)
		return err
	}
	records, err := r.records(c.buf[len(c.buf):], h.length-n)
	if err != nil {
		return err
	}
	if err := checkRecords(records, b.count, s.opts.MaxRecord); err != nil {
		return err
	}
	s.arrived(c, b, records)
	return nil
}

// records reads n bytes of records: into room or, for a large BATCH without room, into a buffer that grows as they arrive. Records that a
// peer announces and does not send cost nothing.
func (r *reader) records(room []byte, n int) ([]byte, error) {
	if n <= cap(room) {
		_, err := io.ReadFull(r.br, room[:n])
		return room[:n], err
	}
	var b []byte
	for room := pooledSize; len(b) < n; room *= 4 {
		more := make([]byte, min(room, n))
		copy(more, b)
		if _, err := io.ReadFull(r.br, more[len(b):]); err != nil {
			return nil, err
		}
		b = more
	}
	return b, nil
}

// expect handles the head of a BATCH with n bytes of records. It returns the chunk to append the records to, or that they must be skipped.
func (s *Stream) expect(b batch, n int) (c *inChunk, skip bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.batchesIn++
	if b.acked {
		if !s.batchAck {
			return nil, false, protocolErrorf("BATCH with an acknowledgement, which was not agreed on")
		}
		s.stats.piggybackIn++
		if err := s.acknowledged(b.ack); err != nil {
			return nil, false, err
		}
	}
	in := &s.in
	if in.failed > 0 || s.closedFor() {
		return nil, true, nil
	}
	if err := s.fits(b, n); err != nil {
		return nil, false, err
	}
	return s.awaitSpace(n)
}

// fits returns an error if the peer may not send a batch with n bytes of records now. mu is held.
func (s *Stream) fits(b batch, n int) error {
	in := &s.in
	held := int(in.next - 1 - in.told)
	switch {
	case in.ended:
		return protocolErrorf("BATCH after END")
	case b.first != in.next:
		return protocolErrorf("record %d where %d is due", b.first, in.next)
	case held+b.count > s.opts.Window || in.bytes+n > s.opts.WindowBytes:
		return protocolErrorf("%d records and %d bytes beyond the window", b.count, n)
	}
	return nil
}

// closedFor reports whether arriving records have no reader any more. mu is held.
func (s *Stream) closedFor() bool { return s.err != nil || s.out.closing != nil }

// arrived makes the records of a BATCH, which follow c's, readable.
func (s *Stream) arrived(c *inChunk, b batch, records []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := &s.in
	in.filling = false
	if in.failed > 0 || s.closedFor() { // meanwhile
		in.clear()
		return
	}
	if cap(c.buf) == 0 {
		c.buf = records
		in.held.Give(c.held - cap(records))
		c.held = min(c.held, cap(records))
	} else {
		c.buf = c.buf[:len(c.buf)+len(records)]
	}
	c.count += b.count
	in.bytes += len(records)
	in.next += uint64(b.count)
	s.stats.recordsIn += uint64(b.count)
	s.stats.bytesIn += uint64(len(records))
	if in.delivered < in.skip {
		s.skipApplied()
	}
	s.stats.peakPending = max(s.stats.peakPending, in.next-1-in.applied)
	s.signal(s.readable)
}

// skipApplied removes records from the queue that the earlier stream applied after this side's hello had stated its position. mu is held.
func (s *Stream) skipApplied() {
	in := &s.in
	for in.delivered < in.skip {
		c, ok := in.first()
		if !ok {
			break
		}
		in.take(c)
	}
	in.applied = in.delivered
	s.planAck()
}

// onClose handles the peer's last frame.
func (s *Stream) onClose(code Code, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.out
	if code == codeDone && s.given {
		if len(text) != givenSize {
			return protocolErrorf("CLOSE in order with %d bytes, want %d", len(text), givenSize)
		}
		if o.given = binary.BigEndian.Uint64([]byte(text)); o.given >= o.next {
			return protocolErrorf("record %d was given to the application, and %d are written", o.given, o.next-1)
		}
	}
	switch {
	case o.failed != nil && !o.failed.Retryable:
		s.endAfterPeer(s.opError("carry", o.failed))
	case code != codeDone:
		s.endAfterPeer(&Error{Op: "carry", Name: s.name, Remote: true, Code: code, Text: text})
	case !s.in.ended:
		s.endAfterPeer(s.opError("carry", ErrPeerClosed))
	default: // received records can still be read, and their position kept
		o.gone, s.mute, s.broke = ErrPeerClosed, true, nil
		if s.grace != nil {
			s.grace.Stop()
		}
		o.settleBarriers(func(b *barrier) bool { return !b.durable }, func(b *barrier) error {
			return &Error{Op: b.op, Name: s.name, Applied: o.acked, Err: ErrPeerClosed}
		})
		s.wake.Broadcast()
		s.signal(s.roomy)
		s.signal(s.readable)
	}
	return nil
}

// endAfterPeer ends the stream because of the peer's frame. mu is held.
func (s *Stream) endAfterPeer(err error) {
	s.mute = true
	s.failLocked(err)
}
