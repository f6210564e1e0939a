package session

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
)

// errNoRoute is what opening a carrier fails with while the road is blocked.
var errNoRoute = errors.New("no route")

// road is a pair of sides whose carriers are links that break on command.
type road struct {
	*pair
	serving sync.WaitGroup

	mu      sync.Mutex
	links   []*faultnet.Link
	blocked bool                                              // no carrier can be opened
	opts    faultnet.LinkOptions                              // of the next links
	prepare func(i int, l *faultnet.Link)                     // if not nil, is called with each link, counted from 0
	wrap    func(i int, here, there net.Conn) (h, t net.Conn) // likewise, with its ends
	steps   map[*Session][]StateChange                        // what OnState was told
}

// newRoad opens a session from "alice" to "bob".
func newRoad(t *testing.T, dial Config, accept AcceptorConfig, opts faultnet.LinkOptions) *road {
	t.Helper()
	r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, opts: opts}
	r.dial(dial, accept)
	return r
}

func (r *road) dial(dial Config, accept AcceptorConfig) {
	t := r.t
	t.Helper()
	r.steps = map[*Session][]StateChange{}
	dial.Mux, accept.Mux = r.ours, r.mux
	dial.Local, accept.Local = "alice", "bob"
	if dial.OnState == nil {
		dial.OnState = r.note
	}
	if accept.OnState == nil {
		accept.OnState = r.note
	}
	opened := make(chan *Session, 1)
	accept.OnSession = func(s *Session) {
		select {
		case opened <- s:
		default:
		}
	}
	var err error
	r.acceptor, err = NewAcceptor(&accept)
	require.NoError(t, err)
	first, err := r.open(t.Context(), Want{})
	require.NoError(t, err)
	r.dialer, err = Dial(t.Context(), first, "bob", r.open, &dial)
	require.NoError(t, err)
	r.accepted = <-opened
	t.Cleanup(func() {
		_ = r.dialer.Close()
		_ = r.accepted.Close()
		<-r.dialer.readerDone
		<-r.accepted.readerDone
		r.serving.Wait()
	})
}

func (r *road) note(s *Session, c StateChange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps[s] = append(r.steps[s], c)
}

// states returns the steps that s has told of, once nothing more happens at this time.
func (r *road) states(s *Session) []State {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []State
	for _, c := range r.steps[s] {
		all = append(all, c.State)
	}
	return all
}

func (r *road) open(context.Context, Want) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blocked {
		return nil, errNoRoute
	}
	link := faultnet.NewLink(r.opts)
	if r.prepare != nil {
		r.prepare(len(r.links), link)
	}
	a, b := link.Ends()
	here, there := net.Conn(a), net.Conn(b)
	if r.wrap != nil {
		here, there = r.wrap(len(r.links), here, there)
	}
	r.links = append(r.links, link)
	acceptor := r.acceptor
	r.serving.Go(func() { _ = acceptor.Serve(there, "alice") })
	return here, nil
}

// link returns the link that was opened as number i, from 0, or counted from the newest when i is negative.
func (r *road) link(i int) *faultnet.Link {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i < 0 {
		i += len(r.links)
	}
	return r.links[i]
}

// each calls fn with each link.
func (r *road) each(fn func(*faultnet.Link)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.links {
		fn(l)
	}
}

// block makes opening a carrier fail, or work again.
func (r *road) block(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked = on
}

// set changes how the next links are.
func (r *road) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// lose breaks the newest link and waits until both sides know.
func (r *road) lose() {
	r.t.Helper()
	r.block(true)
	r.link(-1).Cut()
	r.await(r.dialer, StateDetached)
	r.await(r.accepted, StateDetached)
}

// await waits until s is in state.
func (r *road) await(s *Session, state State) {
	r.t.Helper()
	end := time.Now().Add(time.Hour)
	for s.State() != state {
		s.mu.Lock()
		changed := s.awaitChangeLocked()
		now := s.carriers.state
		s.mu.Unlock()
		if now == state {
			return
		}
		select {
		case <-changed:
		case <-time.After(time.Until(end)):
			require.Fail(r.t, "never "+string(state), "it is %v", s.State())
		}
	}
}

// wantLost waits until s has ended, and fails unless it was lost.
func wantLost(t *testing.T, s *Session) *Error {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(time.Hour):
		require.Fail(t, "the session lives", "%v", s.State())
	}
	require.ErrorIs(t, s.Err(), ErrSessionLost)
	var e *Error
	require.ErrorAs(t, s.Err(), &e)
	return e
}

// wantNothingLeft fails unless the accepting side has forgotten everything.
func (r *road) wantNothingLeft() {
	r.t.Helper()
	synctest.Wait()
	require.Empty(r.t, r.acceptor.Sessions())
	require.Zero(r.t, r.acceptor.cfg.Quota.Snapshot().Sessions, "Quota.Sessions")
	wantZero(r.t, r.dialer)
	wantZero(r.t, r.accepted)
}

// codeOf returns the code of err.
func codeOf(t *testing.T, err error) codes.Code {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	return e.Code
}
