package session

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/resume"
)

// An Opener opens a further connection to the session's peer, for a dedicated stream or as the session's next carrier. An error that
// matches ErrClosed means that no more connections will follow, and ends the session.
type Opener func(ctx context.Context, want Want) (net.Conn, error)

// Want says what an Opener is called for.
type Want struct {
	// Lost: the session, or the dedicated stream, has lost its carrier. The connection under that carrier may be dead.
	Lost bool
	// Direct: only a connection without a relay will do. ReconnectDirect sets it.
	Direct bool
}

// An ID names a session: 128 random bits, which are sent only inside the secure channel.
type ID [16]byte

// String returns the ID in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// A Session is one conversation with one peer. All methods are safe for concurrent use.
type Session struct {
	// Constant after the hello.
	cfg      Config
	id       ID
	peer     string
	dialer   bool          // this side sent HELLO
	conn     io.ReadWriter // the flow, or without one the carrier, sealed when a key is in force
	flow     *resume.Flow  // outlives the carriers; nil: the session ends with its carrier. See resume.go
	keptFor  time.Duration // how long both sides keep a session without a carrier
	first    *flowConn     // the flow's first carrier
	limits   frame.Limits  // the sizes that the peer accepts
	caps     frame.Caps    // capabilities of both sides
	agent    string        // the peer's software, as reported by the peer
	open     Opener        // nil: no dedicated streams from this side
	greeting chan struct{} // places for hellos of dedicated streams in progress
	onEnd    func()        // called once when the session has ended; may be nil

	onDetached func() // called when the session has lost its carrier; may be nil

	started time.Time
	ctx     context.Context // ends with the session
	endCtx  context.CancelFunc

	ended      chan struct{} // closed by fail
	finished   chan struct{} // closed when fail has recorded undelivered work
	readerDone chan struct{} // closed when readLoop has returned
	writerDone chan struct{} // closed when writeLoop has returned

	// mu guards the fields below, and everything that a source does.
	mu  sync.Mutex
	err *Error // why the session ended; nil while it lives

	// Carriers: see resume.go and state.go.
	state      State
	stateSince time.Time
	changed    chan struct{} // closed at the next step; nil: no waiter
	changes    []StateChange // not yet reported to OnState
	telling    bool          // a goroutine calls OnState
	inOrder    bool          // the previous carrier was alive when the newest was attached
	settled    bool          // the flow has been on its first carrier
	redialing  bool          // redial runs
	redials    sync.WaitGroup
	kick       chan struct{} // ends the wait of a redial
	moving     chan struct{} // holds a value while a carrier is being found or taken
	attempt    uint32        // of the last hello of a further carrier; guarded by moving

	// Outbound: see writer.go.
	wake     sync.Cond     // the writer waits on it
	urgent   []byte        // whole control frames that go before anything else
	overrun  bool          // urgent was full and a control frame was dropped: the session cannot continue
	ready    queue[source] // sources with frames to send, in turn
	dropped  int           // at most this many of them have been dropped
	later    queue[source] // streams, on a scarce carrier
	held     queue[source] // bulk streams, until the carrier is not scarce
	scarce   bool          // the carrier is limited in what it lets through
	lastID   uint64        // of the last thing opened by this side
	pong     uint64        // the PING to answer; 0: none
	part     int           // payload bytes of the frames of a batch; see fillBatch
	outgoing atomic.Bool   // a batch is on its way into the flow, or to the carrier

	urgentValue bool   // something in urgent is worth waiting for
	valuable    bool   // something in the batch is; owned by the writer
	flowEnd     uint64 // offset in the flow behind the last batch; owned by the writer

	// Calls of this side: see call.go.
	pending   map[uint64]*call // begun and not answered
	inFlight  uint32           // calls that hold one of the peer's limits.MaxInFlight places
	waiting   line[*call]      // calls that wait for a place
	freeCalls []*call          // finished, for reuse

	// Requests of the peer: see serve.go.
	lastPeerID uint64
	serving    map[uint64]*Message // neither answered nor cancelled
	running    int                 // running handlers, including those of cancelled requests
	partial    int                 // incomplete bodies of the peer
	names      map[string]string   // link and codec names the peer has used
	served     int                 // requests accepted in all

	lane       outLane                // one-way messages out: see lane_out.go
	inbox      inLane                 // one-way messages in: see lane_in.go
	streams    map[uint64]*muxed      // shared streams: see muxed.go
	mine       int                    // streams opened by this side, including those not yet accepted
	theirsOpen int                    // streams opened by the peer
	mineKept   int                    // this side's streams in streams: including ended ones whose end the peer has not acknowledged
	theirsKept int                    // the same for the peer's streams
	streaming  int                    // running stream handlers, including those of ended streams
	watch      *time.Timer            // of the streams' flights; nil before the first. See flight.go
	watching   bool                   // it runs
	dedicated  map[*Stream]struct{}   // open dedicated streams, of both sides
	numbered   map[uint64]*streamEnds // of dedicated streams, by number; see dedicated_end.go
	lastNumber uint64                 // of a dedicated stream that this side opened
	arrivals   map[uint64]*arrival    // of resumable streams that the peer has opened, by number
	unheard    []uint64               // those of them that have ended and may still be opened again, the oldest first
	lanes      map[*lane]struct{}     // lanes on top of streams: see lanes.go
	listener   *resume.Listener       // of resumable ones that the peer opens; nil before the first. See resumable.go

	// The end: see drain.go and close.go.
	phase      phase // of this side
	peerPhase  phase
	saidGoAway phase              // phase in which the last GOAWAY was sent
	farewell   *frame.Failure     // the GOAWAY of the drain, until it is sent
	leaving    *Error             // why the session will end, once it drains or the peer has closed
	parting    atomic.Bool        // leaving is set
	idle       chan struct{}      // closed when a drain has nothing left to wait for
	idleShut   bool               // idle is closed
	asked      bool               // the application has called Close
	impatient  bool               // the end no longer waits for anything
	aborted    bool               // received data is dropped
	gaveUp     bool               // the session ended before everything was settled
	exempted   [handler.Kinds]int // handlers that the end of the session does not wait for, by kind
	toRefuse   []*Message         // the requests of such handlers, until they are answered
	stirred    chan struct{}      // closed at the next change that an end waits for; nil: no waiter
	moved      uint64             // counts settled work; see progress
	valueEnd   uint64             // offset in the flow behind the last thing worth waiting for
	unasked    []*muxed           // streams whose data ends in a batch, with no receipt requested yet
	receipts   []receipt          // requested receipts, in order
	closings   int                // streams that are being closed, and report undelivered data
	lostThings []lost             // undelivered work, at most maxLost
	waits      uint64             // see endProgress
	hurried    bool               // drained after the peer had closed: its resume window counts no more
	flushed    chan struct{}      // made by the first Close; closed when lanes have put on their streams what they held back
	lostCount  int                // in all

	heartbeat heartbeat // see heartbeat.go
	probesIn  uint64    // received PING and PONG frames

	dull dull // see dull.go

	raw   atomic.Pointer[net.Conn] // the carrier, or the last one
	under *flowConn                // without a flow: the carrier, for its Moved
	cut   cutter                   // likewise: of the Writes

	// Counters.
	heardAt    atomic.Int64  // without a flow: when the carrier last gave a sign of life, in nanoseconds after started
	unacked    atomic.Uint64 // bytes received on dedicated streams, which nothing acknowledges
	arrived    atomic.Uint64 // Reads that returned more than a heartbeat
	written    atomic.Uint64 // batches that held more than a heartbeat, without a flow
	writeBegan atomic.Int64  // when the Write in progress began, in nanoseconds after started; 0: none
	lastActive atomic.Int64  // when the application last sent or received, as elapsed
	lastCall   atomic.Int64  // when a call or a message last did; zero if none has
	stats      counters
}

