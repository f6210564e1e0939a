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

// Direction says which way the files of a transfer go.
type Direction uint8

// The directions.
const (
	Sending   Direction = 1
	Receiving Direction = 2
)

// String returns "sending" or "receiving".
func (d Direction) String() string {
	if d == Sending {
		return "sending"
	}
	return "receiving"
}

// An Event is something beside the plain course of a transfer.
type Event struct {
	Kind EventKind
	Peer string
	Path string // of a file, untrusted
	Err  error  // why, if there is a reason
}

// EventKind says what an Event is of.
type EventKind string

// The kinds of events.
const (
	EventFileFailed    EventKind = "file failed"    // the others go on
	EventStalled       EventKind = "stalled"        // nothing has come for StallAfter: the lanes are replaced
	EventLost          EventKind = "lost"           // the connection to a peer, or it is busy: it is tried again
	EventPaused        EventKind = "paused"         // the receiver's disk is full
	EventResumed       EventKind = "resumed"        // there is room again
	EventBadPiece      EventKind = "bad piece"      // a peer has sent what does not fit its hash: it is fetched again
	EventSourceDropped EventKind = "source dropped" // a peer is not asked any more, for what it has sent
	EventFetchedAgain  EventKind = "fetched again"  // what an earlier run has left of a file is not what the file is now
)

// A Transfer is one tree of files on its way between two peers, or from several. All methods are safe for concurrent use.
//
//	start ──> list ──> data ──> finish ──> done
//	   └─────────┴────────┴────────┴─────> failed
type Transfer struct {
	direction Direction
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
	from        func() []Source // of a receiver that runs
	sessions    map[*session.Session]int
	ended       time.Time
	err         error

	untold  []Event // for tellAll
	passing int     // of them, those that may be dropped
	more    chan struct{}
	ending  chan struct{} // closed when nothing more is told
	told    chan struct{} // tellAll has ended
}

// Result is what has become of a transfer.
type Result struct {
	Name     string
	ID       string // names it, and its state at the receiver: 32 hexadecimal digits
	Progress Progress
	Took     time.Duration
	Failed   []*Error // the files that failed, when the others have come

	LeftOut     int    // items that the sender found and could not send, as source.LeftOut counts them; 0 if the sender is too old to say
	LeftOutText string // their kinds, in the sender's words: untrusted at the receiver
}

func newTransfer(d Direction, peer string, o Options) (*Transfer, context.Context) {
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

// end says how the transfer went. It is called once.
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

// Direction returns which way the files go, seen from this side.
func (t *Transfer) Direction() Direction { return t.direction }

// Peer returns whom with, as the session names it; with several sources, the first.
func (t *Transfer) Peer() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.peer
}

// Done is closed when the transfer is over.
func (t *Transfer) Done() <-chan struct{} { return t.done }

// Cancel ends the transfer, and tells the peer. What has come stays, for the next time.
func (t *Transfer) Cancel() { t.stop(context.Canceled) }

// stop cancels the transfer. The cause may be any that a caller's ctx has, as that its time is over.
func (t *Transfer) stop(cause error) {
	t.cancel(&Error{Peer: t.Peer(), Code: CodeCanceled, Text: "it was stopped", Err: cause})
}

// Wait returns when the transfer is over: nil when every file has come. When some have failed and the others have come, the
// error is that of the first, and Result.Failed has them all.
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
	return Result{t.name, idOf(t.root), p, ended.Sub(t.began), append([]*Error(nil), t.failed...), t.left, t.leftText}
}

// idOf returns the name that a transfer has in the file system: the half of its root.
func idOf(root [32]byte) string { return hex.EncodeToString(root[:16]) }

// Progress returns how far it is.
func (t *Transfer) Progress() Progress {
	p := t.meter.progress(time.Now())
	if (p.Phase == PhaseList || p.Phase == PhaseData) && t.isAway() {
		p.Phase = PhaseWaiting
	}
	return p
}

// on notes that the transfer runs on a session, until off is called.
func (t *Transfer) on(s *session.Session) (off func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions == nil {
		t.sessions = make(map[*session.Session]int)
	}
	t.sessions[s]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.sessions[s]--; t.sessions[s] == 0 {
			delete(t.sessions, s)
		}
	}
}

// isAway reports whether no session that it runs on has a connection.
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

// Watch yields how far it is, every so often, and once more when it is over, which ends it as the end of ctx does. Who is slow
// misses what was between, and holds up nothing. If every is not positive, each second.
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

// Source is a peer that a transfer receives from, as it stands.
type Source struct {
	Peer   string
	Lanes  int     // data lanes that are open
	Bytes  int64   // that have come from it, verified, since it was reached last
	Rate   float64 // bytes per second over the last second
	Wanted int     // pieces and small files that it is to bring
	Bad    int     // pieces that were not what was said
}

// Sources returns the peers that are being received from, by name: none of a transfer that sends, or is over.
func (t *Transfer) Sources() []Source {
	t.mu.Lock()
	from := t.from
	t.mu.Unlock()
	if from == nil {
		return nil
	}
	return from()
}

// receivesFrom has from tell what Sources returns.
func (t *Transfer) receivesFrom(from func() []Source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.from = from
}

// listed says what the transfer is of.
func (t *Transfer) listed(name string, root [32]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.name, t.root = name, root
}

// leftOut records what the sender left out. Of several senders, the largest number counts.
func (t *Transfer) leftOut(n int, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n > t.left {
		t.left, t.leftText = n, text
	}
}

// fileFailed says that one file has. A sender finds it out again after each loss of its connection: that is not another one.
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

// mostUntold is how many passing events wait for an Options.Event that does not return: the first and the last.
const mostUntold = 256

// isPassing reports whether an event may be dropped when too many wait. The others come once for each file or source, at most.
func (k EventKind) isPassing() bool { return k != EventFileFailed && k != EventSourceDropped }

// tell has Options.Event be called, and does not wait for it.
func (t *Transfer) tell(e Event) {
	t.mu.Lock()
	t.untold = append(t.untold, e)
	if e.Kind.isPassing() {
		t.passing++
	}
	if t.passing >= 2*mostUntold { // not at each one: this goes through all that wait
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

// tellAll owns the calls of Options.Event. It ends when nothing more is told, and all is.
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
