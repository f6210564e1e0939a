// Package flow is a byte stream over successive carriers, for a layer that does the hello and finds the carriers: package session, and
// package resume, whose SPEC.md is the format of what a flow writes to a carrier.
package flow

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/internal/defaults"
	"github.com/peerlane/peerlane/internal/hook"
)

// A Flow is one side of a bidirectional byte stream that outlives its carriers. It does no hello and opens no carrier. Its owner finds a
// carrier, agrees with the other side on how much each has received, and attaches the carrier.
//
//	            ┌───────────── Attach ─────────────┐
//	detached ───┴─> attached ── carrier fails ─────┴─> detached ── ResumeWindow over, Close ──> closed
//	                   │  ▲
//	            Attach live: each direction ends on the old carrier in order and continues on the new one
//
// Write may be called by several goroutines, Read by one. That goroutine must always be reading, because acknowledgements arrive with the
// other side's data. Everything else is safe for concurrent use. Methods whose name ends in Locked are called between Lock and Unlock; see
// lazy.go.
type Flow struct {
	cfg  Config
	born time.Time

	mu          sync.Mutex
	changed     sync.Cond // signals changes of the fields below to waiters
	err         error     // why the flow is closed; nil while it is not
	undelivered int       // unacknowledged bytes at the time it was closed

	cur       *carrier    // the newest carrier; nil while detached
	old       *carrier    // the previous one, until both directions have left it
	users     int         // goroutines in Read or Write of a carrier, including dropped ones
	lossTimer *time.Timer // runs while detached
	handover  *time.Timer // runs while a carrier has ended in order and no other has followed

	out outbound // see send.go
	in  inbound  // see receive.go

	sign *time.Timer // until the unasked sign of received bytes is due; nil before the first one. See pace.go

	background int           // goroutines that send, or close a carrier; guarded by mu
	heard      atomic.Uint64 // Reads of carriers that brought bytes
	heardAt    atomic.Int64  // when a carrier last gave a sign of life, in nanoseconds after born
	writeBegan atomic.Int64  // when the Write in progress began, in nanoseconds after born; 0: none
}

// Config is the configuration of a Flow.
type Config struct {
	// Window bounds the unacknowledged bytes that the flow keeps, with 12 more for each Write. Write waits when the window is full. If
	// zero, 1 MiB. At least MinWindow.
	Window int
	// ResumeWindow is how long the flow stays detached before it is closed with ErrLost. If zero, 60 s. If negative, it is
	// closed at once.
	ResumeWindow time.Duration
	// Unasked is the time after which the other side is notified of received bytes although it has not asked. It may be watching for
	// silence while its own bytes fill the carrier. If zero, only a side that asks is notified.
	Unasked time.Duration
	// OnLost, if not nil, is called with the reason when the last carrier has failed. It must not block.
	OnLost func(error)
	// OnSettled, if not nil, is called once the flow uses only conn, in both directions. It must not block.
	OnSettled func(conn net.Conn)
	// Drop, if not nil, ends a carrier that has failed or that the other side has given up, instead of its Close.
	Drop func(net.Conn)
	// Budget, if not nil, bounds the memory of the window together with that of other flows. When it has no room, the window is as small as
	// 4 KiB, and Write waits for acknowledgements.
	Budget Budget
	// Lazy, if not nil, makes the flow a lazy one.
	Lazy *Lazy
}

// MinWindow is the least Config.Window.
const MinWindow = 1 << 10

// handoverTimeout is how long a flow waits for the successor of a carrier that has ended in order (spec 6.5).
const handoverTimeout = 5 * time.Second

// lastWords is how long a carrier is still read after a Write to it has failed. Data that the other side sent before it ended the carrier
// has arrived, and counts.
const lastWords = 100 * time.Millisecond

// carrier is a connection that a flow runs on for a while. Flow.mu guards all fields but conn and read.
type carrier struct {
	conn      net.Conn
	out       leg
	outFailed bool // a Write has failed
	inDone    bool // END has been received
	mover     mover
	read      reader
}

