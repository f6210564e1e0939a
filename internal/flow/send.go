package flow

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/peerlane/peerlane/internal/deadline"
)

// The sending side of a flow:
//
//	Write ── keeps a segment ──> replay ──┐
//	reader: an answer is due ─────────────┴─> send ── one Write at a time ──> carrier
//
// send runs in the goroutine of a Write unless another goroutine is sending, so that a Write costs no goroutine switch. When a Write's
// deadline cuts it short, a goroutine of the flow sends the rest.

// outbound is the sending state of a flow. Flow.mu guards it.
type outbound struct {
	replay
	baton  baton  // who sends
	job    job    // of the goroutine that holds the baton
	sender func() // sendRest

	taken    uint64            // what the other side's application has taken, as reported
	credit   int               // how much it may leave untaken; 0: unbounded
	unasked  int               // bytes of segments sent since the other side was last asked for its number
	askDue   bool              // the other side must be asked, even if nothing is unsent
	answer   bool              // the other side has asked, or must be notified
	stopped  bool              // this side takes no more bytes
	stopDue  bool              // STOP has not been sent on this carrier
	finished bool              // FIN is kept: no more writes
	turn     bool              // a WriteInTurnLocked has its turn
	closing  bool              // close the flow once everything is delivered
	due      deadline.Deadline // of Write
	told     uint64            // the last number sent
	resent   uint64            // bytes sent again

	waiters   int           // calls that wait for an acknowledgement
	progress  time.Duration // Flow.elapsed when the first of them began to wait, or at the last progress
	behind    uint64        // bytes received since, which the acknowledgement may be queued behind
	arrivedAt time.Duration // when the last of these bytes arrived

	pace pace // see pace.go
}

// A baton says which goroutine sends. Only the one that holds it takes jobs and writes to carriers.
//
//	free ──send of a Write──> held ──nothing is due──> free
//	  └─────pass────> passed ──sendRest──> held
//	                    ^──── the Write returns ────┘
type baton uint8

const (
	batonFree   baton = iota // nothing is due, or there is no carrier
	batonHeld                // a goroutine is in send
	batonPassed              // the flow's own goroutine has been started, and is not yet in send
)

// take takes the baton and reports true if it is there for the caller: passed on to the flow's own goroutine, free for any other.
func (b *baton) take(own bool) bool {
	want := batonFree
	if own {
		want = batonPassed
	}
	if *b != want {
		return false
	}
	*b = batonHeld
	return true
}

// An ackWait is a call that may have to wait for an acknowledgement.
type ackWait bool

// begin records that the call waits, if it does not already. mu is held.
func (w *ackWait) begin(f *Flow) {
	if bool(*w) || f.cfg.Lazy != nil { // the other side acknowledges only the bytes that its application has taken, which may take long
		return
	}
	*w = true
	if f.out.waiters++; f.out.waiters == 1 {
		f.out.progress, f.out.behind = f.elapsed(), 0
	}
}

// end records that the call no longer waits. mu is held.
func (w *ackWait) end(f *Flow) {
	if *w {
		f.out.waiters--
	}
}

// job is the data being written to a carrier.
type job struct {
	c       *carrier // nil: nothing is being written
	left    []byte
	from    *chunk               // the chunk that left is part of; nil if that is scratch
	ends    bool                 // left contains END
	woken   bool                 // the carrier's write deadline has been moved to wake the sender
	scratch [2 * headerSize]byte // for segments without bytes
}

// granted returns how many of n bytes the other side has room for.
func (o *outbound) granted(n int) int {
	if o.credit == 0 {
		return n
	}
	return min(n, max(0, o.credit-int(o.end-o.taken)))
}

// askEvery returns the number of segment bytes after which to ask the other side for its number, early enough that Write need not wait for
// the answer.
func (o *outbound) askEvery() int {
	every := o.limit / 2
	if o.credit > 0 {
		every = min(o.limit, o.credit) / 4
	}
	if o.pace.slow() {
		every = min(every, o.pace.piece())
	}
	return every
}

// restart makes everything unsent that the other side has not received (spec 5.2).
func (o *outbound) restart(received uint64) {
	from := max(received, o.acked)
	o.resent += max(o.sent, from) - from
	o.rewind(from)
	o.unasked, o.stopDue = 0, o.stopped
	o.askDue = o.credit > 0 && o.end > o.taken // the last number may have been lost, and received does not imply credit
}

