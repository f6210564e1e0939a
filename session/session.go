package session

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/internal/zstd"
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
//
// Each concern of a session is a type of its own, in its own files. They share mu, which guards their fields unless a field says otherwise.
// A method whose name ends in Locked, and an on... method that handles a frame, is called with mu held. docs/ARCHITECTURE.md has the layers
// of the files.
type Session struct {
	// Constant after the hello.
	cfg     Config
	id      ID
	peer    string
	agent   string       // the peer's software, as reported by the peer
	dialer  bool         // this side sent HELLO
	caps    frame.Caps   // capabilities of both sides
	limits  frame.Limits // the sizes that the peer accepts
	started time.Time
	part    *QuotaPart // what the peer has of cfg.Quota
	coder   zstd.Peer  // as whom it has turns at the coders

	onEnd      func() // called once when the session has ended; may be nil
	onLeft     func() // called once when functions of the application at the end have returned too; may be nil
	onDetached func() // called when the session has lost its carrier; may be nil

	ctx        context.Context // ends with the session
	endCtx     context.CancelFunc
	ended      chan struct{} // closed by fail
	finished   chan struct{} // closed when fail has recorded undelivered work
	readerDone chan struct{} // closed when readLoop has returned
	writerDone chan struct{} // closed when writeLoop has returned

	mu  sync.Mutex
	err *Error // why the session ended; nil while it lives

	carriers carriers // what carries the session: carrier.go
	bare     bare     // the one carrier of a session without a flow: bare.go
	reports  reports  // steps to report to OnState: states.go

	ids         ids         // what the two sides have opened: ids.go
	out         outbound    // frames to send: outbound.go
	end         ending      // how far it is on the way to its end, and what that waits for: ending.go
	undelivered undelivered // work that did not arrive: lost.go
	exempt      exemptions  // handlers that the end does not wait for: handlers.go

	calls     calls            // of this side: call.go
	requests  requests         // of the peer: serve.go
	messages  messages         // one-way: lane_out.go, lane_in.go
	shared    sharedStreams    // shared.go
	dedicated dedicatedStreams // dedicated.go
	lanes     lanes            // on top of streams: lanes.go

	events     events     // for hooks: events.go
	attributes attributes // attributes.go
	callbacks  callbacks  // callbacks.go

	heartbeat heartbeat // heartbeat.go
	dull      dull      // dull.go
	activity  activity
	stats     counters // counters.go

	watch atomic.Pointer[registry.Watch] // gets durations; nil: none
}

// activity is when the session was used, in nanoseconds after Session.started.
type activity struct {
	last     atomic.Int64 // sent or received anything
	lastCall atomic.Int64 // sent or received a call or a message; 0: never
	received atomic.Int64 // a frame, or data of a dedicated stream, has arrived; 0: none
}

// ID returns the session's 128-bit id.
func (s *Session) ID() ID { return s.id }

// Peer returns the peer's name, as the session's owner gave it.
func (s *Session) Peer() string { return s.peer }

// Conn returns the session's current or last carrier.
func (s *Session) Conn() net.Conn {
	return *s.carriers.raw.Load()
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
func (s *Session) activeAt() time.Time { return s.started.Add(time.Duration(s.activity.last.Load())) }

// LastReceived returns when something of the peer last arrived: a call, a message, data of a stream, an acknowledgement, a ping or the answer to
// one. Nothing that this side sends moves it, nor do other sessions on the same connection. It is when the session was opened before anything
// has arrived.
func (s *Session) LastReceived() time.Time {
	return s.started.Add(time.Duration(s.activity.received.Load()))
}

// touch records that the application sent or received something, and returns elapsed.
func (s *Session) touch() time.Duration {
	now := s.elapsed()
	s.activity.last.Store(int64(now))
	return now
}

// touchCall records, in addition to touch, that a call or a message was sent or received.
func (s *Session) touchCall() time.Duration {
	now := s.touch()
	s.activity.lastCall.Store(int64(now))
	return now
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

// violated returns the error of a session whose peer broke the protocol, or sent what it may not ignore and does not know (spec 4.4).
func (s *Session) violated(cause error) *Error {
	code := codes.Protocol
	switch {
	case errors.Is(cause, frame.ErrCritical):
		code = codes.Unsupported
	case errors.Is(cause, errBeyondCredit):
		code = codes.FlowControl
	}
	return &Error{Op: "session", Peer: s.peer, Code: code, Err: lostFor(cause)}
}
