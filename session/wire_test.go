package session

import (
	"bytes"
	"cmp"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/flow"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/zstd"
)

// wire is a raw peer: it says a hello and then reads and writes frames by hand, so that a test reads as a transcript.
// PING is answered behind the test's back.
type wire struct {
	t    *testing.T
	conn net.Conn
	got  chan got      // frames of the session that the test has not looked at
	gone chan struct{} // closed when the session's end of the carrier is
	read atomic.Int64  // bytes of frames
	s    *Session      // the real side
	a    *Acceptor     // of the real side, if that accepted

	resets *resets // of the carrier, by the session
}

// patient is the heartbeat of a session whose raw peer may leave it without a word for long.
const patient = 10 * time.Second

// got is one frame of the session.
type got struct {
	frame.Header
	body []byte
}

// generous are limits that no test runs into.
var generous = frame.Limits{MaxMessage: 64 << 20, MaxInFlight: 1000, MessageWindow: 1 << 20, MaxStreams: 100, StreamWindow: 1 << 20}

// sayHello does the dialing side's hello and returns the answer.
func sayHello(t *testing.T, conn net.Conn, h *frame.Hello) *frame.Hello {
	t.Helper()
	if h.Kind == 0 {
		h.Kind = frame.KindHello
	}
	if h.Version == 0 {
		h.Version = frame.Version
	}
	require.NoError(t, frame.WriteHello(conn, frame.AppendHello(nil, h)))
	return readHello(t, conn)
}

func readHello(t *testing.T, conn net.Conn) *frame.Hello {
	t.Helper()
	body, err := frame.ReadHello(conn)
	require.NoError(t, err)
	answer, _, err := frame.ConsumeHello(body)
	require.NoError(t, err)
	return answer
}

// accepted returns a raw peer that has dialed a real Acceptor.
func accepted(t *testing.T, cfg AcceptorConfig, caps frame.Caps, limits frame.Limits) *wire {
	t.Helper()
	w := deaf(t, cfg, caps, limits)
	go w.listen()
	return w
}

// deaf is accepted, but reads nothing after the hello until listen runs.
func deaf(t *testing.T, cfg AcceptorConfig, caps frame.Caps, limits frame.Limits) *wire {
	t.Helper()
	opened := make(chan *Session, 1)
	cfg.OnSession = func(s *Session) { opened <- s }
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, patient)
	cfg.Local, cfg.pacer = "bob", zstd.NewPacer()
	a, err := NewAcceptor(&cfg)
	require.NoError(t, err)
	here, there := net.Pipe()
	noted := new(resets)
	go func() { _ = a.Serve(noted.of(there), "raw") }()
	ack := sayHello(t, here, &frame.Hello{Role: frame.RoleSession, Limits: &limits, Caps: caps})
	require.Equal(t, frame.KindAck, ack.Kind)
	w := newWire(t, here, <-opened)
	w.a, w.resets = a, noted
	return w
}

// dialed returns a raw peer that has accepted a real Dial.
func dialed(t *testing.T, cfg Config, caps frame.Caps, limits frame.Limits) *wire {
	t.Helper()
	w := silent(t, cfg, caps, limits)
	go w.listen()
	return w
}

// silent is dialed, but reads nothing after the hello until listen runs.
func silent(t *testing.T, cfg Config, caps frame.Caps, limits frame.Limits) *wire {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		readHello(t, here)
		_ = frame.WriteHello(here, frame.AppendHello(nil, &frame.Hello{Kind: frame.KindAck, Version: frame.Version,
			Caps: caps, Limits: &limits, SessionID: newSessionID()}))
	}()
	cfg.Heartbeat, cfg.pacer = cmp.Or(cfg.Heartbeat, patient), zstd.NewPacer()
	noted := new(resets)
	s, err := Dial(t.Context(), noted.of(there), "raw", nil, &cfg)
	require.NoError(t, err)
	_, err = io.ReadFull(here, make([]byte, frame.HeaderSize)) // the first PING
	require.NoError(t, err)
	w := newWire(t, here, s)
	w.resets = noted
	return w
}

