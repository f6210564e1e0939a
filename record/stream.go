package record

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/internal/lively"
	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/internal/steady"
	"github.com/peerlane/peerlane/session"
)

// A Stream is one side of a record stream. It writes records and learns which of them the peer has applied, and it reads records and
// reports which of them it has applied. All methods are safe for concurrent use; it is best to read records in one goroutine.
//
//	WriteRecord ── window ── chunk ──┐                                              ┌── queue ── ReadRecord
//	AckRecord, Fail ─────────────────┴─> writeLoop ── conn ══════ conn ── readLoop ─┤
//	                                                                                └── acks, failures ── Barrier
//
// It is open until Close, a CLOSE of the peer, a failure that is not retryable, or the end of the conn or session below it.
type Stream struct {
	conn     net.Conn
	br       *bufio.Reader // of conn; readLoop's
	opts     Options
	name     string
	peer     string
	opened   time.Time
	id       uint64                 // unique in this process
	batchAck bool                   // both sides know acknowledgements in a BATCH
	given    bool                   // both sides report in CLOSE which records the application was given
	store    Store                  // nil if there is none
	lease    *lease                 // of the Store
	log      LogID                  // the log that this side writes
	lane     lane.Stream            // what the conn is to a lane; nil if it is on no session
	leave    func()                 // removes the stream from its session's lanes; nil if it is on no session
	peerLog  LogID                  // the log that this side reads
	watch    func() *registry.Watch // of the session; nil if it is on no session

	ended    chan struct{} // closed when err is set
	done     chan struct{} // closed when both loops have returned
	running  sync.WaitGroup
	readable chan struct{} // tells a reader to look again; 1 slot
	roomy    chan struct{} // tells the writer at the head of turn to look again; 1 slot
	turn     chan struct{} // holds a value while a writer waits for room

	heard atomic.Bool // the peer has sent something after its hello, or has answered this side's hello

	payload atomic.Uint64 // bytes of the records that were written

	copied []byte      // for the later parts of a chunk; writeLoop's
	pace   steady.Pace // of the conn's writing side; writeLoop's

	mu        sync.Mutex
	wake      sync.Cond   // writeLoop waits on it
	err       error       // why the stream has ended; nil while it has not
	lastWords []byte      // the CLOSE that reports an error found by this side
	mute      bool        // the conn accepts no more
	broke     error       // the error that it failed with
	grace     *time.Timer // ends the stream if the peer's last frames do not arrive
	dropped   bool        // the conn was ended at once
	parting   bool        // only the conn's Close is running, which bounds itself
	partings  uint64      // how often parting was seen
	notTaken  error       // the error of that Close
	buffers   lane.Held   // of br and copied
	out       outbound    // see send.go
	in        inbound     // see receive.go

	stats counters
}

var lastID atomic.Uint64

// newStream returns the stream of p, whose hellos are complete. place is this side's position. If an earlier stream has continued since the
// hello, it is beyond the position in the hello.
func newStream(p *handshake, place Place) (*Stream, error) {
	if err := p.fits(place); err != nil {
		return nil, err
	}
	ours, theirs, o := p.ours, p.theirs, p.o
	s := &Stream{
		conn: p.conn, br: p.br, opts: o, name: p.who.name, peer: p.who.peer,
		store: o.Store, lease: p.lease, log: ours.log, peerLog: theirs.log,
		opened: time.Now(), id: lastID.Add(1),
		batchAck: ours.caps&theirs.caps&capBatchAck != 0,
		given:    ours.caps&theirs.caps&capGiven != 0,
		ended:    make(chan struct{}), done: make(chan struct{}),
		readable: make(chan struct{}, 1), roomy: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
	s.wake.L = &s.mu
	p.made = s
	if err := s.holdBuffers(); err != nil {
		return nil, err
	}
	write, _ := begin(ours, theirs) // fits has checked this
	read, _ := begin(theirs, ours)
	s.out.begin(write, ours, theirs, o.BatchBytes)
	s.in.begin(read)
	if place.Peer == theirs.log {
		s.in.skip = place.Applied
	}
	if err := s.loadTail(place.Next); err != nil {
		return nil, err
	}
	return s, s.tellLog(read - 1)
}

// place returns the stream's position, as its Store has been told or will be.
func (s *Stream) place() Place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.placeLocked()
}