// A leg is how far the sending direction is with a carrier. It only grows.
type leg uint8

const (
	legAhead  leg = iota // START has not been sent
	legOn                // START is sent, or being sent
	legEnding            // END is being sent: the direction continues on the next carrier
	legEnded             // END has been sent completely
)

// A mover is a carrier that shares a connection with others, and knows when any of them last gave a sign of life.
type mover interface{ Moved() time.Time }

// New returns a detached flow. Its ResumeWindow begins now. A nil config has the defaults.
func New(config *Config) *Flow {
	var cfg Config
	if config != nil {
		cfg = *config
	}
	if cfg.Window == 0 {
		cfg.Window = defaults.ReplayWindow
	}
	if cfg.ResumeWindow == 0 {
		cfg.ResumeWindow = defaults.ResumeWindow
	}
	f := &Flow{cfg: cfg, born: time.Now()}
	f.out.replay.limit, f.out.replay.budget = max(cfg.Window, MinWindow), cfg.Budget
	f.out.pace.reset()
	wait := cfg.ResumeWindow
	if cfg.Lazy != nil {
		f.out.credit, wait = cfg.Lazy.Credit, cfg.Lazy.FirstCarrier
	}
	f.changed.L = &f.mu
	f.out.sender = f.sendRest
	f.mu.Lock()
	defer f.mu.Unlock()
	f.startLossTimer(wait)
	return f
}

// Received returns the offset of the other side's next byte, and whether the carrier is alive, so that another may follow it in order. A
// hello sends both.
func (f *Flow) Received() (offset uint64, live bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.in.received, f.cur != nil && f.old == nil && !f.cur.inDone && !f.cur.outFailed
}

// carrier returns the newest carrier, or nil.
func (f *Flow) carrier() *carrier {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cur
}

// Carrier returns the newest carrier, as passed to Attach, or nil while there is none.
func (f *Flow) Carrier() net.Conn {
	if c := f.carrier(); c != nil {
		return c.conn
	}
	return nil
}

// Attached reports whether there is a carrier.
func (f *Flow) Attached() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cur != nil
}

// Attach gives the flow a carrier whose hello is complete. received is the offset that the other side sent in the hello. live is whether
// both sides have declared the previous carrier alive. If so, each direction continues on the new carrier after its last byte on the old
// one, and nothing waits. Otherwise Attach drops the carriers the flow had, and each direction restarts from the offset received.
//
// The flow owns conn from then on, even if Attach fails. The error is ErrProtocol if received is impossible, ErrDetached if another carrier
// was faster, or the reason of Close.
func (f *Flow) Attach(conn net.Conn, received uint64, live bool) error {
	f.mu.Lock()
	c := &carrier{conn: conn}
	c.mover, _ = conn.(mover)
	if err := f.attach(c, received, live); err != nil {
		f.mu.Unlock()
		f.end(c)
		return err
	}
	f.tell(Attached, nil)
	f.lossTimer.Stop()
	if f.handover != nil {
		f.handover.Stop()
	}
	f.changed.Broadcast()
	f.sendLater()
	settled := f.old == nil
	f.mu.Unlock()
	if settled && f.cfg.OnSettled != nil {
		f.cfg.OnSettled(conn)
	}
	return nil
}

func (f *Flow) attach(c *carrier, received uint64, live bool) error {
	switch {
	case f.err != nil:
		return f.err
	case received > f.out.reached:
		return ProtocolErrorf("the other side has received %d bytes of %d", received, f.out.reached)
	case live && f.cur != nil && f.old == nil: // spec 6.1
		f.old, f.cur = f.cur, c
		f.out.stopDue = f.out.stopped // a STOP lost with the old carrier would leave no gap to detect
		f.out.pace.reset()
		return nil
	}
	if err := f.detachAndWait(); err != nil {
		return err
	}
	f.cur = c
	f.out.pace.reset()
	f.out.restart(received)
	f.out.progress = f.elapsed()
	return nil
}

