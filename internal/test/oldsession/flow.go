package oldsession

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// The segments of resume/SPEC.md, 4.
const (
	segStart = 0x01
	segData  = 0x02
	segAsk   = 0x03
	segEnd   = 0x04
	segFin   = 0x05
	segStop  = 0x06

	segHeader = 12
)

// A flow is one side of a byte stream each way that outlives its carriers: a session's, or a resumable stream's, which has
// credit, FIN and STOP as well. Each carrier has a goroutine that reads and one that writes.
type flow struct {
	window   int    // most bytes kept that are not acknowledged, and, where there is credit, received and not read
	credit   uint64 // most bytes that the other side holds unread; 0: this is a session's, and all that comes is read
	patience time.Duration
	onLost   func(error)                 // the last carrier has failed
	drop     func(c *carrier, end error) // ends a carrier that is of no more use; end is why the flow has ended, or nil
	running  sync.WaitGroup
	over     chan struct{} // closed with the flow

	mu       sync.Mutex
	changed  sync.Cond // anything below
	err      error
	cur, old *line // the newest carrier, and the one before until both directions have left it
	lostAt   time.Time
	heard    int // things that have come, and carriers
	carriers int

	// The way out. A FIN is kept as a byte.
	kept          []byte // from base on
	base, sent    uint64 // all before base is acknowledged
	reached       uint64 // the most that sent has been
	taken         uint64 // the other side's number
	finished      bool   // the last byte that is kept is the FIN
	finAt         uint64
	writing       int // carriers that are being written to
	unasked       int // bytes sent since the last ASK
	ask, answer   bool
	deaf, stopDue bool // this side reads no more, and is to say so
	closing       bool // the flow ends once all is delivered

	// The way in.
	in             []byte // not read yet
	received, read uint64
	told           uint64
	answerAt       uint64
	ended, stopped bool // FIN, STOP have come
	dropped        bool // what has come is not read any more
}

// A line is a carrier of a flow.
type line struct {
	*carrier
	outBegun, outEnded, outFailed bool // START, END are sent; a Write has failed
	inBegun, inEnded              bool
	at                            uint64 // offset of the next byte that comes
}

var (
	errGap    = errors.New("oldsession: bytes are missing before START")
	errSilent = errors.New("oldsession: the other side is silent")
)

func newFlow(window int, credit uint64, patience time.Duration, drop func(*carrier, error)) *flow {
	f := &flow{window: window, credit: credit, patience: patience, drop: drop, onLost: func(error) {}, over: make(chan struct{}), lostAt: time.Now()}
	f.changed.L = &f.mu
	return f
}

// locked runs fn with mu held, and wakes all who wait.
func (f *flow) locked(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
	f.changed.Broadcast()
}

// waitFor waits until ok, for d at most. mu is held.
func (f *flow) waitFor(d time.Duration, ok func() bool) {
	end := time.Now().Add(d)
	timer := time.AfterFunc(d, func() { f.locked(func() {}) })
	defer timer.Stop()
	for !ok() && f.err == nil && time.Now().Before(end) {
		f.changed.Wait()
	}
}

func (f *flow) end() uint64 { return f.base + uint64(len(f.kept)) }

// number returns what this side acknowledges.
func (f *flow) number() uint64 {
	if f.credit > 0 && !f.ended {
		return f.read
	}
	return f.received
}

func (f *flow) holds(l *line) bool { return f.err == nil && (l == f.cur || l == f.old) }

// position returns what this side says of itself in a hello.
func (f *flow) position() (received uint64, live bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.received, f.cur != nil && f.old == nil && !f.cur.inEnded && !f.cur.outFailed
}

// settled is position, once a move before is done.
func (f *flow) settled(ctx context.Context) (received uint64, live bool) {
	end, _ := ctx.Deadline()
	f.mu.Lock()
	f.waitFor(time.Until(end), func() bool { return f.old == nil })
	f.mu.Unlock()
	return f.position()
}

// pause gives up the carrier: what has been received is final then.
func (f *flow) pause() (received uint64) {
	f.locked(f.detach)
	received, _ = f.position()
	return received
}

// detach gives up the carriers. mu is held.
func (f *flow) detach() {
	for _, l := range []*line{f.old, f.cur} {
		if l != nil {
			err := f.err
			f.running.Go(func() { f.drop(l.carrier, err) })
		}
	}
	if f.cur != nil {
		f.lostAt = time.Now()
	}
	f.old, f.cur = nil, nil
	if f.err == nil && f.ended && f.stopped { // the other side has closed
		f.close(net.ErrClosed)
	}
}

