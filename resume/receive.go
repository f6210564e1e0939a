package resume

import (
	"errors"
	"io"
	"time"
)

// The way into a flow: the one goroutine that reads takes segments off the carrier and hands their bytes on. It never waits
// for the way out.

// inbound is what a flow receives. Flow.mu guards it.
type inbound struct {
	received uint64 // offset of the next byte
	taken    uint64 // offset of the first byte that the application has not taken
	answerAt uint64 // the other side is to be told once taken is here; 0: it has not asked
	finished bool   // FIN has been received
	stopped  bool   // the other side takes no more bytes
	unsaid   bool   // bytes have come since a segment was sent last
	signing  bool   // Flow.sign runs
}

// reader takes the segments of one carrier apart. Its buffer is small: long segments go past it.
type reader struct {
	buf    []byte
	r, w   int
	left   int    // bytes of the segment in progress that have not been read
	at     uint64 // their offset
	begun  bool   // START has come
	asking bool   // the segment in progress is an ASK
}

const readBuffer = 4 << 10

// batch is what one Read of a flow has found.
type batch struct {
	n        int    // bytes for the caller
	passed   int    // bytes that have come, those included that had come before
	number   uint64 // the last number of the other side
	answerAt uint64 // the end of the last whole ASK; 0: none
	probed   bool   // an ASK without bytes
	end      bool   // END: the last thing on this carrier
	fin      bool   // FIN
	stop     bool   // STOP
	any      bool   // a segment was read
}

// Read returns bytes of the other side, in order and once each, io.EOF after its CloseWrite, ErrProtocol when it breaks the
// protocol, which closes the flow, or the reason of Close. It waits while there is no carrier.
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
		case f.in.finished && !f.cfg.lazy:
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

// endReading takes over what a Read has found on c. The error matches ErrProtocol.
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
		return protocolErrorf("more after FIN")
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
	if !f.cfg.lazy || in.finished { // what is kept after FIN needs no credit any more, and can be forgotten by its sender
		in.taken = in.received
	}
	if got.number > f.out.reached {
		return protocolErrorf("%d bytes acknowledged of %d", got.number, f.out.reached)
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

// acknowledged takes note of what the other side has taken. What is being sent again, though it has arrived before, stays
// until it is sent. mu is held.
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
	o.unasked = min(o.unasked, o.held) // what comes unasked, with data, need not be asked for
	f.changed.Broadcast()
}

// arrived notes that n bytes of the other side have come. An acknowledgement that somebody waits for may stand behind them: the time
// that they have filled does not count, as long as that can be so. mu is held.
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
	slowest    = 1 << 10  // bytes a second that fill a carrier
	mostBehind = 64 << 20 // bytes that can be on their way: the largest window
)

// answer tells the other side what has been taken, if it has asked for that (spec 5.4), or if now is set. mu is held.
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

// consume notes that the application has taken n bytes more. mu is held.
func (f *Flow) consume(n int) {
	in := &f.in
	if in.finished {
		return // all of it counts as taken
	}
	in.taken += uint64(n)
	f.answer(in.taken-f.out.told >= uint64(f.cfg.Window/4)) // spec 5.5
}

// stop tells the other side that nothing more will be taken. mu is held.
func (f *Flow) stop() {
	if !f.out.stopped {
		f.out.stopped, f.out.stopDue = true, true
		f.sendLater()
	}
}

// endIn notes that the other side goes on over the next carrier. mu is held.
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

// take reads from c into p until it has found something and would have to wait for more, or the next byte has no place in p.
// from is the offset of the next byte for p.
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

// next takes the header at the front of the buffer.
func (r *reader) next(from uint64, got *batch) error {
	h := headerOf(r.buf[r.r:])
	if err := h.check(); err != nil {
		return err
	}
	r.r += headerSize
	if r.begun == (h.kind == kindStart) {
		return protocolErrorf("%v is out of place", h.kind)
	}
	got.any = true
	switch h.kind {
	case kindStart:
		if h.number > from+uint64(got.n) { // spec 4.5: no break of the protocol
			return errGap
		}
		r.begun, r.at = true, h.number
		return nil
	case kindEnd:
		if h.number != r.at { // spec 6.3; which may be before what has been received, of what the sender was about to send again
			return protocolErrorf("END at %d, not at %d", h.number, r.at)
		}
		got.end = true
		return nil
	case kindFin:
		got.fin = r.at == from+uint64(got.n)
		r.at++
	case kindStop:
		got.stop = true
	case kindAsk:
		if h.length == 0 { // is answered at once, and again when all before it has been taken
			got.probed, got.answerAt = true, r.at
		}
	}
	got.number = max(got.number, h.number)
	r.left, r.asking = h.length, h.kind == kindAsk
	return nil
}

// passed notes that n bytes of the segment in progress have been read.
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

// skip passes over up to n bytes of the segment in progress, which are here already.
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

// fill reads more behind what is in the buffer; it does not wait when a segment has been found.
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

// noProgress returns the error of a Read that brought nothing: a carrier that ends is lost.
func noProgress(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
