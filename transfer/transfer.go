package transfer

import (
	"context"
	"encoding/hex"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/peerlane/peerlane/session"
)

// direction is the direction of a transfer's files, as seen from this side.
type direction bool

const (
	sends    direction = false
	receives direction = true
)

// An Event is a noteworthy event of a transfer.
type Event struct {
	Kind EventKind
	Peer string
	Path string // the file's, untrusted
	Err  error  // the reason, if there is one
}

// EventKind is the kind of an Event.
type EventKind string

// The kinds of events.
const (
	EventFileFailed    EventKind = "file failed"    // a file failed; the others continue
	EventStalled       EventKind = "stalled"        // nothing has arrived for StallAfter: the lanes are replaced
	EventLost          EventKind = "lost"           // the connection to a peer was lost, or the peer is busy: the transfer tries again
	EventPaused        EventKind = "paused"         // the receiver's disk is full
	EventResumed       EventKind = "resumed"        // there is room again
	EventBadPiece      EventKind = "bad piece"      // a piece from a peer does not match its hash: it is fetched again
	EventSourceDropped EventKind = "source dropped" // a peer is no longer used, because of its data
	EventFetchedAgain  EventKind = "fetched again"  // a file's data from an earlier run no longer matches the file
)

// A Transfer moves one tree of files between two peers, or from several. All methods are safe for concurrent use.
//
//	start ──> list ──> data ──> finish ──> done
//	   └─────────┴────────┴────────┴─────> failed
type Transfer struct {
	direction direction
	meter     *meter
	o         Options
	began     time.Time
	number    uint64
	cancel    context.CancelCauseFunc
	done      chan struct{}

	mu          sync.Mutex
	peer        string
	name        string
	root        [32]byte
	left        int // files that the sender has left out
	leftText    string
	failed      []*Error
	failedPaths map[string]struct{}
	from        func() []Source // lists the sources of a running receiver
	sessions    map[*session.Session]int
	ended       time.Time
	err         error

	untold  []Event // for tellAll
	passing int     // how many of untold may be dropped
	more    chan struct{}
	ending  chan struct{} // closed when no more events follow
	told    chan struct{} // tellAll has ended
}

// Result is the result of a transfer.
type Result struct {
	Name     string
	ID       string // identifies the transfer, and its state at the receiver: 32 hexadecimal digits
	Progress Progress
	Took     time.Duration // since the two sides had found each other, or since the start if they have not
	Failed   []*Error      // the files that failed while the others arrived

	LeftOut     int    // items that the sender found and could not send, as source.LeftOut counts them; 0 if the sender's version does not report them
	LeftOutText string // their kinds, in the sender's words: untrusted at the receiver
}

func newTransfer(d direction, peer string, o Options) (*Transfer, context.Context) {
	ctx, cancel := context.WithCancelCause(context.Background())
	t := &Transfer{
		direction: d, meter: newMeter(), o: o, began: time.Now(), number: lastNumber.Add(1), cancel: cancel,
		failedPaths: make(map[string]struct{}), done: make(chan struct{}), peer: peer, more: make(chan struct{}, 1),
		ending: make(chan struct{}), told: make(chan struct{}),
	}
	o.Registry.add(t)
	go t.tellAll()
	return t, ctx
}

// end records the outcome of the transfer. It is called once.
func (t *Transfer) end(err error) {
	phase := PhaseDone
	if err != nil {
		phase = PhaseFailed
	}
	t.meter.setPhase(phase)
	t.mu.Lock()
	t.err, t.ended = err, time.Now()
	t.mu.Unlock()
	t.cancel(nil)
	close(t.ending)
	<-t.told
	t.o.Registry.remove(t)
	close(t.done)
}

// other returns the other side, as the session names it; with several sources, the first one.
func (t *Transfer) other() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peer
}

// Done returns a channel that is closed when the transfer is over.
func (t *Transfer) Done() <-chan struct{} { return t.done }

// Cancel ends the transfer and notifies the peer. Received data stays for the next run.
func (t *Transfer) Cancel() { t.stop(context.Canceled) }

// stop cancels the transfer. The cause may be any error of a caller's ctx, such as its deadline.
func (t *Transfer) stop(cause error) {
	t.cancel(&Error{Peer: t.other(), Code: CodeCanceled, Text: "it was stopped", Err: cause})
}

// Wait waits until the transfer is over. It returns nil if every file has arrived. If some have failed and the others have arrived, it
// returns the error of the first, and Result.Failed has all of them.
func (t *Transfer) Wait() (Result, error) {
	<-t.done
	r := t.result()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil && len(r.Failed) > 0 {
		return r, r.Failed[0]
	}
	return r, t.err
}

func (t *Transfer) result() Result {
	p := t.Progress()
	t.mu.Lock()
	defer t.mu.Unlock()
	ended := t.ended
	if ended.IsZero() {
		ended = time.Now()
	}
	return Result{t.name, idOf(t.root), p, ended.Sub(t.meter.since(t.began)), append([]*Error(nil), t.failed...), t.left, t.leftText}
}

