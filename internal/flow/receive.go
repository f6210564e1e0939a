package flow

import (
	"errors"
	"io"
	"time"
)

// The receiving side of a flow: the one goroutine that reads takes segments off the carrier and passes their bytes on. It never waits for
// the sending side.

// inbound is the receiving state of a flow. Flow.mu guards it.
type inbound struct {
	received uint64 // offset of the next byte
	taken    uint64 // offset of the first byte that the application has not taken
	answerAt uint64 // the other side must be notified once taken reaches this; 0: it has not asked
	finished bool   // FIN has been received
	stopped  bool   // the other side takes no more bytes
	unsaid   bool   // bytes have arrived since a segment was last sent
	signing  bool   // Flow.sign runs
}

// reader parses the segments of one carrier. Its buffer is small: long segments bypass it.
type reader struct {
	buf    []byte
	r, w   int
	left   int    // unread bytes of the segment in progress
	at     uint64 // their offset
	begun  bool   // START has come
	asking bool   // the segment in progress is an ASK
}

const readBuffer = 4 << 10

// batch is the result of one Read of a flow.
type batch struct {
	n        int    // bytes for the caller
	passed   int    // bytes that arrived, including repeated ones
	number   uint64 // the last number of the other side
	answerAt uint64 // the end of the last whole ASK; 0: none
	probed   bool   // an ASK without bytes arrived
	end      bool   // END arrived: the last segment on this carrier
	fin      bool   // FIN arrived
	stop     bool   // STOP arrived
	any      bool   // a segment was read
}

// Read returns bytes of the other side, in order and once each, and io.EOF after the other side's CloseWrite. It returns ErrProtocol if the
// other side breaks the protocol, which closes the flow, or the reason of Close. It waits while there is no carrier.
func (f *Flow) Read(p []byte) (int, error) {
	for len(p) > 0 {
		c, from, err := f.startReading()
		if err != nil {
			return 0, err
		}
		var got batch
		err = f.take(c, p, from, &got)
		if broken := f.endReading(c, from, &got); broken != nil {
			err = broken
		}
		switch {
		case errors.Is(err, ErrProtocol):
			f.Close(err)
			return got.n, err
		case err != nil:
			f.failed(c, err)
		}
		if got.n > 0 {
			return got.n, nil
		}
	}
	return 0, nil
}

// startReading waits for a carrier to read from, and returns it and the offset of the next byte.
func (f *Flow) startReading() (*carrier, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.err != nil:
			return nil, 0, f.err
		case f.in.finished && f.cfg.Lazy == nil:
			return nil, 0, io.EOF
		}
		c := f.cur
		if f.old != nil && !f.old.inDone {
			c = f.old
		}
		if c != nil && !c.inDone {
			f.users++
			return c, f.in.received, nil
		}
		f.changed.Wait()
	}
}

// endReading applies the result of a Read on c. The error matches ErrProtocol.
func (f *Flow) endReading(c *carrier, from uint64, got *batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.endReadingLocked(c, from, got)
}

func (f *Flow) endReadingLocked(c *carrier, from uint64, got *batch) error {
	if f.users--; f.users == 0 {
		f.changed.Broadcast()
	}
	if f.err != nil {
		return nil
	}
	in := &f.in
	if in.finished && (got.n > 0 || got.fin) {
		return ProtocolErrorf("more after FIN")
	}
	if got.passed > 0 {
		f.owe()
		f.out.arrived(uint64(got.passed), f.elapsed)
	}
	in.received = from + uint64(got.n)
	if got.fin {
		in.finished = true
		in.received++
	}
	if f.cfg.Lazy == nil || in.finished { // data kept after FIN needs no more credit, so its sender may forget it
		in.taken = in.received
	}
	if got.number > f.out.reached {
		return ProtocolErrorf("%d bytes acknowledged of %d", got.number, f.out.reached)
	}
	f.acknowledged(got.number)
	if got.stop {
		in.stopped = true
		f.changed.Broadcast()
	}
	in.answerAt = max(in.answerAt, got.answerAt)
	f.answer(got.probed || got.fin)
	if got.end {
		f.endIn(c)
	}
	f.closeIfDone()
	return nil
}

// acknowledged handles the number of the other side. Data being sent again stays until it is sent, even if it has arrived before. mu is
// held.
func (f *Flow) acknowledged(number uint64) {
	o := &f.out
	until := min(number, o.sent)
	if number <= o.taken && until <= o.acked {
		return
	}
	if until > o.acked {
		now := f.elapsed()
		o.progress, o.behind = now, 0
		o.pace.hear(now, until, until == o.sent)
	}
	o.taken = max(o.taken, number)
	o.ack(until)
	o.unasked = min(o.unasked, o.held) // a number that comes unasked, with data, need not be asked for
	f.changed.Broadcast()
}

// arrived records that n bytes of the other side have arrived. An acknowledgement that a call waits for may be queued behind them. As long
// as that is possible, the time these bytes took does not count. mu is held.
func (o *outbound) arrived(n uint64, elapsed func() time.Duration) {
	if o.waiters == 0 {
		return
	}
	now := elapsed()
	gap := now - max(o.arrivedAt, o.progress)
	o.arrivedAt = now
	if o.behind += n; o.behind <= mostBehind && float64(n) >= gap.Seconds()*slowest {
		o.progress += gap
	}
}