func (s *Stream) placeLocked() Place {
	return Place{Log: s.log, Next: s.out.durable + 1, Acked: s.out.acked, Peer: s.peerLog, Applied: s.in.applied}
}

// yield ends the stream for another that takes its Store over, unless the other one cannot continue from here.
func (s *Stream) yield(to *handshake) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.placeLocked()
	place.Acked = min(place.Acked, to.lease.pinned)
	if err := to.fits(place); err != nil {
		return err
	}
	first, _ := begin(to.ours, to.theirs) // fits has checked this
	largest := largestRecord(to.ours, to.theirs)
	for c := s.out.head; c != nil; c = c.next {
		n := max(first, c.first)
		for payload := range recordsOf(c.buf[batchRoomAck:], c.first, first) {
			if len(payload) > largest {
				return tooLarge(n, payload, largest)
			}
			n++
		}
	}
	s.refuseLocked(s.opError("carry", ErrSuperseded), CodeSuperseded, "")
	return nil
}

// tellLog reports to the Store which log this stream reads, and from where. A Store that knows better refuses.
func (s *Stream) tellLog(applied uint64) error {
	if s.store == nil {
		return nil
	}
	err := s.store.Applied(s.peerLog, applied)
	if err == nil || errors.Is(err, ErrHistory) {
		return err
	}
	return storeError(err)
}

// start starts the two loops, which end with the stream.
func (s *Stream) start() {
	if st, ok := s.conn.(*session.Stream); ok {
		s.lane = st.ForLane()
		s.lane.SetPayload(s.payload.Load)
		below := st.Session().ForDiagnostics()
		s.watch = below.Watch
		leave, hide := s.lane.FlushOnClose(s.flush), below.Show("record", st.Name(), func() any { return s.Snapshot() }, s.count)
		s.leave = func() {
			leave()
			hide()
		}
	}
	s.opts.Registry.add(s)
	s.running.Go(s.writeLoop)
	s.running.Go(s.readLoop)
	go s.finish()
}

// finish waits for the loops, releases what the stream held, waits until the peer has the data that the conn has taken, and marks the
// stream as done. It runs in its own goroutine.
func (s *Stream) finish() {
	s.running.Wait()
	s.mu.Lock()
	acked, place := s.out.acked, s.in.applied
	untold := place > s.in.told
	s.letGo()
	s.in.stopDelay()
	if s.grace != nil {
		s.grace.Stop()
	}
	s.mu.Unlock()
	var err error
	hook.Run(func() {
		err = s.lease.end(acked, func() error {
			if !untold {
				return nil
			}
			return s.store.Applied(s.peerLog, place) // not told for lack of time; the peer asks when it returns
		})
	}, func(why *hook.Failure) {
		if why != nil {
			err = storeError(why)
		}
		if err != nil {
			s.fail(s.opError("close", err))
		}
		s.closeConn()
		if s.leave != nil {
			s.leave()
		}
		s.opts.Registry.remove(s)
		close(s.done)
		why.Rethrow()
	})
}

// identity is the name of a stream and its peer.
type identity struct{ name, peer string }

// Name returns the name the stream was opened under, or "" for a stream on a bare conn.
func (s *Stream) Name() string { return s.name }

// Peer returns the peer, as the session names it, or "" for a stream on a bare conn.
func (s *Stream) Peer() string { return s.peer }

// PeerLog returns the name of the log that this side reads, to which its position belongs. It is the same for all streams of a peer that
// keeps its log in a Store.
func (s *Stream) PeerLog() LogID { return s.peerLog }

