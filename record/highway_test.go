package record_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/resume"
	"github.com/peerlane/peerlane/session"
)

var errNoWay = errors.New("no way there")

// highway is a pair of sessions, "alice" who has dialed and "bob", whose carriers are links that break on command.
type highway struct {
	alice, bob *session.Session
	toAlice    *session.Mux
	toBob      *session.Mux
	acceptor   *session.Acceptor
	serving    sync.WaitGroup
	opts       faultnet.LinkOptions

	mu      sync.Mutex
	links   []*faultnet.Link
	closed  bool                   // no carrier can be opened
	prepare func(l *faultnet.Link) // if not nil, is called with each link
}

// newHighway opens a session. Both sides are closed when the test ends.
func newHighway(t *testing.T, opts faultnet.LinkOptions, cfg session.Config) *highway {
	t.Helper()
	h := &highway{toAlice: session.NewMux(), toBob: session.NewMux(), opts: opts}
	dial, accept := cfg, session.AcceptorConfig{Config: cfg}
	dial.Local, accept.Local = "alice", "bob"
	dial.Mux, accept.Mux = h.toAlice, h.toBob
	dial.Backoff = resume.Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond}
	opened := make(chan *session.Session, 1)
	accept.OnSession = func(s *session.Session) {
		select {
		case opened <- s:
		default:
		}
	}
	var err error
	h.acceptor, err = session.NewAcceptor(&accept)
	require.NoError(t, err)
	first, err := h.open(t.Context(), session.Want{})
	require.NoError(t, err)
	h.alice, err = session.Dial(t.Context(), first, "bob", h.open, &dial)
	require.NoError(t, err)
	h.bob = <-opened
	t.Cleanup(func() {
		_, _ = h.alice.Close(), h.bob.Close()
		<-h.alice.Done()
		<-h.bob.Done()
		h.serving.Wait()
	})
	return h
}

func (h *highway) open(context.Context, session.Want) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errNoWay
	}
	link := faultnet.NewLink(h.opts)
	if h.prepare != nil {
		h.prepare(link)
	}
	h.links = append(h.links, link)
	here, there := link.Ends()
	h.serving.Go(func() { _ = h.acceptor.Serve(there, "alice") })
	return here, nil
}

// lose cuts the newest link, and none can be opened until find.
func (h *highway) lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.links[len(h.links)-1].Cut()
}

func (h *highway) find() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = false
}

// cutEach has the newest link, and each of the next n-1, cut after some bytes.
func (h *highway) cutEach(rng *rand.Rand, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	made := 0
	h.prepare = func(l *faultnet.Link) {
		if made++; made <= n {
			bytes := rng.IntN(600)
			if rng.IntN(3) > 0 {
				bytes = rng.IntN(1 << (8 + rng.IntN(10)))
			}
			l.CutAfter(int64(bytes))
		}
	}
	h.prepare(h.links[len(h.links)-1])
}

// carriers returns how many links there have been.
func (h *highway) carriers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.links)
}

// connect opens a record stream from alice, or from bob, and returns both ends. It is served until the stream is closed.
func (h *highway) connect(t *testing.T, fromBob bool, open, accept *record.Options) (from, to *record.Stream) {
	t.Helper()
	opener, mux := h.alice, h.toBob
	if fromBob {
		opener, mux = h.bob, h.toAlice
	}
	served := make(chan *record.Stream, 1)
	record.Handle(mux, "log", func(record.AcceptInfo) (*record.Options, error) { return accept, nil }, func(s *record.Stream) {
		served <- s
		<-s.Done()
	})
	from, err := record.Open(t.Context(), opener, "log", open)
	require.NoError(t, err)
	to = <-served
	t.Cleanup(func() { _, _ = from.Close(), to.Close() })
	return from, to
}