// attach gives the flow a carrier. received is what the other side says of itself, live whether the carrier before is.
func (f *flow) attach(c *carrier, received uint64, live bool) error {
	l := &line{carrier: c}
	var err error
	f.locked(func() {
		if f.err == nil && received > f.reached {
			f.close(breach("%d bytes received of %d", received, f.reached))
		}
		follows := live && f.cur != nil && f.old == nil
		if !follows {
			f.detach()
		}
		if err = f.err; err != nil {
			return
		}
		if follows {
			f.old = f.cur
		} else {
			f.restart(received)
		}
		f.cur, f.stopDue = l, f.deaf
		f.carriers++
		f.heard++
		f.running.Go(func() { f.send(l) })
		f.running.Go(func() {
			if err := f.receive(l); err != nil {
				f.failed(l, err)
			}
		})
	})
	if err != nil {
		f.drop(c, err)
	}
	return err
}

// restart begins again at what the other side has received. mu is held.
func (f *flow) restart(received uint64) {
	if f.credit == 0 { // else what is received is not yet read
		f.acknowledged(received)
	}
	f.sent, f.unasked = max(received, f.base), 0
	f.ask = f.credit > 0 && f.end() > f.taken
}

// failed takes note that l has.
func (f *flow) failed(l *line, err error) {
	lost := false
	f.locked(func() {
		var broken *Failure
		var word *ResetError
		switch {
		case !f.holds(l):
		case errors.As(err, &broken):
			f.close(err)
		case f.credit > 0 && errors.As(err, &word) && word.Code >= LastWord:
			f.close(&Failure{Code: word.Code - LastWord, Remote: true})
		case l == f.old: // the other one goes on; a number may have been lost
			f.old, f.ask = nil, true
			f.running.Go(func() { f.drop(l.carrier, nil) })
		case f.old != nil && !f.old.outEnded && !f.old.inEnded: // nothing has left the old one
			f.cur, f.old = f.old, nil
			f.running.Go(func() { f.drop(l.carrier, nil) })
		default:
			f.detach()
			lost = f.err == nil
		}
	})
	if lost {
		f.onLost(err)
	}
}

// settle closes the old carrier once both directions have left it. mu is held.
func (f *flow) settle() {
	if l := f.old; l != nil && l.outEnded && l.inEnded {
		f.old = nil
		f.running.Go(func() { _ = l.Close() })
	}
}

// close ends the flow. mu is held.
func (f *flow) close(err error) {
	if f.err == nil {
		f.err = err
		f.detach()
		close(f.over)
		f.changed.Broadcast()
	}
}

// keep looks for another carrier whenever there is none, if this side does, until the flow has ended or its patience has.
// reopen says whether its error is final.
func (f *flow) keep(reopen func(ctx context.Context) (final bool, err error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wait := 50 * time.Millisecond
	for f.err == nil {
		left := f.patience - time.Since(f.lostAt)
		switch {
		case f.cur != nil:
			wait = 50 * time.Millisecond
			f.changed.Wait()
		case left <= 0:
			f.close(ErrLost)
		case reopen == nil:
			f.waitFor(left, func() bool { return f.cur != nil })
		default:
			f.mu.Unlock()
			ctx, cancel := context.WithTimeout(context.Background(), min(left, reopenTimeout))
			final, err := reopen(ctx)
			cancel()
			f.mu.Lock()
			if final {
				f.close(fmt.Errorf("%w: %w", ErrLost, err))
			}
			f.waitFor(min(wait, f.patience-time.Since(f.lostAt)), func() bool { return f.cur != nil })
			wait = min(2*wait, 5*time.Second)
		}
	}
}

// Write keeps p, and waits while there is no room for it.
func (f *flow) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := 0; ; {
		switch {
		case f.finished:
			return n, net.ErrClosed
		case f.stopped:
			return n, syscall.EPIPE
		case f.err != nil:
			return n, f.err
		}
		room := f.window - len(f.kept)
		if f.credit > 0 {
			room = min(room, int(f.credit)-int(f.end()-f.taken))
		}
		k := min(max(room, 0), len(p)-n)
		f.kept = append(f.kept, p[n:n+k]...)
		n += k
		asks := n < len(p) && !f.ask && f.unasked > 0
		if f.ask = f.ask || asks; asks || k > 0 {
			f.changed.Broadcast()
		}
		if n == len(p) {
			return n, nil
		}
		f.changed.Wait()
	}
}