func newWire(t *testing.T, conn net.Conn, s *Session) *wire {
	w := &wire{t: t, conn: conn, s: s, got: make(chan got, 1<<16), gone: make(chan struct{})}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = s.Close()
		<-s.readerDone
		<-s.writerDone
	})
	return w
}

// listen owns the reading side of the raw peer. It ends with the carrier.
func (w *wire) listen() {
	defer close(w.gone)
	r := frame.NewReader(w.conn, func(n int) { w.read.Add(int64(n)) })
	for {
		h, p, err := r.Next()
		if err != nil {
			return
		}
		switch h.Type {
		case frame.TypePing:
			_, _ = w.conn.Write(frame.AppendHeader(nil, frame.Header{Type: frame.TypePong, ID: h.ID}))
		case frame.TypePong:
		default:
			w.got <- got{h, append([]byte(nil), p...)}
		}
	}
}

// send writes one frame.
func (w *wire) send(typ frame.Type, flags frame.Flags, id uint64, payload []byte) {
	w.t.Helper()
	b := frame.AppendHeader(nil, frame.Header{Length: len(payload), Type: typ, Flags: flags, ID: id})
	_, err := w.conn.Write(append(b, payload...))
	require.NoError(w.t, err, "%v %d", typ, id)
}

// push writes one frame and does not care whether the session still takes it.
func (w *wire) push(typ frame.Type, flags frame.Flags, id uint64, payload []byte) {
	b := frame.AppendHeader(nil, frame.Header{Length: len(payload), Type: typ, Flags: flags, ID: id})
	_, _ = w.conn.Write(append(b, payload...))
}

// start makes the payload of a start frame.
func start(typ frame.Type, flags frame.Flags, s frame.Start, body []byte) []byte {
	return append(frame.AppendStart(nil, typ, flags, s), body...)
}

func (w *wire) request(id uint64, link, body string) {
	w.t.Helper()
	w.send(frame.TypeRequest, 0, id, start(frame.TypeRequest, 0, frame.Start{Total: len(body), Link: link}, []byte(body)))
}

func (w *wire) message(id uint64, link, body string) {
	w.t.Helper()
	w.send(frame.TypeMessage, 0, id, start(frame.TypeMessage, 0, frame.Start{Total: len(body), Link: link}, []byte(body)))
}

func (w *wire) respond(id uint64, body string) {
	w.t.Helper()
	w.send(frame.TypeResponse, 0, id, start(frame.TypeResponse, 0, frame.Start{Total: len(body)}, []byte(body)))
}

func (w *wire) failure(typ frame.Type, id uint64, code codes.Code) {
	w.t.Helper()
	w.send(typ, 0, id, frame.AppendFailure(nil, frame.Failure{Code: code}))
}

// want returns the session's next frame, which must be of type typ and id.
func (w *wire) want(typ frame.Type, id uint64) got {
	w.t.Helper()
	select {
	case g := <-w.got:
		require.Equal(w.t, typ, g.Type, "frame %v %d, want %v %d", g.Type, g.ID, typ, id)
		require.Equal(w.t, id, g.ID, "id of %v", typ)
		return g
	case <-time.After(5 * time.Minute):
		require.Fail(w.t, "no frame", "want %v %d", typ, id)
	}
	return got{}
}

// wantFailure is want for a frame whose body is a failure of code.
func (w *wire) wantFailure(typ frame.Type, id uint64, code codes.Code) frame.Failure {
	w.t.Helper()
	g := w.want(typ, id)
	f, err := frame.ConsumeFailure(g.body)
	require.NoError(w.t, err)
	require.Equal(w.t, code, f.Code, "%v %d: %v %q", typ, id, f.Code, f.Text)
	return f
}

