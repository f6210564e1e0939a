package faultnet

import (
	"sync"
	"sync/atomic"
	"time"
)

// LinkOptions are the properties of a Link.
type LinkOptions struct {
	// Buffer is how many bytes each direction takes without a reader, those on their way included. If zero, 64 KiB.
	Buffer int
	// Delay is the time from a Write until its bytes can be read. If zero, none.
	Delay time.Duration
	// Rate is how many bytes a second each direction takes along; what is written faster waits in the Buffer. If zero, any.
	Rate int
	// Road, if not nil, is what the link shares with others: their bytes queue one behind the other, at the Road's rate, and
	// Rate is not looked at.
	Road *Road
	// CutDelivers makes CutAfter hand what was written before the cut to the readers, who get the error after it. If
	// false, what was not read at the moment of the cut is lost. Freeze and Vanish hold it back or lose it as ever.
	CutDelivers bool

	swallow bool // writes never wait while the link has vanished
}

// linkBuffer is the Buffer of a LinkOptions that has none.
const linkBuffer = 64 << 10

// ratePiece is how many bytes arrive together on a link that has a Rate.
const ratePiece = 4 << 10

// A Link is the network between two Conns. It has no goroutine; it is garbage when both ends are.
//
// Its faults rank: a Cut beats all others and is for ever, Vanish beats Freeze and is for ever. Deadlines and an end's
// own Close work during all of them.
type Link struct {
	opts LinkOptions
	ends [2]Conn
	due  [2]atomic.Bool // a timer of the Road wakes it

	mu       sync.Mutex
	moved    sync.Cond     // any field below, or of a lane, changed; or a time came
	lanes    [2]lane       // lanes[i] is what ends[i] reads
	delay    time.Duration // of what is written from now on
	cut      bool
	frozen   bool
	vanished bool
	counting bool  // CutAfter was called
	left     int64 // bytes until the cut, if counting
}

// NewLink returns a link whose two ends are open.
func NewLink(opts LinkOptions) *Link {
	if opts.Buffer == 0 {
		opts.Buffer = linkBuffer
	}
	l := &Link{opts: opts, delay: opts.Delay}
	l.moved.L = &l.mu
	for i := range l.ends {
		l.ends[i] = Conn{link: l, in: &l.lanes[i], out: &l.lanes[1-i], local: addr("ab"[i : i+1]), remote: addr("ba"[i : i+1])}
	}
	return l
}

// Pipe returns the ends of a new link.
func Pipe(opts LinkOptions) (a, b *Conn) { return NewLink(opts).Ends() }

// Ends returns the two ends, always the same.
func (l *Link) Ends() (a, b *Conn) { return &l.ends[0], &l.ends[1] }

// Cut breaks the link: what was not read is lost, and every Read and Write, pending or future, fails with
// syscall.ECONNRESET, except on an end that is closed.
func (l *Link) Cut() {
	l.change(func() {
		l.cut = true
		l.drop()
	})
}

// CutAfter cuts the link at the moment when n more bytes have been written, both directions together. The Write that
// wanted more returns what it had written until then and syscall.ECONNRESET. With n <= 0 it cuts at once. A later call
// replaces an earlier one.
func (l *Link) CutAfter(n int64) {
	l.change(func() {
		l.counting, l.left = true, max(n, 0)
		l.countLocked(0)
	})
}

// Freeze holds everything written and not read, ends of stream too, until Thaw. Writes go on until the buffer is full.
func (l *Link) Freeze() { l.change(func() { l.frozen = true }) }

// Thaw ends Freeze.
func (l *Link) Thaw() { l.change(func() { l.frozen = false }) }

// Vanish loses everything written and not read, ends of stream too, and all that will be, without an error. Writes go on
// until the buffer is full and then wait for ever.
func (l *Link) Vanish() {
	l.change(func() {
		l.vanished = true
		if l.opts.swallow {
			l.drop()
		}
	})
}

// SetDelay sets the delay of what is written from now on. It never overtakes what was written before.
func (l *Link) SetDelay(d time.Duration) { l.change(func() { l.delay = d }) }

// change runs f with mu held and makes every waiter look again.
func (l *Link) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.moved.Broadcast()
}

// stalledLocked reports whether nothing arrives.
func (l *Link) stalledLocked() bool { return l.frozen || l.vanished }

// drop loses what is under way. The caller holds mu.
func (l *Link) drop() {
	for i := range l.lanes {
		l.lanes[i].clear()
	}
}

// grantLocked returns how many of want bytes may be written before CutAfter strikes.
func (l *Link) grantLocked(want int) int {
	if !l.counting {
		return want
	}
	return int(min(int64(want), l.left))
}

// countLocked notes that n bytes were written, and cuts if they were the last.
func (l *Link) countLocked(n int) {
	if !l.counting {
		return
	}
	if l.left -= int64(n); l.left > 0 {
		return
	}
	l.cut = true
	if !l.opts.CutDelivers {
		l.drop()
	}
}

// arrivalLocked returns when what is sent on ln now, n bytes, has all arrived, and sees to it that waiters look then.
func (l *Link) arrivalLocked(ln *lane, n int) time.Time {
	at := ln.last
	if l.opts.Road != nil || l.opts.Rate > 0 {
		if t := l.leavesLocked(ln, n).Add(l.delay); t.After(at) {
			at = t
		}
	} else if l.delay > 0 {
		if t := time.Now().Add(l.delay); t.After(at) {
			at = t
		}
	}
	if wait := time.Until(at); wait > 0 {
		time.AfterFunc(wait, l.wake)
	}
	ln.last = at
	return at
}

// leavesLocked returns when the last of n bytes that are sent on ln now has left.
func (l *Link) leavesLocked(ln *lane, n int) time.Time {
	if r := l.opts.Road; r != nil {
		return r.leaves(l.way(ln), n)
	}
	return leaves(&ln.busy, n, l.opts.Rate)
}

// way returns the direction of ln: 0 from the first end, 1 to it.
func (l *Link) way(ln *lane) int {
	if ln == &l.lanes[1] {
		return 0
	}
	return 1
}

// wake makes every waiter look again.
func (l *Link) wake() { l.change(func() {}) }