// newSession returns a session on a carrier whose hello is complete. The caller runs readLoop; run starts the rest.
func newSession(cfg Config, conn carrier, dialer bool, peer string) *Session {
	s := &Session{
		cfg: cfg, peer: peer, dialer: dialer,
		id: conn.id, limits: bounded(*conn.theirs.Limits), agent: conn.theirs.Agent,
		caps:       cfg.caps() & conn.theirs.Caps,
		started:    time.Now(),
		greeting:   make(chan struct{}, maxGreeting),
		ended:      make(chan struct{}),
		finished:   make(chan struct{}),
		readerDone: make(chan struct{}),
		writerDone: make(chan struct{}),
		pending:    make(map[uint64]*call),
		serving:    make(map[uint64]*Message),
		streams:    make(map[uint64]*muxed),
		idle:       make(chan struct{}),
		part:       fragment,
	}
	s.ctx, s.endCtx = context.WithCancel(context.Background())
	s.wake.L = &s.mu
	s.lane.s = s
	s.raw.Store(&conn.raw)
	s.scarce = isScarce(conn.raw)
	s.setState(StateConnected, nil)
	s.touch()
	if s.caps&frame.CapResume != 0 {
		s.newFlow(conn)
	} else {
		s.conn, s.under = conn.sealed, conn.forFlow()
	}
	return s
}