// Write keeps p until the other side has acknowledged it, and sends it when there is a carrier. It waits while the window is full, and, if
// this call does the sending, for the carrier to take p. The error is the reason of Close, os.ErrDeadlineExceeded past the write deadline,
// net.ErrClosed after CloseWrite, or one that matches EPIPE when the other side accepts no more.
func (f *Flow) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write(p, nil)
}

// write is Write of bytes that are in the chunk from, if that is not nil. The budget counts it once the call waits, if it has room. mu is
// held, and released while the call waits.
func (f *Flow) write(p []byte, from *chunk) (int, error) {
	written := 0
	var w ackWait
	defer w.end(f)
	for {
		if err := f.writeError(); err != nil {
			return written, err
		}
		n := f.out.write(p[written : written+f.out.granted(len(p)-written)])
		written += n
		if n > 0 {
			f.send(f.out.end)
		}
		if written == len(p) {
			return written, nil
		}
		if n == 0 {
			if from != nil {
				from.claim(f.cfg.Budget)
			}
			f.awaitRoom(&w)
		}
	}
}

// awaitRoom waits until something has changed, and makes the other side report what it has taken.
func (f *Flow) awaitRoom(w *ackWait) {
	w.begin(f)
	if f.out.unasked > 0 {
		f.out.askDue = true
		f.sendLater()
	}
	f.changed.Wait()
}

func (f *Flow) writeError() error {
	switch {
	case f.err != nil:
		return f.err
	case f.out.finished:
		return net.ErrClosed
	case f.in.stopped:
		return syscall.EPIPE
	case f.out.due.Expired():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// SetWriteDeadline sets when Write gives up; the zero time means never.
func (f *Flow) SetWriteDeadline(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.out.due.Set(&f.mu, t, f.ExpireLocked)
	return nil
}

// ExpireLocked makes every Write fail as if its deadline had passed, including one that blocks in the carrier.
func (f *Flow) ExpireLocked() {
	o := &f.out
	o.due.Pass()
	f.changed.Broadcast()
	if o.job.c != nil && !o.job.woken {
		o.job.woken = true
		_ = o.job.c.conn.SetWriteDeadline(deadline.Past) // a closed carrier needs no waking
	}
}

// CloseWrite ends this side's direction: the other side reads io.EOF after the written data. A second call does nothing. The error is the
// reason of Close.
func (f *Flow) CloseWrite() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.FinishLocked()
	return nil
}

// FinishLocked is CloseWrite, except that it does nothing if the flow is closed.
func (f *Flow) FinishLocked() {
	if f.err != nil || f.out.finished {
		return
	}
	f.out.finished = true
	f.out.finish()
	f.changed.Broadcast()
	f.sendLater()
}

// forEver is the end for a sender that has no Write to return from.
const forEver = ^uint64(0)

// send writes due data to the carrier until nothing is due. When it runs in a Write, it leaves the rest to a goroutine once everything
// before end has been sent or the Write's deadline has passed. It does nothing while another goroutine sends. mu is held, and released
// during each Write.
func (f *Flow) send(end uint64) {
	o := &f.out
	if !o.baton.take(end == forEver) {
		return
	}
	for o.job.c != nil || f.due() {
		f.sendSome()
		more := o.job.c != nil || o.unsent != nil
		if more && f.err == nil && end != forEver && (o.sent >= end || o.due.Expired()) {
			f.passBaton()
			return
		}
	}
	o.baton = batonFree
	if f.err != nil {
		o.drop()
	}
}

// maxWrite is the size limit of a Write of a carrier: a slow carrier must take this much within a WriteTimeout.
const maxWrite = 68 << 10

// roomWait is the least duration of a Write of a carrier that had to wait for room, which means that earlier bytes have left.
const roomWait = 100 * time.Millisecond

// sendSome writes as much of the job as one Write takes. mu is held, and released during the Write.
func (f *Flow) sendSome() {
	j := &f.out.job
	c := j.c
	want := min(len(j.left), maxWrite, f.out.pace.piece())
	f.mu.Unlock()
	began := f.elapsed()
	f.writeBegan.Store(max(1, int64(began)))
	n, err := c.conn.Write(j.left[:want])
	f.writeBegan.Store(0)
	if n > 0 && f.elapsed()-began >= roomWait {
		f.hear()
	}
	f.mu.Lock()
	woken := j.woken
	if woken {
		j.woken = false
		_ = c.conn.SetWriteDeadline(time.Time{}) // a closed carrier fails in its next Write
	}
	j.left = j.left[n:]
	switch {
	case err == nil && n < want:
		err = io.ErrShortWrite
	case err == nil && len(j.left) > 0:
		return // the rest follows
	case woken && errors.Is(err, os.ErrDeadlineExceeded) && len(j.left) > 0:
		return // the rest follows; a carrier that cannot continue after a deadline, such as TLS, fails then
	}
	if j.from != nil {
		f.out.done(j.from)
		f.out.progress, f.out.behind = f.elapsed(), 0
	}
	if j.ends && err == nil {
		c.out = legEnded
	}
	j.c, j.left, j.from, j.ends = nil, nil, nil, false
	if f.users--; f.users == 0 || f.out.unsent == nil {
		f.changed.Broadcast()
	}
	if err != nil {
		c.outFailed = true
		time.AfterFunc(lastWords, func() { f.failed(c, err) })
	}
	f.settle()
	f.closeIfDone()
}

// sendLater sends in its own goroutine, unless a goroutine is already sending. mu is held.
func (f *Flow) sendLater() {
	if f.out.baton == batonFree && f.cur != nil {
		f.passBaton()
	}
}

// passBaton continues sending in a goroutine, which ends when nothing is due. mu is held.
func (f *Flow) passBaton() {
	f.out.baton = batonPassed
	f.background++
	go f.out.sender() // created once, so that an acknowledgement allocates nothing
}

// sendRest is the goroutine of passBaton.
func (f *Flow) sendRest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.leaveBackground()
	f.send(forEver)
}

