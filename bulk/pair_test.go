package bulk

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is two sides of a session over links.
type pair struct {
	alice, bob *session.Session // alice has dialed
	toAlice    *session.Mux
	toBob      *session.Mux
	acceptor   *session.Acceptor
	link       faultnet.LinkOptions
	serving    sync.WaitGroup

	mu      sync.Mutex
	links   []*faultnet.Link
	limited bool // further carriers say that they are
	resets  bool // further carriers can be reset
}

// newPair opens a session. Both sides are closed when the test ends.
func newPair(t *testing.T, link faultnet.LinkOptions, cfg session.Config) *pair {
	t.Helper()
	p := &pair{toAlice: session.NewMux(), toBob: session.NewMux(), link: link}
	dial, accept := cfg, session.AcceptorConfig{Config: cfg}
	dial.Local, accept.Local = "alice", "bob"
	dial.Mux, accept.Mux = p.toAlice, p.toBob
	opened := make(chan *session.Session, 1)
	accept.OnSession = func(s *session.Session) { opened <- s }
	var err error
	p.acceptor, err = session.NewAcceptor(&accept)
	require.NoError(t, err)
	first, err := p.open(t.Context(), session.Want{})
	require.NoError(t, err)
	p.alice, err = session.Dial(t.Context(), first, "bob", p.open, &dial)
	require.NoError(t, err)
	p.bob = <-opened
	t.Cleanup(func() {
		_, _ = p.alice.Close(), p.bob.Close()
		<-p.alice.Done()
		<-p.bob.Done()
		p.serving.Wait()
	})
	return p
}

func (p *pair) open(context.Context, session.Want) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	link := faultnet.NewLink(p.link)
	p.links = append(p.links, link)
	here, there := link.Ends()
	if p.resets {
		here, there := resetConn{here}, resetConn{there}
		p.serving.Go(func() { _ = p.acceptor.Serve(there, "alice") })
		return here, nil
	}
	p.serving.Go(func() { _ = p.acceptor.Serve(there, "alice") })
	if p.limited {
		return limitedConn{here}, nil
	}
	return here, nil
}

// limitedConn is a carrier that lets through so much only.
type limitedConn struct{ net.Conn }

func (limitedConn) Limited() bool { return true }

// resetConn is a carrier that can end otherwise than in order.
type resetConn struct{ *faultnet.Conn }

func (c resetConn) Reset(codes.Code) error {
	c.Link().Cut()
	return nil
}

// lanes opens a lane from alice to bob, and returns both ends.
func (p *pair) lanes(t *testing.T, opts *Options) (here, there *Lane) {
	t.Helper()
	got := make(chan *Lane, 1)
	over := make(chan struct{})
	Handle(p.toBob, "lane", nil, func(l *Lane) {
		got <- l
		<-over
	})
	here, err := Open(t.Context(), p.alice, "lane", opts)
	require.NoError(t, err)
	there = <-got
	t.Cleanup(func() {
		_, _ = here.Close(), there.Close()
		close(over)
	})
	return here, there
}

// kinds are the lanes that must behave alike.
var kinds = map[string]*Options{
	"shared":                           nil,
	"shared, compressed":               {Compress: true},
	"dedicated":                        {Mode: Dedicated},
	"dedicated, compressed":            {Mode: Dedicated, Compress: true},
	"dedicated, 4 strands":             {Mode: Dedicated, Strands: 4},
	"dedicated, 3 strands, compressed": {Mode: Dedicated, Strands: 3, Compress: true},
}

// bubble runs fn in virtual time.
func bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}
