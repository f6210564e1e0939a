package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/resume"
)

// dedicatedStreams are the streams with connections of their own.
type dedicatedStreams struct {
	open       map[*Stream]struct{}   // of both sides
	greeting   chan struct{}          // places for hellos in progress
	numbered   map[uint64]*streamEnds // by number; see dedicated_end.go
	lastNumber uint64                 // of a stream that this side opened
	arrivals   map[uint64]*arrival    // resumable streams that the peer has opened, by number
	unheard    []uint64               // those of them that have ended and may still be opened again, the oldest first
	listener   *resume.Listener       // of resumable streams that the peer opens; nil before the first. See resumable.go
	unacked    atomic.Uint64          // received bytes, which nothing acknowledges; not guarded
}

// dedicated is a stream with its own connection: raw, or sealed if there is a key.
type dedicated struct {
	payload
	net.Conn
	raw    net.Conn
	s      *Session
	name   string
	ends   *streamEnds   // nil: not exchanged with this peer
	sent   atomic.Uint64 // written bytes, without ends
	got    atomic.Uint64 // read bytes
	tapped bool          // received bytes are counted below the seal
	beside net.Conn      // the session's carrier when the stream began to be opened
	closed atomic.Bool
	ending struct {
		begun atomic.Bool
		done  chan struct{} // closed when the first Close returns
		err   error         // its result
	}
	cause atomic.Pointer[Error] // why the session ended, if that ended the stream; nil otherwise

	cut        atomic.Bool // Reset has ended a Close that waited
	retired    atomic.Bool // the session has ended in order
	writeEnded atomic.Bool // the application has ended its direction
	readEnded  atomic.Bool // Read has reached the end of the peer's direction, or failed for good
}

// attach sets the stream's carrier, or drops the carrier if the session has ended meanwhile. The session was on the carrier beside.
func (st *Stream) attach(c carrier, beside net.Conn) error {
	st.s.mu.Lock()
	err := st.s.err
	if err == nil {
		d := &dedicated{Conn: c.sealed, raw: c.raw, s: st.s, name: st.name, ends: st.ends, tapped: c.tap != nil, beside: beside}
		d.ending.done = make(chan struct{})
		st.conn = d
		st.announceLocked(true)
		if c.tap != nil {
			c.tap.unacked.Store(&st.s.dedicated.unacked)
		}
		if st.s.end.endsStreams() { // Close was called meanwhile
			st.s.endOneDedicatedLocked(st)
		}
	} else {
		delete(st.s.dedicated.open, st)
		err = st.s.refusalLocked("open stream", st.name)
		err.Outcome = Unknown // the peer has already answered
	}
	st.s.checkIdleLocked()
	st.s.mu.Unlock()
	if err == nil {
		return nil
	}
	drop(c.raw, codes.Cancelled)
	return err
}

// openDedicated opens a stream on a connection of its own.
func (s *Session) openDedicated(ctx context.Context, name string, outlives bool) (*Stream, error) {
	if s.carriers.open == nil {
		return nil, &Error{Op: "open stream", Peer: s.peer, Link: name, Outcome: NotSent, Code: codes.Unsupported,
			Text: "only the side that dialed the session opens dedicated streams"}
	}
	if outlives {
		return s.openResumable(ctx, name)
	}
	st := &Stream{s: s, name: name, dedicated: true}
	if err := s.addDedicated(st); err != nil {
		return nil, err
	}
	beside := s.Conn()
	conn, err := s.openCarrier(ctx, Want{})
	if err == nil {
		defer func() { <-s.dedicated.greeting }()
	} else {
		s.forgetDedicated(st)
		return nil, &Error{Op: "open stream", Peer: s.peer, Link: name, Outcome: NotSent, Err: err}
	}
	hello := &frame.Hello{Role: frame.RoleStream, SessionID: s.id, Name: name, Number: s.number(st)}
	c, err := greet(ctx, conn, s.peer, hello, &s.cfg)
	if err != nil {
		s.forgetDedicated(st)
		var e *Error
		if errors.As(err, &e) {
			e.Op, e.Link = "open stream", name
			if !e.refused {
				e.Outcome = Unknown // HELLO may have arrived
			}
		}
		if st := s.openedAndReset(name, err); st != nil {
			return st, nil
		}
		return nil, err
	}
	s.touch()
	if err := st.attach(c, beside); err != nil {
		return nil, err
	}
	if s.cfg.Keys == nil {
		return st, nil
	}
	if _, err := c.sealed.Write([]byte{sealedStart}); err != nil {
		_ = st.Reset(codes.Cancelled) // only the write's error counts
		return nil, &Error{Op: "open stream", Peer: s.peer, Link: name, Outcome: Unknown, Err: err}
	}
	return st, nil
}

// maxGreeting is how many dedicated streams of a session are being opened at a time; the others wait. An Acceptor refuses the hellos of a
// peer beyond AcceptorConfig.MaxHandshakes, 16.
const maxGreeting = 8

