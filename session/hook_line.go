package session

import (
	"sync"
	"sync/atomic"

	"github.com/peerlane/peerlane/internal/hook"
)

// hookWorkers run hooks, up to a number of them at a time. A worker is a goroutine that ends when no hook is left. The zero value is ready.
type hookWorkers struct {
	pending atomic.Int64 // calls that wait in all lines; turns do not count

	mu      sync.Mutex
	running int
	ready   queue[func()]
}

// run calls fn in the goroutine of a worker, at once if fewer than most are busy, and else in turn. fn may end the goroutine.
func (w *hookWorkers) run(fn func(), most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running >= most {
		w.ready.push(fn)
		return
	}
	w.running++
	go w.work(fn)
}

// work runs fn, and then the functions that are ready. If a function has ended the goroutine, another takes its place.
func (w *hookWorkers) work(fn func()) {
	defer func() {
		if fn == nil {
			return
		}
		if next := w.next(); next != nil {
			go w.work(next)
		}
	}()
	for fn != nil {
		fn()
		fn = w.next()
	}
}

// next returns what to run next, or nil when the worker has to end.
func (w *hookWorkers) next() func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ready.len() > 0 {
		return w.ready.pop()
	}
	w.running--
	return nil
}

// Bounds on the calls of hooks that wait.
const (
	maxPendingHooks = 1024    // in one line
	maxPendingInAll = 1 << 16 // in all lines of the workers, but for
	fewPendingHooks = 16      // in each line, so that those who fill other lines do not cost it its own
)

// A hookLine calls the hooks of one session on the workers that it shares with other sessions: one after the other, or several at a time. It
// begins held: it calls nothing before release. Its last calls come when all others have returned.
type hookLine struct {
	workers *hookWorkers
	most    int // workers in all
	atOnce  int // how many calls run at a time; 1: in order

	mu      sync.Mutex
	pending queue[hookCall]
	last    []hookCall // of the end
	active  int
	held    bool
	open    bool // turns are no longer waited for
	over    bool // takes no more calls
	dropped uint64
}

// hookCall is the call of a hook, or the turn of a goroutine that waits to call one itself.
type hookCall struct {
	fn   func()
	done func(*hook.Failure) // called when fn has returned, or not; it may be nil
	turn chan struct{}       // closed when it is the turn of the waiting goroutine; nil if there is none
}

// add calls c in its turn, and reports whether it will. Calls for which there is no room, and after the end, are dropped.
func (l *hookLine) add(c hookCall) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.over:
		return false
	case l.pending.len() >= maxPendingHooks, l.pending.len() >= fewPendingHooks && l.workers.pending.Load() >= maxPendingInAll:
		l.dropped++
		return false
	}
	l.workers.pending.Add(1)
	l.pending.push(c)
	l.advanceLocked()
	return true
}

// enter waits for the turn of the calling goroutine, which calls leave afterwards. It returns false if there is none any more.
func (l *hookLine) enter() bool {
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		return false
	}
	if l.open && !l.held {
		l.active++
		l.mu.Unlock()
		return true
	}
	c := hookCall{turn: make(chan struct{})}
	l.pending.push(c)
	l.advanceLocked()
	l.mu.Unlock()
	<-c.turn
	return true
}

// leave ends a call, or a turn.
func (l *hookLine) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	l.advanceLocked()
}

// advanceLocked begins the calls whose turn it is.
func (l *hookLine) advanceLocked() {
	for !l.held && l.active < l.atOnce && l.pending.len() > 0 {
		c := l.pending.pop()
		if c.turn == nil {
			l.workers.pending.Add(-1)
		}
		l.beginLocked(c)
	}
	if !l.held && l.active == 0 && len(l.last) > 0 {
		next := l.last[0]
		l.last = l.last[1:]
		l.beginLocked(next)
	}
}

// beginLocked begins one call.
func (l *hookLine) beginLocked(c hookCall) {
	l.active++
	if c.turn != nil {
		close(c.turn)
		return
	}
	l.workers.run(func() {
		hook.Run(c.fn, func(why *hook.Failure) {
			defer l.leave()
			if c.done != nil {
				c.done(why)
			}
		})
	}, l.most)
}

// release begins the calls of a line that was held.
func (l *hookLine) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	l.advanceLocked()
}

// letPass gives all turns at once from now on: a hook waits for those that wait for it.
func (l *hookLine) letPass() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = true
	if l.held {
		return
	}
	for range l.pending.len() {
		if c := l.pending.pop(); c.turn != nil {
			l.beginLocked(c)
		} else {
			l.pending.push(c)
		}
	}
}

// end makes the line call last, one after the other, when all calls before have returned, and take no more calls. It returns false if the line
// has been shut.
func (l *hookLine) end(last []hookCall) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.over, l.last = true, last
	l.advanceLocked()
	return true
}

// shut drops all calls of a held line, and takes no more. It reports whether calls of the end were among them.
func (l *hookLine) shut() (ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ended = len(l.last) > 0
	l.over, l.last = true, nil
	l.workers.pending.Add(-int64(l.pending.len()))
	for l.pending.len() > 0 {
		l.pending.pop() // none of them is a turn: nothing is delivered before release
	}
	return ended
}

// missed returns how many calls have been dropped.
func (l *hookLine) missed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}
