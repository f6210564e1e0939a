package oldsession_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/bulk"
	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/oldsession"
	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

func TestMain(m *testing.M) {
	procs.One()
	goleak.VerifyTestMain(m)
}

// A lane is a stream of either kind of side, or a bulk lane.
type lane interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// A side is one side of a session, an old or a new one.
type side interface {
	call(ctx context.Context, link string, body []byte) ([]byte, error)
	send(ctx context.Context, link string, body []byte) error
	flush(ctx context.Context) error
	open(ctx context.Context, kind, name string) (lane, error) // kind: shared, dedicated, resumable
	bulk(ctx context.Context, strands int, zstd bool) (lane, error)
	reset(st lane, code uint32)
	move() error
	close()
	drain()
	done() <-chan struct{}
	err() error
	carriers() int // how many there have been, as far as it knows
}

// handlers are what a side does with what comes.
type handlers struct {
	mu       sync.Mutex
	messages [][]byte
	failures []error

	message func(body []byte) error // nil: keeps it
	stream  func(st lane, name string)
}

// taken returns the messages that have come, and the failures of those of this side.
func (h *handlers) taken() (messages [][]byte, failures []error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.messages), slices.Clone(h.failures)
}

func (h *handlers) onCall(ctx context.Context, link string, body []byte) ([]byte, error) {
	switch link {
	case "echo":
		return body, nil
	case "panic":
		panic("as asked")
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, errors.New("no " + link)
}

func (h *handlers) onMessage(body []byte) error {
	if h.message != nil {
		return h.message(body)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if string(body) == "bad" {
		return errors.New("not this one")
	}
	h.messages = append(h.messages, bytes.Clone(body))
	return nil
}

func (h *handlers) onFailure(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures = append(h.failures, err)
}

func (h *handlers) onStream(st lane, name string) {
	if h.stream != nil {
		h.stream(st, name)
		return
	}
	_, _ = io.Copy(st, st) // the other side sees what is missing
	_ = st.CloseWrite()    // likewise
}

// oldSide is a frozen one.
type oldSide struct {
	*oldsession.Session
}

func (s *oldSide) call(ctx context.Context, link string, body []byte) ([]byte, error) {
	return s.Call(ctx, link, body)
}
func (s *oldSide) send(ctx context.Context, link string, body []byte) error {
	return s.Send(ctx, link, body)
}
func (s *oldSide) flush(ctx context.Context) error { return s.Flush(ctx) }
func (s *oldSide) move() error                     { return s.Move() }
func (s *oldSide) close()                          { s.Close() }
func (s *oldSide) drain()                          { s.Drain() }
func (s *oldSide) done() <-chan struct{}           { return s.Done() }
func (s *oldSide) err() error                      { return s.Err() }

func (s *oldSide) carriers() int {
	n, _ := s.Carriers()
	return n
}

func (s *oldSide) reset(st lane, code uint32) { _ = st.(*oldsession.Stream).Reset(code) }

func (s *oldSide) open(ctx context.Context, kind, name string) (lane, error) {
	open := map[string]func(context.Context, string) (*oldsession.Stream, error){
		"shared": s.OpenStream, "dedicated": s.OpenDedicated, "resumable": s.OpenResumable}[kind]
	st, err := open(ctx, name)
	if err != nil {
		return nil, err
	}
	return st, nil
}

func (s *oldSide) bulk(ctx context.Context, strands int, zstd bool) (lane, error) {
	l, st, err := oldsession.OpenLane(ctx, max(strands, 1), zstd, func(ctx context.Context) (*oldsession.Stream, error) {
		if strands == 0 {
			return s.OpenStream(ctx, "bulk")
		}
		return s.OpenDedicated(ctx, "bulk")
	})
	switch {
	case err != nil:
		return nil, err
	case st != nil:
		return st, nil
	}
	return oldLane{l}, nil
}

type oldLane struct{ *oldsession.Lane }

func (l oldLane) Close() error { return l.CloseWrite() }

// newSide is one of the packages session and bulk.
type newSide struct {
	*session.Session
	mu     sync.Mutex
	count  int
	losses int
}

func (s *newSide) call(ctx context.Context, link string, body []byte) ([]byte, error) {
	m, err := s.SendWait(ctx, link, body)
	if err != nil {
		return nil, err
	}
	return m.Value, nil
}
func (s *newSide) send(ctx context.Context, link string, body []byte) error {
	return s.Send(ctx, link, body)
}
func (s *newSide) flush(ctx context.Context) error { return s.Flush(ctx) }
func (s *newSide) close()                          { _ = s.Close() }
func (s *newSide) drain()                          { s.Drain("") }
func (s *newSide) done() <-chan struct{}           { return s.Done() }
func (s *newSide) err() error                      { return s.Err() }

func (s *newSide) move() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return s.Reconnect(ctx)
}

func (s *newSide) carriers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *newSide) reset(st lane, code uint32) { _ = st.(*session.Stream).Reset(codes.Code(code)) }