// due makes the next data to write the job, and reports whether there is any. mu is held.
func (f *Flow) due() bool {
	c, o := f.cur, &f.out
	if f.err != nil || c == nil {
		return false
	}
	if f.old != nil && f.old.out < legEnding {
		c = f.old
	}
	if c.outFailed {
		return false
	}
	j := &o.job
	b := j.scratch[:0]
	if c.out == legAhead {
		c.out = legOn
		b = header{kind: kindStart, number: o.sent}.append(b)
	}
	if c == f.old {
		c.out, j.ends = legEnding, true
		b = header{kind: kindEnd, number: o.sent}.append(b)
	} else if o.stopDue {
		o.stopDue = false
		o.told, f.in.unsaid = f.in.taken, false
		b = header{kind: kindStop, number: f.in.taken}.append(b)
	}
	if len(b) == 0 {
		b, j.from = f.dueData(b)
	}
	if len(b) == 0 {
		return false
	}
	j.c, j.left = c, b
	f.users++
	return true
}

// dueData returns the next segments with bytes and their chunk, or one segment without bytes, appended to b. mu is held.
func (f *Flow) dueData(b []byte) ([]byte, *chunk) {
	o := &f.out
	k := kindData
	if n := o.nextSize(o.pace.piece()); o.askDue || o.unasked+n >= o.askEvery() {
		k = kindAsk
		o.askDue, o.unasked = false, 0
	} else {
		o.unasked += n
	}
	switch {
	case o.unsent != nil:
		o.answer, o.told, f.in.unsaid = false, f.in.taken, false
		before := o.sent
		b, c := o.next(k, f.in.taken, o.pace.piece())
		o.pace.leave(f.elapsed(), o.acked, o.sent-before)
		return b, c
	case o.answer || k == kindAsk:
		o.answer, o.told, f.in.unsaid = false, f.in.taken, false
		return header{kind: k, number: f.in.taken}.append(b), nil
	}
	return b, nil
}

// closeIfDone closes a closing flow once everything is delivered. mu is held.
func (f *Flow) closeIfDone() {
	o := &f.out
	if !o.closing || f.err != nil {
		return
	}
	delivered := o.held == 0 || f.in.stopped && f.in.finished
	quiet := o.job.c == nil && o.unsent == nil && !o.stopDue && !o.answer
	if delivered && quiet {
		f.CloseLocked(net.ErrClosed)
	}
}