// bounded returns the sizes that the peer accepts, within the limits of the format.
func bounded(l frame.Limits) frame.Limits {
	for _, n := range [...]*uint32{&l.MaxMessage, &l.MaxInFlight, &l.MessageWindow, &l.MaxStreams, &l.StreamWindow} {
		*n = min(*n, frame.MaxTotal)
	}
	return l
}

// run starts the writer and the heartbeat. They end with the session.
func (s *Session) run() {
	s.startHeartbeat()
	s.startFlow()
	go s.writeLoop()
	s.tell()
}

// ID returns the session's 128-bit id.
func (s *Session) ID() ID { return s.id }

// Peer returns the peer's name, as the session's owner gave it.
func (s *Session) Peer() string { return s.peer }

// Conn returns the session's current or last carrier.
func (s *Session) Conn() net.Conn {
	return *s.raw.Load()
}

// Context returns a context that ends with the session.
func (s *Session) Context() context.Context { return s.ctx }

// Done returns a channel that is closed when the session has ended; Err then says why.
func (s *Session) Done() <-chan struct{} { return s.ended }

// Err returns nil while the session lives, and afterwards why it ended: an *Error that matches ErrClosed after Close on this side or when a
// carrier or the Opener reported it, ErrGoingAway after a drain, and ErrSessionLost otherwise.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return nil
	}
	return s.err
}

// elapsed returns the age of the session. That is cheaper to get than the current time.
func (s *Session) elapsed() time.Duration { return time.Since(s.started) }

// activeAt returns when the application last sent or received something.
func (s *Session) activeAt() time.Time { return s.started.Add(time.Duration(s.lastActive.Load())) }

// touch records that the application sent or received something, and returns elapsed.
func (s *Session) touch() time.Duration {
	now := s.elapsed()
	s.lastActive.Store(int64(now))
	return now
}

// touchCall records, in addition to touch, that a call or a message was sent or received.
func (s *Session) touchCall() time.Duration {
	now := s.touch()
	s.lastCall.Store(int64(now))
	return now
}

// fail ends the session with err, once. It wakes all waiters and drops the carrier. A session that ends with the reason of its Close or
// drain, and was not aborted, ends in order; any other is lost.
func (s *Session) fail(err *Error) {
	s.mu.Lock()
	inOrder := err == s.leaving && !s.aborted
	s.mu.Unlock()
	s.end(err, inOrder)
}

// end does the work of fail. If inOrder, received data can still be handled and read to its end; otherwise it is dropped.
func (s *Session) end(err *Error, inOrder bool) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	s.setState(StateEnded, err)
	s.abortAll(err, inOrder)
	dedicated := s.attachedLocked()
	close(s.ended)
	s.mu.Unlock()
	s.endCtx()
	s.heartbeat.stop()
	s.stopWatch()
	if s.flow != nil {
		s.flow.Close(err)
	} else {
		drop(s.Conn(), dropCode(err))
	}
	for _, st := range dedicated {
		st.endWithSession(err, inOrder)
	}
	s.lane.tellUndelivered()
	close(s.finished)
	if s.onEnd != nil {
		s.onEnd()
	}
	s.tell()
}