func (s *newSide) open(ctx context.Context, kind, name string) (lane, error) {
	st, err := s.OpenStream(ctx, name, &session.StreamOptions{Dedicated: kind != "shared", Resumable: kind == "resumable"})
	if err != nil {
		return nil, err
	}
	return st, nil
}

func (s *newSide) bulk(ctx context.Context, strands int, zstd bool) (lane, error) {
	o := &bulk.Options{Compress: zstd}
	if strands > 0 {
		o.Mode, o.Strands = bulk.Dedicated, strands
	}
	l, err := bulk.Open(ctx, s.Session, "bulk", o)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// codeOf returns the code of an error of either side, 0 if it has none.
func codeOf(err error) uint32 {
	var f *oldsession.Failure
	var e *session.Error
	switch {
	case errors.As(err, &f):
		return f.Code
	case errors.As(err, &e):
		return uint32(e.Code)
	}
	return 0
}

// coded is a link whose ends know resets with a code.
type coded struct {
	*faultnet.Link
	mu   sync.Mutex
	code [2]*uint32
}

// end is one end of it.
type end struct {
	*faultnet.Conn
	of   *coded
	side int
	lost func(code uint32) error // the error of a reset
}

func (e *end) reset(code uint32) error {
	e.of.mu.Lock()
	if e.of.code[e.side] == nil {
		e.of.code[e.side] = &code
	}
	e.of.mu.Unlock()
	_ = e.Close()
	e.of.Cut()
	return nil
}

func (e *end) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	return n, e.because(err)
}

func (e *end) Write(p []byte) (int, error) {
	n, err := e.Conn.Write(p)
	return n, e.because(err)
}

func (e *end) because(err error) error {
	e.of.mu.Lock()
	defer e.of.mu.Unlock()
	if code := e.of.code[1-e.side]; code != nil && errors.Is(err, syscall.ECONNRESET) {
		return e.lost(*code)
	}
	return err
}

type oldEnd struct{ *end }

func (e oldEnd) Reset(code uint32) error { return e.reset(code) }

type newEnd struct{ *end }

func (e newEnd) Reset(code codes.Code) error { return e.reset(uint32(code)) }

// endOf returns an end for an old or a new side.
func endOf(conn *faultnet.Conn, of *coded, side int, old bool) net.Conn {
	e := &end{Conn: conn, of: of, side: side}
	if old {
		e.lost = func(code uint32) error { return &oldsession.ResetError{Code: code} }
		return oldEnd{e}
	}
	e.lost = func(code uint32) error {
		return &session.Error{Op: "read", Remote: true, Code: codes.Code(code), Err: syscall.ECONNRESET}
	}
	return newEnd{e}
}

// terms are what the two sides of a world have in common.
type terms struct {
	link     faultnet.LinkOptions
	limits   session.Config // MaxMessage, MaxInFlight, MessageWindow, MaxStreams, StreamWindow, ReplayWindow of both
	mortal   bool           // no resumption
	oldAlice bool           // alice, who dials, is an old one
	oldBob   bool
	keys     *psk.Keyring
}

// A world is two sides of a session.
type world struct {
	t          *testing.T
	alice, bob side
	at         [2]*handlers // alice's, bob's
	terms      terms
	serving    sync.WaitGroup
	serve      func(net.Conn) error // bob's

	mu      sync.Mutex
	links   []*coded
	blocked bool
	prepare func(i int, l *faultnet.Link) // is called with each new link
}