// idOf returns the name of a transfer in the file system: the first half of its root.
func idOf(root [32]byte) string { return hex.EncodeToString(root[:16]) }

// Progress returns the progress of the transfer.
func (t *Transfer) Progress() Progress {
	p := t.meter.progress(time.Now())
	if (p.Phase == PhaseList || p.Phase == PhaseData) && t.isAway() {
		p.Phase = PhaseWaiting
	}
	return p
}

// on records that the transfer runs on a session, until off is called.
func (t *Transfer) on(s *session.Session) (off func()) {
	t.mu.Lock()
	name := t.name
	t.mu.Unlock()
	hide := s.ForDiagnostics().Show("transfer", name, t.shown, nil)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions == nil {
		t.sessions = make(map[*session.Session]int)
	}
	t.sessions[s]++
	return func() {
		hide()
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.sessions[s]--; t.sessions[s] == 0 {
			delete(t.sessions, s)
		}
	}
}

// isAway reports whether all sessions that the transfer runs on are without a connection.
func (t *Transfer) isAway() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.sessions {
		if s.State() != session.StateDetached {
			return false
		}
	}
	return len(t.sessions) > 0
}

// Watch yields the progress at the given interval, and once more when the transfer is over. It ends then, or with ctx. Slow consumers skip
// intermediate values and delay nothing. If every is not positive, the interval is one second.
func (t *Transfer) Watch(ctx context.Context, every time.Duration) iter.Seq[Progress] {
	if every <= 0 {
		every = time.Second
	}
	return func(yield func(Progress) bool) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			if !yield(t.Progress()) {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			case <-t.done:
				yield(t.Progress())
				return
			}
		}
	}
}

// Source is the state of a peer that a transfer receives from.
type Source struct {
	Peer   string
	Lanes  int     // data lanes that are open
	Bytes  int64   // verified bytes from it since it was last reached
	Rate   float64 // bytes per second over the last second
	Wanted int     // pieces and small files requested from it
	Bad    int     // pieces that did not match their hash
}

// sources returns the peers that the transfer receives from, by name. It returns none if the transfer sends, or is over.
func (t *Transfer) sources() []Source {
	t.mu.Lock()
	from := t.from
	t.mu.Unlock()
	if from == nil {
		return nil
	}
	return from()
}

// receivesFrom sets the function that sources calls.
func (t *Transfer) receivesFrom(from func() []Source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.from = from
}

// listed sets the name and root of the tree.
func (t *Transfer) listed(name string, root [32]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.name, t.root = name, root
}

// leftOut records what the sender left out. With several senders, the largest number counts.
func (t *Transfer) leftOut(n int, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n > t.left {
		t.left, t.leftText = n, text
	}
}

// fileFailed records that a file has failed. A sender reports the same failure again after each loss of its connection; it counts once.
func (t *Transfer) fileFailed(err *Error) {
	t.mu.Lock()
	_, isKnown := t.failedPaths[err.Path]
	if !isKnown {
		t.failedPaths[err.Path] = struct{}{}
		t.failed = append(t.failed, err)
	}
	t.mu.Unlock()
	if isKnown {
		return
	}
	t.meter.filesBad.Add(1)
	t.tell(Event{EventFileFailed, err.Peer, err.Path, err})
}

// mostUntold is how many passing events wait while an Options.OnEvent does not return: the first and the last ones.
const mostUntold = 256

// isPassing reports whether an event may be dropped when too many wait. The others occur at most once for each file or source.
func (k EventKind) isPassing() bool { return k != EventFileFailed && k != EventSourceDropped }

// tell queues an event for Options.OnEvent, and does not wait for the call.
func (t *Transfer) tell(e Event) {
	t.mu.Lock()
	t.untold = append(t.untold, e)
	if e.Kind.isPassing() {
		t.passing++
	}
	if t.passing >= 2*mostUntold { // not for each event: this scans all that wait
		t.thinLocked()
	}
	t.mu.Unlock()
	select {
	case t.more <- struct{}{}:
	default:
	}
}

// thinLocked drops passing events between the first and the last.
func (t *Transfer) thinLocked() {
	n := 0
	t.untold = slices.DeleteFunc(t.untold, func(e Event) bool {
		if !e.Kind.isPassing() {
			return false
		}
		n++
		return n > mostUntold/2 && n <= t.passing-mostUntold/2
	})
	t.passing = mostUntold
}

// tellAll makes the calls of Options.OnEvent. It ends when no more events follow and all have been reported.
func (t *Transfer) tellAll() {
	defer close(t.told)
	for over := false; ; {
		t.mu.Lock()
		events := t.untold
		t.untold, t.passing = nil, 0
		t.mu.Unlock()
		for _, e := range events {
			t.o.tell(e)
		}
		if over {
			return
		}
		select {
		case <-t.more:
		case <-t.ending:
			over = true
		}
	}
}