// Pause drops the carrier, if there is one, and returns once nothing uses it. The result of Received then does not change until the next
// Attach. The error is ErrDetached if another carrier has been attached meanwhile, or the reason of Close.
func (f *Flow) Pause() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.detachAndWait()
}

func (f *Flow) detachAndWait() error {
	f.detach(ErrDetached)
	for f.users > 0 && f.err == nil && f.cur == nil { // the users of another carrier may stay for ever
		f.changed.Wait()
	}
	if f.err == nil && f.cur != nil {
		return ErrDetached
	}
	return f.err
}

// detach drops the carriers with the reason err, and reports whether there were any.
func (f *Flow) detach(err error) bool {
	if f.cur == nil {
		return false
	}
	if f.old != nil {
		f.drop(f.old)
	}
	f.drop(f.cur)
	f.old, f.cur = nil, nil
	f.startLossTimer(f.cfg.ResumeWindow)
	f.changed.Broadcast()
	switch {
	case f.err != nil:
	case f.cfg.Lazy != nil && f.in.finished && f.in.stopped: // the other side has closed: no peer to reconnect to
		f.CloseLocked(ErrOver)
	default:
		f.tell(Detached, err)
	}
	return true
}

// drop ends a carrier that is no longer used. It does so in a goroutine, because a Close may wait for the network.
func (f *Flow) drop(c *carrier) {
	f.inBackground(func() { f.end(c) })
}

// end closes a carrier that is no longer used. mu is not held.
func (f *Flow) end(c *carrier) {
	if f.cfg.Drop == nil || hook.Do(func() { f.cfg.Drop(c.conn) }) != nil {
		_ = c.conn.Close() // the flow continues without it
	}
}

// startLossTimer starts the timer that bounds how long the flow may be detached.
func (f *Flow) startLossTimer(wait time.Duration) {
	if f.err != nil {
		return
	}
	if f.lossTimer != nil {
		f.lossTimer.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(max(wait, 0), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.lossTimer == timer && f.cur == nil {
			f.CloseLocked(ErrLost)
		}
	})
	f.lossTimer = timer
}

// Detach drops the carrier, if there is one, as if it had failed with err, or ErrDetached if err is nil.
func (f *Flow) Detach(err error) {
	if err == nil {
		err = ErrDetached
	}
	f.mu.Lock()
	had := f.err == nil && f.detach(err)
	f.mu.Unlock()
	if had && f.cfg.OnLost != nil {
		f.cfg.OnLost(err)
	}
}

// failed handles an error of c. mu is not held.
func (f *Flow) failed(c *carrier, err error) {
	f.mu.Lock()
	lost := false
	var settled net.Conn
	switch {
	case f.err != nil:
	case c == f.old: // both directions continue on the new one; if bytes are missing, the other side detects the gap
		f.old = nil
		f.drop(c)
		f.out.askDue = true // a number without bytes leaves no gap, and may have been lost
		f.sendLater()
		settled = f.cur.conn
	case c == f.cur && f.old != nil && f.old.out < legEnding && !f.old.inDone: // both directions are still on the old one
		f.cur, f.old = f.old, nil
		f.drop(c)
	case c == f.cur:
		f.detach(err)
		lost = true
	}
	f.changed.Broadcast()
	f.mu.Unlock()
	if lost && f.cfg.OnLost != nil {
		f.cfg.OnLost(err)
	}
	if settled != nil && f.cfg.OnSettled != nil {
		f.cfg.OnSettled(settled)
	}
}

// left retires the old carrier once both directions have left it (spec 6.4), and reports whether they have.
func (f *Flow) left() bool {
	c := f.old
	if c == nil || c.out < legEnded || !c.inDone {
		return false
	}
	f.old = nil
	f.changed.Broadcast()
	f.inBackground(func() {
		_ = c.conn.Close() // all data on it has arrived
	})
	return true
}

// settle notifies the owner that the flow runs only on its newest carrier. mu is held, and released during the call.
func (f *Flow) settle() {
	if !f.left() || f.cfg.OnSettled == nil {
		return
	}
	conn := f.cur.conn
	f.mu.Unlock()
	f.cfg.OnSettled(conn)
	f.mu.Lock()
}