var testKey = sync.OnceValue(func() *psk.Key {
	k, err := psk.Derive([]byte("a secret of old"), &psk.Params{Time: 1, MemoryKiB: 64, Threads: 1})
	if err != nil {
		panic(err)
	}
	return k
})

// each runs fn with old and new sides that meet in every way, plain and sealed.
func each(t *testing.T, tm terms, fn func(t *testing.T, w *world)) {
	t.Helper()
	testKey() // outside of the bubbles
	for _, name := range []string{"old dials new", "new dials old", "old dials old"} {
		for _, sealed := range []bool{false, true} {
			tm.oldAlice, tm.oldBob = name != "new dials old", name != "old dials new"
			t.Run(fmt.Sprintf("%s, sealed %v", name, sealed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					own := tm
					if sealed {
						var err error
						own.keys, err = psk.NewKeyring(testKey())
						require.NoError(t, err)
					}
					fn(t, meet(t, own))
				})
			})
		}
	}
}

func meet(t *testing.T, tm terms) *world {
	t.Helper()
	w := &world{t: t, terms: tm, at: [2]*handlers{{}, {}}}
	guard := time.AfterFunc(24*time.Hour, func() { debug.SetTraceback("all"); panic("a test does not end") })
	bobs := make(chan side, 1)
	if tm.oldBob {
		a := oldsession.NewAcceptor(w.oldConfig("bob", w.at[1]), func(s *oldsession.Session) { bobs <- &oldSide{s} })
		w.serve = func(conn net.Conn) error { return a.Serve(conn, "alice") }
	} else {
		bob := &newSide{}
		cfg := session.AcceptorConfig{Config: w.newConfig("bob", w.at[1], bob)}
		cfg.OnSession = func(s *session.Session) {
			bob.Session = s
			bobs <- bob
		}
		a, err := session.NewAcceptor(&cfg)
		require.NoError(t, err)
		w.serve = func(conn net.Conn) error { return a.Serve(conn, "alice") }
	}
	first, err := w.open(t.Context())
	require.NoError(t, err)
	if tm.oldAlice {
		s, err := oldsession.Dial(first, "bob", w.open, w.oldConfig("alice", w.at[0]))
		require.NoError(t, err)
		w.alice = &oldSide{s}
	} else {
		alice := &newSide{}
		alice.Session, err = session.Dial(t.Context(), first, "bob", w.openWanted, new(w.newConfig("alice", w.at[0], alice)))
		require.NoError(t, err)
		w.alice = alice
	}
	w.bob = <-bobs
	t.Cleanup(func() {
		w.alice.close()
		w.bob.close()
		<-w.alice.done()
		<-w.bob.done()
		if old, ok := w.alice.(*oldSide); ok {
			old.Wait() // before serving, which it adds to as long as it redials
		}
		w.serving.Wait()
		guard.Stop()
	})
	return w
}

func (w *world) oldConfig(name string, h *handlers) oldsession.Config {
	c, n := oldsession.Config{Local: name, Tag: "/old", Keys: w.terms.keys}, w.terms.limits
	c.Limits = &oldsession.Limits{MaxMessage: or(n.MaxMessage, 32<<20), MaxInFlight: or(n.MaxInFlight, 4096),
		MessageWindow: or(n.MessageWindow, 1<<20), MaxStreams: or(n.MaxStreams, 128), StreamWindow: or(n.StreamWindow, 512<<10)}
	c.Window = n.ReplayWindow
	if w.terms.mortal {
		c.Patience = -1
	}
	c.OnCall = h.onCall
	c.OnMessage = func(_ string, body []byte) error { return h.onMessage(body) }
	c.OnFailure = func(_ string, err error) { h.onFailure(err) }
	lanes := &oldsession.Lanes{}
	c.OnStream = func(st *oldsession.Stream) {
		if st.Name != "bulk" {
			h.onStream(st, st.Name)
			return
		}
		_ = lanes.Serve(st, func(l *oldsession.Lane, plain *oldsession.Stream) { // the other side sees what is missing
			if l == nil {
				h.onStream(plain, "bulk")
			} else {
				h.onStream(oldLane{l}, "bulk")
			}
		})
	}
	return c
}