// Done returns a channel that is closed when the stream has ended and nothing of it is running.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Err returns why the stream has ended, or nil while it has not: ErrClosed after Close, otherwise an *Error. A stream that the peer has
// closed in order has not ended: received records can be read and acknowledged until Close.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fail ends the stream with err, once, and wakes all waiters.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	first := s.failLocked(err)
	s.dropped = s.dropped || first
	s.mu.Unlock()
	if !first {
		return
	}
	if c, ok := s.conn.(resetter); ok {
		_ = c.Reset(codes.Cancelled) // wakes the loops; only err counts
	} else {
		_ = s.conn.Close() // same
	}
}

// resetter is a conn whose Close waits for the peer, but that can also be ended at once: a *session.Stream.
type resetter interface{ Reset(code codes.Code) error }

// wakeReader makes readLoop end when no more will be read. The last frames that the conn has taken are still sent.
func (s *Stream) wakeReader() {
	if _, ok := s.conn.(resetter); ok {
		_ = s.conn.SetReadDeadline(deadline.Past) // closeConn waits for the peer
	} else {
		_ = s.conn.Close() // only the stream's error counts
	}
}

// closeConn closes a conn whose Close waits until the peer has the written data. The Store is free by then.
func (s *Stream) closeConn() {
	s.mu.Lock()
	s.parting = !s.dropped
	s.mu.Unlock()
	if _, ok := s.conn.(resetter); !ok || !s.parting {
		return
	}
	err := s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notTaken = err
}

// refuse ends the stream because of an error found by this side. The writer reports it to the peer before it closes the conn.
func (s *Stream) refuse(err error, code Code, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuseLocked(err, code, text)
}

func (s *Stream) refuseLocked(err error, code Code, text string) {
	if s.failLocked(err) {
		s.lastWords = appendClose(nil, code, cut(text))
		_ = s.conn.SetWriteDeadline(time.Now().Add(min(s.opts.CloseTimeout, time.Second))) // a closed conn needs none
	}
}

func (s *Stream) failLocked(err error) bool {
	if s.err != nil {
		return false
	}
	s.err = err
	s.in.clear()
	s.out.settleBarriers(everyone, func(b *barrier) error { return s.endedLocked(b.op) })
	close(s.ended)
	s.wake.Broadcast()
	return true
}

// endedLocked returns the error of calls on a stream that has ended. mu is held.
func (s *Stream) endedLocked(op string) error {
	err := s.err
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		copied := *e
		copied.Op, copied.Name, copied.Applied = op, s.name, s.out.acked
		return &copied
	}
	return &Error{Op: op, Name: s.name, Applied: s.out.acked, Err: err}
}

// opError returns err as the error of a call.
func (s *Stream) opError(op string, err error) error { return &Error{Op: op, Name: s.name, Err: err} }

// broken returns the error of a stream whose conn has failed with err.
func (s *Stream) broken(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return s.opError("carry", err)
}

// Close closes the stream in order: written records are sent, the peer's application reads them and then io.EOF, and neither side applies
// more. Close waits until the peer's side has all records, but not for acknowledgements: use Barrier for that. It gives up when nothing has
// moved for CloseTimeout.
//
// It returns nil if all written records have reached the peer or are acknowledged. Otherwise the error is an *Error whose Applied is the
// last record known to be applied. The fate of the records behind it is unknown, unless the text says that they are lost. The error matches
// os.ErrDeadlineExceeded after CloseTimeout, or ErrPeerClosed if the peer closed before it read all records; or it is a *RecordFailure
// without a Resend, or the reason why the stream has ended. A second Close waits and returns the same. Close may be called by the function
// of Apply or of Handle.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.closeLocked(ErrClosed)
	s.mu.Unlock()
	s.awaitDone()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeError()
}

// flush closes the stream because its session is being closed.
func (s *Stream) flush(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.fail(s.opError("close", os.ErrDeadlineExceeded)) })()
	return s.Close()
}