// finish ends this side's direction.
func (f *flow) finish() {
	f.locked(func() {
		if !f.finished {
			f.finished, f.finAt = true, f.end()
			f.kept = append(f.kept, 0)
		}
	})
}

// stop says that nothing more is read.
func (f *flow) stop() {
	f.locked(func() {
		if !f.deaf {
			f.deaf, f.stopDue = true, true
			f.consume(len(f.in))
		}
	})
}

// Read returns what has come.
func (f *flow) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.deaf:
			return 0, net.ErrClosed
		case f.dropped:
			return 0, f.err
		case len(f.in) > 0:
			n := copy(p, f.in)
			f.consume(n)
			return n, nil
		case f.ended:
			return 0, io.EOF
		case f.err != nil:
			return 0, f.err
		}
		f.changed.Wait()
	}
}

// consume takes n bytes out of what has come. mu is held.
func (f *flow) consume(n int) {
	f.in = f.in[n:]
	f.read += uint64(n)
	if f.credit > 0 && (f.answerAt > 0 && f.read >= f.answerAt || f.read-min(f.read, f.told) >= uint64(f.window)/4) {
		f.answer, f.answerAt = true, 0
	}
	f.changed.Broadcast()
}

// send writes to l what is due, until there will be no more.
func (f *flow) send(l *line) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.holds(l) && !l.outEnded {
		var b []byte
		if l == f.old || f.old == nil || f.old.outEnded { // END on the old one comes first
			b = f.next(l)
		}
		if b == nil {
			f.changed.Wait()
			continue
		}
		end := l == f.old
		f.writing++
		f.mu.Unlock()
		_, err := l.Write(b)
		f.mu.Lock()
		f.writing--
		f.changed.Broadcast()
		if err != nil {
			l.outFailed = true
			time.AfterFunc(100*time.Millisecond, func() { f.failed(l, lossOf(err)) }) // what the other side said before counts
			return
		}
		if end {
			l.outEnded = true
			f.settle()
		}
		f.closeIfDone()
	}
}

// next returns the segments that are due on l, or nil. mu is held.
func (f *flow) next(l *line) (b []byte) {
	add := func(kind byte, number uint64, p []byte) {
		b = append(b, kind, byte(len(p)>>16), byte(len(p)>>8), byte(len(p)))
		b = append(binary.BigEndian.AppendUint64(b, number), p...)
	}
	if !l.outBegun {
		l.outBegun = true
		add(segStart, f.sent, nil)
	}
	if l == f.old {
		add(segEnd, f.sent, nil)
		return b
	}
	if f.stopDue {
		f.stopDue = false
		add(segStop, f.number(), nil)
	}
	data, fin := f.kept[f.sent-f.base:], f.finished && f.sent == f.finAt
	if f.finished && len(data) > 0 {
		data = data[:len(data)-1]
	}
	data = data[:min(len(data), part)]
	kind, every := byte(segData), f.window/2
	if f.credit > 0 {
		every = min(f.window, int(f.credit)) / 4
	}
	if f.unasked += len(data); f.ask || len(data) > 0 && f.unasked >= every {
		kind = segAsk
	}
	switch {
	case fin:
		add(segFin, f.number(), nil)
		f.sent++
	case len(data) > 0 || f.answer || kind == segAsk:
		add(kind, f.number(), data)
		f.sent += uint64(len(data))
		if kind == segAsk {
			f.ask, f.unasked = false, 0
		}
	default:
		return b
	}
	f.answer, f.told = false, f.number()
	f.reached = max(f.reached, f.sent)
	return b
}

// acknowledged takes the other side's number. mu is held.
func (f *flow) acknowledged(number uint64) {
	f.taken = max(f.taken, number)
	if until := min(number, f.sent); until > f.base {
		f.kept = f.kept[until-f.base:]
		f.base = until
	}
	f.closeIfDone()
}

// closeIfDone closes a flow that is to be closed when all is delivered. mu is held.
func (f *flow) closeIfDone() {
	if f.closing && f.err == nil && (len(f.kept) == 0 || f.stopped && f.ended) && !f.stopDue && !f.answer && f.writing == 0 {
		f.close(net.ErrClosed)
	}
}

// awaitAcked waits until all is acknowledged, and asks for that.
func (f *flow) awaitAcked() {
	f.locked(func() { f.ask = f.ask || len(f.kept) > 0 })
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && len(f.kept) > 0 {
		f.changed.Wait()
	}
}