// dropCode returns the code for resetting a carrier when err ends its session. A session that ends in order closes its carrier instead,
// because a reset would overtake the last answers.
func dropCode(err *Error) codes.Code {
	if err.Code == codes.GoingAway {
		return codes.Closed
	}
	return err.Code
}

// attachedLocked returns the dedicated streams that have a carrier to reset.
func (s *Session) attachedLocked() []*Stream {
	var open []*Stream
	for st := range s.dedicated {
		if st.conn != nil {
			open = append(open, st)
		}
	}
	return open
}

// abortAll ends everything on this session. If inOrder, it keeps the messages that wait for their handler. s.mu is held.
func (s *Session) abortAll(err *Error, inOrder bool) {
	for _, q := range [...]*queue[source]{&s.ready, &s.later, &s.held} {
		for q.len() > 0 {
			q.pop().abort(err)
		}
	}
	for s.waiting.len() > 0 {
		s.waiting.pop().abort(err)
	}
	for _, c := range s.pending {
		c.abort(err)
	}
	for _, m := range s.serving {
		m.cancelLocked(context.Canceled)
	}
	for _, st := range s.streams {
		st.abort(err)
	}
	s.lane.abort(err)
	if !inOrder {
		s.inbox.abortLocked(s)
	}
	s.shutIdleLocked()
	s.stirLocked()
	s.wake.Broadcast()
}

// drop ends a carrier at once: by a reset with the code if the carrier supports resets, otherwise by closing it.
func drop(conn net.Conn, code codes.Code) {
	if r, ok := conn.(interface{ Reset(codes.Code) error }); ok && code != codes.OK && code != codes.Closed {
		_ = r.Reset(code) // the carrier is given up: no peer to notify
		return
	}
	_ = conn.Close() // same
}

// lost returns the error of a session whose carrier failed with cause. A cause that matches ErrClosed is not a loss: this side has closed
// what carried the session.
func (s *Session) lost(op string, cause error) *Error {
	if errors.Is(cause, ErrClosed) {
		return &Error{Op: op, Peer: s.peer, Code: codes.Closed, Err: cause}
	}
	var e *Error
	if errors.As(cause, &e) {
		cause = e // keep the code of a carrier's reset
	}
	if cause == io.EOF {
		cause = io.ErrUnexpectedEOF
	}
	return &Error{Op: op, Peer: s.peer, Err: lostFor(cause)}
}

// violated returns the error of a session whose peer broke the protocol.
func (s *Session) violated(cause error) *Error {
	return &Error{Op: "session", Peer: s.peer, Code: codes.Protocol, Err: lostFor(cause)}
}

// lostFor returns ErrSessionLost with its cause, if there is one, on one line.
func lostFor(cause error) error {
	if cause == nil {
		return ErrSessionLost
	}
	return fmt.Errorf("%w: %w", ErrSessionLost, cause)
}

// refusal returns the error for new work on a session that takes none, or nil. s.mu is held.
func (s *Session) refusal(op, link string) *Error {
	switch {
	case s.err != nil:
		return &Error{Op: op, Peer: s.peer, Link: link, Outcome: NotSent, Code: s.err.Code, Err: s.err.cause()}
	case s.phase >= phaseClosing:
		return &Error{Op: op, Peer: s.peer, Link: link, Outcome: NotSent, Code: s.leaving.Code, Err: s.leaving.cause()}
	case s.flushed != nil:
		return &Error{Op: op, Peer: s.peer, Link: link, Outcome: NotSent, Code: codes.Closed, Err: ErrClosed}
	case s.phase >= phaseDraining || s.peerPhase >= phaseDraining:
		return &Error{Op: op, Peer: s.peer, Link: link, Outcome: NotSent, Code: codes.GoingAway}
	}
	return nil
}

// cause returns what e adds beyond its code: its Err, or its text.
func (e *Error) cause() error {
	if e.Err == nil && e.Text != "" {
		return errors.New(e.Text)
	}
	return e.Err
}