func or(v, def int) uint32 {
	if v == 0 {
		v = def
	}
	return uint32(v)
}

func (w *world) newConfig(name string, h *handlers, s *newSide) session.Config {
	c := w.terms.limits
	c.Local, c.Tag, c.Keys, c.Mux = name, "/old", w.terms.keys, session.NewMux()
	if w.terms.mortal {
		c.ResumeWindow = -1
	}
	c.OnState = func(_ *session.Session, ch session.StateChange) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch ch.State {
		case session.StateDetached:
			s.losses++
		case session.StateConnected, session.StateResumed, session.StateMigrated:
			s.count++
		}
	}
	c.OnUndelivered = func(err *session.Error) { h.onFailure(err) }
	c.Mux.SetCall(func(m *session.Message) ([]byte, error) { return nil, h.onMessage(m.Value) })
	c.Mux.SetDefaultLink(func(m *session.Message) {
		reply, err := h.onCall(m.Context(), m.Link, m.Value)
		if err != nil {
			_ = m.Refuse(err) // the caller may have gone
			return
		}
		_ = m.Reply(reply) // likewise
	})
	c.Mux.SetDefaultStream(func(st *session.Stream) { h.onStream(st, st.Name()) })
	bulk.Handle(c.Mux, "bulk", nil, func(l *bulk.Lane) { h.onStream(l, "bulk") })
	return c
}

var errNoRoute = errors.New("no route")

func (w *world) openWanted(ctx context.Context, _ session.Want) (net.Conn, error) { return w.open(ctx) }

func (w *world) open(context.Context) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blocked {
		return nil, errNoRoute
	}
	l := &coded{Link: faultnet.NewLink(w.terms.link)}
	if w.prepare != nil {
		w.prepare(len(w.links), l.Link)
	}
	w.links = append(w.links, l)
	a, b := l.Ends()
	here, there := endOf(a, l, 0, w.terms.oldAlice), endOf(b, l, 1, w.terms.oldBob)
	w.serving.Go(func() { _ = w.serve(there) }) // who dials learns of it
	return here, nil
}

// newest returns the newest link.
func (w *world) newest() *coded {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.links[len(w.links)-1]
}

// onLink has fn called with each new link.
func (w *world) onLink(fn func(i int, l *faultnet.Link)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prepare = fn
}

// cut cuts all links that there are.
func (w *world) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.links {
		l.Cut()
	}
}

// ways returns both directions: who opens, and the handlers of the other side.
func (w *world) ways() map[string]way {
	return map[string]way{"from alice": {w.alice, w.at[1], w.at[0]}, "from bob": {w.bob, w.at[0], w.at[1]}}
}

type way struct {
	from     side
	to, back *handlers
}

// pattern returns n bytes, of which a half can be compressed.
func pattern(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, 0, n+64)
	for len(b) < n {
		if rng.IntN(2) == 0 {
			b = append(b, bytes.Repeat([]byte{byte(rng.Uint32())}, 1+rng.IntN(60))...)
		} else {
			for range 1 + rng.IntN(30) {
				b = append(b, byte(rng.Uint32()))
			}
		}
	}
	return b[:n]
}

// pour writes b in pieces and ends the direction.
func pour(st lane, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), 1+len(b)/3)
		if _, err := st.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return st.CloseWrite()
}

// echoes fails unless all of b comes back from the other side, and then its end.
func echoes(t *testing.T, st lane, b []byte) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := pour(st, b); err != nil {
			t.Errorf("write: %v", err)
		}
	})
	got, err := io.ReadAll(st)
	wg.Wait()
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, got), "%d bytes of %d came back, or others", len(got), len(b))
	require.NoError(t, closeOf(st))
}

// closeOf closes a lane. A new side may say that it does not know what an old one has read.
func closeOf(st lane) error {
	err := st.Close()
	if e := (*session.Error)(nil); errors.As(err, &e) && e.Outcome == session.Unknown {
		return nil
	}
	return err
}