// openCarrier opens a connection for a dedicated stream once there is a place for its hello. Without an error the caller must release the
// place.
func (s *Session) openCarrier(ctx context.Context, want Want) (net.Conn, error) {
	select {
	case s.dedicated.greeting <- struct{}{}:
	case <-s.ended:
		return nil, s.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	conn, err := s.callOpener(ctx, want)
	if err != nil {
		<-s.dedicated.greeting
	}
	return conn, err
}

// callOpener calls the Opener. An Opener that ends its goroutine, or returns neither a conn nor an error, has failed.
func (s *Session) callOpener(ctx context.Context, want Want) (conn net.Conn, err error) {
	if exited := hook.Do(func() { conn, err = s.carriers.open(ctx, want); err = hook.Err(err) }); exited != nil {
		return nil, fmt.Errorf("the Opener %w", exited)
	}
	if err == nil && conn == nil {
		err = errors.New("the Opener returned neither a conn nor an error")
	}
	return conn, err
}

// addDedicated registers st until it is closed, or refuses it.
func (s *Session) addDedicated(st *Stream) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refusalLocked("open stream", st.name); err != nil {
		return err
	}
	if n := len(s.dedicated.open); n >= min(s.cfg.MaxStreams, int(s.limits.MaxStreams)) {
		return &Error{Op: "open stream", Peer: s.peer, Link: st.name, Outcome: NotSent, Code: codes.Unavailable,
			RetryAfter: retryHint, Text: fmt.Sprintf("%d dedicated streams open, no more are taken", n)}
	}
	if s.dedicated.open == nil {
		s.dedicated.open = make(map[*Stream]struct{})
	}
	st.opened = s.elapsed()
	s.dedicated.open[st] = struct{}{}
	return nil
}

// announceLocked reports to hooks that a dedicated stream is open, or has ended. Only the first call of each kind counts.
func (st *Stream) announceLocked(open bool) {
	if st.announced != open {
		st.announced = open
		st.s.hookLane(Lane{Kind: "stream", Name: st.name, Local: st.s.dialer, Dedicated: true}, open)
	}
}

// moved returns how many bytes have been read from a dedicated stream and written to it. s.mu is held.
func (st *Stream) moved() (in, out uint64) {
	switch c := st.conn.(type) {
	case *dedicated:
		return c.got.Load(), c.wrote()
	case *resumable:
		return c.got.Load(), c.wrote.Load()
	}
	return 0, 0 // not open yet
}

// forgetDedicated unregisters st.
func (s *Session) forgetDedicated(st *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.dedicated.open[st]; open {
		s.stats.streams.add(st.moved())
		delete(s.dedicated.open, st)
	}
	st.announceLocked(false)
	s.departLocked(st.arrival)
	if st.ends != nil {
		delete(s.dedicated.numbered, st.ends.number)
	}
	s.checkIdleLocked()
	s.stirLocked()
}

// CloseWrite implements Stream.
func (d *dedicated) CloseWrite() error {
	d.writeEnded.Store(true)
	if c, ok := d.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// CloseRead implements Stream.
func (d *dedicated) CloseRead() error {
	if c, ok := d.Conn.(interface{ CloseRead() error }); ok {
		return c.CloseRead()
	}
	return errors.ErrUnsupported
}

// sealedStart is the first byte of a dedicated stream under a key. Its record proves that the HELLO was no replay before the stream's
// handler runs (spec 5.10).
const sealedStart = 0

// serveDedicated runs the handler of a dedicated stream, and returns when it does.
func (s *Session) serveDedicated(serve func(*Stream), st *Stream) {
	s.mu.Lock()
	s.shared.handlers++
	s.mu.Unlock()
	s.serveStream(serve, st)
}

// Read implements Stream.
func (d *dedicated) Read(p []byte) (int, error) {
	n, err := d.readConn(p)
	if n > 0 {
		d.got.Add(uint64(n))
		if !d.tapped {
			d.s.dedicated.unacked.Add(uint64(n))
		}
		d.s.activity.received.Store(int64(d.s.touch()))
	}
	if err != nil && err != io.EOF && d.ends != nil && d.ends.isRead(n) {
		err = io.EOF // the session has reported this as the end, and the conn broke after it
	}
	if d.ends != nil && (n > 0 || err != nil) && !d.closed.Load() {
		d.ends.read(n, err)
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		d.readEnded.Store(true)
		if d.retired.Load() {
			d.leave()
		}
	}
	return n, d.because(err)
}

// readConn reads from the conn, but when the session has ended in order and the application has had all: a conn that has died silently may
// not say so for long.
func (d *dedicated) readConn(p []byte) (int, error) {
	if d.retired.Load() && d.ends != nil && d.ends.isRead(0) {
		return 0, io.EOF
	}
	return d.Conn.Read(p)
}

// Write implements Stream.
func (d *dedicated) Write(p []byte) (int, error) {
	wrote := &d.sent
	if d.ends != nil {
		wrote = &d.ends.wrote
	}
	wrote.Add(uint64(len(p))) // before the peer can read it
	var n int
	err := net.ErrClosed
	if !d.closed.Load() { // otherwise Close may have seen that nothing was written
		n, err = d.Conn.Write(p)
	}
	wrote.Add(-uint64(len(p) - n))
	if n > 0 {
		d.s.touch()
	}
	return n, d.because(err)
}

// because replaces an error of the conn by its cause: why the session ended, or that the peer reads no more.
func (d *dedicated) because(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if cause := d.cause.Load(); cause != nil {
		return cause
	}
	if d.closed.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return net.ErrClosed
	}
	return err
}

// Reset implements Stream.
func (d *dedicated) Reset(code codes.Code) error {
	if !d.abort(code) {
		d.cutClose()
	}
	return nil
}

// abort resets the stream, and reports false if it has been closed.
func (d *dedicated) abort(code codes.Code) bool {
	if d.closed.Swap(true) {
		return false
	}
	if code == codes.OK || code == codes.Closed {
		code = codes.Cancelled // an orderly close would look like the end of the data
	}
	if d.ends != nil { // the peer's Close must not wait for this side to read on
		d.s.mu.Lock()
		d.ends.sayLocked(true)
		d.s.mu.Unlock()
	}
	drop(d.raw, code)
	_ = d.Conn.SetDeadline(deadline.Past) // wakes whoever waits in the seal
	return true
}