// awaitNext bounds the time until a carrier follows cur. The other side has sent END on cur.
func (f *Flow) awaitNext() {
	c := f.cur
	f.handover = time.AfterFunc(handoverTimeout, func() {
		f.mu.Lock()
		stranded := f.cur == c
		f.mu.Unlock()
		if stranded {
			f.failed(c, errNoNext)
		}
	})
}

// Close closes the flow with the reason err, or net.ErrClosed if err is nil. Calls return it from then on, and the carrier is dropped. A
// second Close does nothing.
func (f *Flow) Close(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.CloseLocked(err)
}

// CloseLocked is Close.
func (f *Flow) CloseLocked(err error) {
	if f.err != nil {
		return
	}
	if err == nil {
		err = net.ErrClosed
	}
	f.err = err
	if f.undelivered = int(f.out.end - f.out.acked); f.undelivered == 1 && f.out.finished && f.in.finished {
		f.undelivered = 0 // only the end is missing, and the other side has ended too
	}
	f.detach(err)
	f.lossTimer.Stop()
	if f.handover != nil {
		f.handover.Stop()
	}
	f.out.due.Stop()
	if f.sign != nil {
		f.sign.Stop()
	}
	if f.out.baton == batonFree {
		f.out.drop()
	}
	f.changed.Broadcast()
	f.tell(Closed, err)
}

// inBackground calls fn in a goroutine that Wait waits for. mu is held.
func (f *Flow) inBackground(fn func()) {
	f.background++
	go func() {
		fn()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.leaveBackground()
	}()
}

// leaveBackground ends a goroutine counted in background. mu is held.
func (f *Flow) leaveBackground() {
	if f.background--; f.background == 0 && f.err != nil {
		f.changed.Broadcast()
	}
}

// Wait waits until no goroutine of a closed flow runs.
func (f *Flow) Wait() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.background > 0 {
		f.changed.Wait()
	}
}

// Err returns why the flow is closed, or nil.
func (f *Flow) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Heard returns how many Reads of carriers have returned bytes.
func (f *Flow) Heard() uint64 { return f.heard.Load() }

// LastHeard returns when the carrier last gave a sign of life: a Read that returned bytes, a Write that had to wait for room and got it,
// or, for a carrier with a method Moved() time.Time, what that reports of the connection under it. Use it to detect silence.
func (f *Flow) LastHeard() time.Time {
	at := f.born.Add(time.Duration(f.heardAt.Load()))
	if c := f.carrier(); c != nil && c.mover != nil {
		if moved := c.mover.Moved(); moved.After(at) {
			return moved
		}
	}
	return at
}

// hear records a sign of life of the carrier.
func (f *Flow) hear() { f.heardAt.Store(int64(f.elapsed())) }

// Stuck returns how long the writing direction has made no progress while something waits for it, or 0. That is how long the carrier has
// been taking the current Write or, if longer, how long the other side has acknowledged nothing while a Write waits for room in the window
// or AwaitAcked waits. Time without a carrier does not count, and a new carrier starts from zero. Data from the other side extends the
// time, because the acknowledgement waits behind it.
func (f *Flow) Stuck() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.elapsed()
	stuck := time.Duration(0)
	if began := f.writeBegan.Load(); began != 0 {
		stuck = now - time.Duration(began)
	}
	if f.out.waiters > 0 && f.cur != nil {
		stuck = max(stuck, now-f.out.progress)
	}
	return stuck
}

// elapsed returns the age of the flow. That is cheaper to get than the current time.
func (f *Flow) elapsed() time.Duration { return time.Since(f.born) }

// Acked returns the offset up to which the other side has acknowledged the written bytes.
func (f *Flow) Acked() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.acked
}

// Reached returns the offset up to which written bytes have been handed to a carrier. Bytes beyond it have certainly not been received.
func (f *Flow) Reached() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.reached
}

// Kept returns how many bytes of segments are unacknowledged, and how many bytes have been sent again.
func (f *Flow) Kept() (unacked int, resent uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.held, f.out.resent
}