// awaitSent waits until all has been given to a carrier.
func (f *flow) awaitSent(ctx context.Context) {
	end, _ := ctx.Deadline()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waitFor(time.Until(end), func() bool { return f.cur == nil || f.sent == f.end() && f.writing == 0 })
}

func (f *flow) unacknowledged() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.kept) > 0
}

// sign returns a count of what has come, and whether there is a carrier.
func (f *flow) sign() (int, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard, f.cur != nil
}

// silent gives up the carrier.
func (f *flow) silent() {
	f.mu.Lock()
	l := f.cur
	f.mu.Unlock()
	if l != nil {
		f.failed(l, errSilent)
	}
}

// lossOf returns the error of a carrier that has failed. It is no *Failure, and no end in order.
func lossOf(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// receive takes what comes on l, until it has ended.
func (f *flow) receive(l *line) error {
	f.mu.Lock()
	for f.holds(l) && l == f.cur && f.old != nil && !f.old.inEnded { // its bytes come first
		f.changed.Wait()
	}
	f.mu.Unlock()
	r, buf := bufio.NewReader(l), make([]byte, part)
	for {
		var h [segHeader]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return lossOf(err)
		}
		kind, n, number := h[0], int(h[1])<<16|int(h[2])<<8|int(h[3]), binary.BigEndian.Uint64(h[4:])
		var err error
		f.locked(func() { err = f.takeSegment(l, kind, n, number) })
		for err == nil && n > 0 {
			k, readErr := r.Read(buf[:min(n, part)])
			n -= k
			f.locked(func() { err = f.takeBytes(l, buf[:k], kind == segAsk && n == 0) })
			if err == nil && readErr != nil {
				err = lossOf(readErr)
			}
		}
		if err != nil || kind == segEnd {
			return err
		}
	}
}

// takeSegment takes the header of a segment. mu is held.
func (f *flow) takeSegment(l *line, kind byte, n int, number uint64) error {
	f.heard++
	switch {
	case !f.holds(l):
		return net.ErrClosed
	case kind < segStart || kind > segStop, n > 0 && kind != segData && kind != segAsk, l.inBegun == (kind == segStart):
		return breach("segment %#x of %d bytes out of place", kind, n)
	case kind >= segFin && f.credit == 0:
		return breach("segment %#x in a session", kind)
	case kind == segStart && number > f.received:
		return errGap
	case kind == segStart:
		l.inBegun, l.at = true, number
		return nil
	case kind == segEnd && number != l.at:
		return breach("END at %d, and the bytes have come to %d", number, l.at)
	case kind == segEnd:
		l.inEnded = true
		if f.settle(); l == f.cur {
			time.AfterFunc(handoverTimeout, func() { f.failedIfNewest(l) })
		}
		return nil
	case number > f.reached:
		return breach("%d bytes acknowledged of %d", number, f.reached)
	case kind == segFin && f.ended && l.at >= f.received:
		return breach("a second FIN")
	}
	if kind == segFin {
		if l.at == f.received {
			f.ended = true
			f.received++
		}
		f.answer = true
		l.at++
	}
	if kind == segStop {
		f.stopped = true
	}
	if kind == segAsk && n == 0 {
		f.answer, f.answerAt = true, l.at
	}
	f.acknowledged(number)
	return nil
}

// failedIfNewest gives up a carrier that has ended in order and that none has followed.
func (f *flow) failedIfNewest(l *line) {
	f.mu.Lock()
	stranded := l == f.cur
	f.mu.Unlock()
	if stranded {
		f.failed(l, errors.New("oldsession: no carrier has followed"))
	}
}

// takeBytes takes bytes of a segment; asked says that they are the last of an ASK. mu is held.
func (f *flow) takeBytes(l *line, p []byte, asked bool) error {
	f.heard++
	if !f.holds(l) {
		return net.ErrClosed
	}
	fresh := p[min(uint64(len(p)), f.received-min(f.received, l.at)):]
	l.at += uint64(len(p))
	switch {
	case len(fresh) > 0 && f.ended:
		return breach("more after FIN")
	case f.credit > 0 && len(f.in)+len(fresh) > f.window:
		return breach("more than the %d bytes there is room for", f.window)
	}
	f.received += uint64(len(fresh))
	f.in = append(f.in, fresh...)
	if f.deaf {
		f.consume(len(f.in))
	}
	if asked {
		f.answer = f.answer || f.number() >= l.at
		f.answerAt = l.at
	}
	return nil
}