const (
	slowest    = 1 << 10  // bytes a second that count as a full carrier
	mostBehind = 64 << 20 // most bytes that can be under way: the largest window
)

// answer sends the other side the number of bytes taken, if it has asked for that (spec 5.4) or now is set. mu is held.
func (f *Flow) answer(now bool) {
	in := &f.in
	if in.answerAt > 0 && in.taken >= in.answerAt {
		in.answerAt, now = 0, true
	}
	if now {
		f.out.answer = true
		f.sendLater()
	}
}

// endIn records that the other side continues on the next carrier. mu is held.
func (f *Flow) endIn(c *carrier) {
	c.inDone = true
	switch c {
	case f.old:
		f.changed.Broadcast()
		f.settle()
	case f.cur:
		f.awaitNext()
	}
}

// take reads from c into p until it has found something and would have to wait for more, or p has no room for the next byte. from is the
// offset of the next byte for p.
func (f *Flow) take(c *carrier, p []byte, from uint64, got *batch) error {
	r := &c.read
	for !got.end && !got.fin {
		var err error
		next := from + uint64(got.n)
		switch {
		case r.left > 0 && r.at < next: // sent again on a new carrier
			err = f.skip(c, got, next-r.at)
		case r.left > 0 && got.n == len(p):
			return nil
		case r.left > 0:
			err = f.takeBytes(c, p, got)
		case r.w-r.r < headerSize:
			err = f.fill(c, got)
		default:
			err = r.next(from, got)
		}
		if err == errIdle {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errIdle ends a take that has found something and would have to wait for more.
var errIdle = errors.New("nothing more at once")

// next parses the header at the front of the buffer.
func (r *reader) next(from uint64, got *batch) error {
	h := headerOf(r.buf[r.r:])
	if err := h.check(); err != nil {
		return err
	}
	r.r += headerSize
	if r.begun == (h.kind == kindStart) {
		return ProtocolErrorf("%v is out of place", h.kind)
	}
	got.any = true
	switch h.kind {
	case kindStart:
		if h.number > from+uint64(got.n) { // spec 4.5: not a protocol violation
			return errGap
		}
		r.begun, r.at = true, h.number
		return nil
	case kindEnd:
		if h.number != r.at { // spec 6.3; r.at may be below the received offset, when the sender was about to send bytes again
			return ProtocolErrorf("END at %d, not at %d", h.number, r.at)
		}
		got.end = true
		return nil
	case kindFin:
		got.fin = r.at == from+uint64(got.n)
		r.at++
	case kindStop:
		got.stop = true
	case kindAsk:
		if h.length == 0 { // answered at once, and again once everything before it has been taken
			got.probed, got.answerAt = true, r.at
		}
	}
	got.number = max(got.number, h.number)
	r.left, r.asking = h.length, h.kind == kindAsk
	return nil
}

// passed records that n bytes of the segment in progress have been read.
func (r *reader) passed(n int, got *batch) {
	r.left -= n
	r.at += uint64(n)
	got.passed += n
	if r.left == 0 && r.asking {
		got.answerAt = r.at
	}
}

// takeBytes reads bytes of the segment in progress into p.
func (f *Flow) takeBytes(c *carrier, p []byte, got *batch) error {
	r := &c.read
	p = p[got.n:min(len(p), got.n+r.left)]
	if r.r < r.w {
		n := copy(p, r.buf[r.r:r.w])
		r.r += n
		got.n += n
		r.passed(n, got)
		return nil
	}
	switch {
	case got.any || got.n > 0:
		return errIdle
	case len(p) < readBuffer:
		return f.fill(c, got)
	}
	n, err := c.conn.Read(p)
	if n > 0 {
		f.heard.Add(1)
		f.hear()
		got.n += n
		r.passed(n, got)
		return nil
	}
	return noProgress(err)
}

// skip discards up to n bytes of the segment in progress, which have arrived before.
func (f *Flow) skip(c *carrier, got *batch, n uint64) error {
	r := &c.read
	if r.r == r.w {
		return f.fill(c, got)
	}
	k := int(min(n, uint64(min(r.left, r.w-r.r))))
	r.r += k
	r.passed(k, got)
	return nil
}

// fill reads more bytes behind those in the buffer. It does not wait if a segment has been found.
func (f *Flow) fill(c *carrier, got *batch) error {
	r := &c.read
	if got.any || got.n > 0 {
		return errIdle
	}
	if r.buf == nil {
		r.buf = make([]byte, readBuffer)
	}
	copy(r.buf, r.buf[r.r:r.w])
	r.r, r.w = 0, r.w-r.r
	n, err := c.conn.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		f.heard.Add(1)
		f.hear()
		return nil
	}
	return noProgress(err)
}

// noProgress returns the error of a Read that returned no bytes: a carrier that ends is lost.
func noProgress(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