// wantNothing fails if the session has sent anything.
func (w *wire) wantNothing() {
	w.t.Helper()
	synctest.Wait()
	select {
	case g := <-w.got:
		require.Fail(w.t, "a frame", "%v %d %q", g.Type, g.ID, g.body)
	default:
	}
}

// wantEnd waits until the session has ended, and returns why.
func (w *wire) wantEnd() *Error {
	w.t.Helper()
	select {
	case <-w.s.Done():
	case <-time.After(time.Hour):
		require.Fail(w.t, "the session lives")
	}
	var e *Error
	require.ErrorAs(w.t, w.s.Err(), &e)
	return e
}

// wantAlive fails unless the session still answers.
func (w *wire) wantAlive() {
	w.t.Helper()
	synctest.Wait()
	require.NoError(w.t, w.s.Err())
}

// wantZero fails unless a session that has ended or is idle holds nothing.
func wantZero(t *testing.T, s *Session) {
	t.Helper()
	if s.carriers.flow != nil {
		time.Sleep(2 * flow.PieceTime) // an idle peer acknowledges the last bytes by then
	}
	synctest.Wait()
	v := s.Snapshot()
	require.Zero(t, v.InFlightIn, "InFlightIn")
	require.Zero(t, v.InFlightOut, "InFlightOut")
	require.Zero(t, v.Streams, "Streams")
	require.Zero(t, s.cfg.Quota.Snapshot().Bytes, "Quota.Bytes")
	require.Zero(t, s.cfg.Quota.Snapshot().Calls, "Quota.Calls")
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Zero(t, s.shared.ours+s.shared.theirs, "mine, theirs: %d %d", s.shared.ours, s.shared.theirs)
	require.Zero(t, s.shared.handlers, "streaming")
	require.Zero(t, s.requests.running, "running")
	require.Empty(t, s.calls.pending)
	require.Zero(t, s.calls.waiting.len())
}

// asError returns err as the package's typed error with the outcome it must have.
func asError(t *testing.T, err error, outcome Outcome) *Error {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, outcome, e.Outcome, "%v", err)
	return e
}

// resets are the codes with which a session has reset its carriers.
type resets struct {
	mu    sync.Mutex
	codes []codes.Code
}

// of returns a carrier whose resets are noted.
func (r *resets) of(conn net.Conn) net.Conn {
	return &fakeConn{Conn: conn, reset: func(code codes.Code) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.codes = append(r.codes, code)
	}}
}

// all returns the codes there have been.
func (r *resets) all() []codes.Code {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.codes)
}

// fakeConn is a conn of optional funcs in front of another.
type fakeConn struct {
	net.Conn
	read  func(p []byte) (int, error)
	write func(p []byte) (int, error)
	reset func(code codes.Code)
}

func (c *fakeConn) Read(p []byte) (int, error) {
	if c.read != nil {
		return c.read(p)
	}
	return c.Conn.Read(p)
}

func (c *fakeConn) Write(p []byte) (int, error) {
	if c.write != nil {
		return c.write(p)
	}
	return c.Conn.Write(p)
}

func (c *fakeConn) Reset(code codes.Code) error {
	if c.reset != nil {
		c.reset(code)
	}
	return c.Conn.Close()
}

// capture keeps what passes through the conns it taps.
type capture struct {
	mu      sync.Mutex
	out, in []byte
}

func (c *capture) tap(conn net.Conn) net.Conn {
	keep := func(to *[]byte, p []byte) {
		c.mu.Lock()
		defer c.mu.Unlock()
		*to = append(*to, p...)
	}
	return &fakeConn{Conn: conn,
		read: func(p []byte) (int, error) {
			n, err := conn.Read(p)
			keep(&c.in, p[:n])
			return n, err
		},
		write: func(p []byte) (int, error) {
			keep(&c.out, p)
			return conn.Write(p)
		},
	}
}

// seen returns copies of what was written and what was read.
func (c *capture) seen() (out, in []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.out), bytes.Clone(c.in)
}