// awaitDone waits until the stream is done, and ends it when nothing has moved for CloseTimeout.
func (s *Stream) awaitDone() {
	p := lively.NewProgress(s.opts.CloseTimeout, s.moved())
	defer p.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-p.C:
		}
		if p.Stalled(s.moved()) {
			s.fail(s.opError("close", os.ErrDeadlineExceeded))
			<-s.done
			return
		}
	}
}

// moved counts progress of the writing direction. While the conn itself closes, every call counts as progress.
func (s *Stream) moved() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parting {
		s.partings++
	}
	n := s.pace.Moved() + s.out.acked + s.partings
	if s.lane != nil {
		n += s.lane.WriteProgress()
	}
	return n
}

// put writes to the conn in a way that moved can follow: a stream of a session says how far it is, also within a Write.
func (s *Stream) put(b []byte) (err error) {
	if s.lane != nil {
		_, err = s.conn.Write(b)
	} else {
		_, err = s.pace.Write(s.conn, b)
	}
	return err
}

// closeError returns the result of Close for a stream that is done. mu is held.
func (s *Stream) closeError() error {
	o := &s.out
	last := o.next - 1
	given := max(o.acked, o.given)
	var why error
	switch {
	case s.err != o.closing && !errors.Is(s.err, ErrClosed) && !errors.Is(s.err, ErrPeerClosed):
		return s.endedLocked("close")
	case o.closing != nil && o.closing != ErrClosed: // Fail has already reported why
		return nil
	case given >= last && (o.gone != nil || s.notTaken == nil || errors.Is(s.err, ErrPeerClosed) || last == 0 && s.in.applied == 0):
		return nil
	case o.gone != nil, errors.Is(s.err, ErrPeerClosed):
		why = ErrPeerClosed
		if s.given {
			why = fmt.Errorf("%w, and its application was not given records %d to %d", ErrPeerClosed, given+1, last)
		}
	case o.failed != nil:
		why = o.failed
	case s.notTaken != nil && given < last:
		why = fmt.Errorf("records %d to %d are not known to have arrived: %w", given+1, last, reasonOf(s.notTaken))
	case s.notTaken != nil:
		why = fmt.Errorf("the last acknowledgement is not known to have arrived: %w", reasonOf(s.notTaken))
	default:
		return nil
	}
	return &Error{Op: "close", Name: s.name, Applied: o.acked, Err: why}
}

// reasonOf returns the error of a session's stream without the number of its bytes, which are not those of the records.
func reasonOf(err error) error {
	e, ok := errors.AsType[*session.Error](err)
	if !ok || e.Remote { // the peer's words stay
		return err
	}
	bare := *e
	bare.Link, bare.Text = "", ""
	return &bare
}

// closeLocked makes the writer close the stream once everything has been sent. Calls return why from now on. mu is held.
func (s *Stream) closeLocked(why error) {
	o := &s.out
	if s.err != nil || o.closing != nil {
		return
	}
	o.closing, o.ended = why, true
	s.in.clear()
	o.settleBarriers(everyone, func(b *barrier) error { return &Error{Op: b.op, Name: s.name, Applied: o.acked, Err: why} })
	s.wake.Broadcast()
	s.signal(s.readable)
	s.signal(s.roomy)
}

// CloseWithError closes the stream at once and sends code and text to the peer. code must be CodeApplication or above; otherwise the error
// is ErrRange. Only the first 1024 bytes of text count. Written records that have not been sent are dropped.
func (s *Stream) CloseWithError(code Code, text string) error {
	if code < CodeApplication {
		return s.opError("close", fmt.Errorf("%w: %v is not the application's", ErrRange, code))
	}
	s.refuse(ErrClosed, code, text)
	<-s.done
	return nil
}

// cut shortens text to the length that may be sent, without splitting a character.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	for n := maxText; n > maxText-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n]) {
			return text[:n]
		}
	}
	return text[:maxText] // text is not UTF-8
}

// signal wakes the goroutine that waits on ch, or is about to.
func (s *Stream) signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
