// Package testsession gives tests two sides of a session, over links in memory that break on command.
//
//	p := testsession.New(t, faultnet.LinkOptions{}, session.Config{})
//	p.ToBob.SetStream("echo", serve)
//	st, err := p.Alice.OpenStream(t.Context(), "echo", nil)
//	p.Cut()
//
// It works inside a bubble of testing/synctest.
package testsession

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/faultnet"
	"github.com/peerlane/peerlane/session"
)

// A Pair is two sides of a session, "alice" and "bob". Alice has dialed.
type Pair struct {
	Alice, Bob *session.Session
	ToAlice    *session.Mux // what bob opens
	ToBob      *session.Mux // what alice opens

	acceptor *session.Acceptor
	link     faultnet.LinkOptions
	serving  sync.WaitGroup

	mu     sync.Mutex
	onLink func(*faultnet.Link)
	links  []*faultnet.Link
	opened chan *session.Session
	cfg    session.Config
}

// New opens a session. Both sides are closed when the test ends.
func New(t testing.TB, link faultnet.LinkOptions, cfg session.Config) *Pair {
	t.Helper()
	p := &Pair{ToAlice: session.NewMux(), ToBob: session.NewMux(), link: link, cfg: cfg, opened: make(chan *session.Session, 1)}
	accept := session.AcceptorConfig{Config: cfg}
	accept.Local, accept.Mux = "bob", p.ToBob
	accept.OnSession = func(s *session.Session) { p.opened <- s }
	var err error
	p.acceptor, err = session.NewAcceptor(&accept)
	require.NoError(t, err)
	t.Cleanup(p.serving.Wait) // after the sessions have ended
	p.Alice, p.Bob = p.Dial(t)
	return p
}

// Dial opens one more session of the two. It is closed when the test ends.
func (p *Pair) Dial(t testing.TB) (alice, bob *session.Session) {
	t.Helper()
	dial := p.cfg
	dial.Local, dial.Mux = "alice", p.ToAlice
	first, err := p.open(t.Context(), session.Want{})
	require.NoError(t, err)
	alice, err = session.Dial(t.Context(), first, "bob", p.open, &dial)
	require.NoError(t, err)
	bob = <-p.opened
	t.Cleanup(func() {
		_, _ = alice.Close(), bob.Close()
		<-alice.Done()
		<-bob.Done()
	})
	return alice, bob
}

func (p *Pair) open(context.Context, session.Want) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	link := faultnet.NewLink(p.link)
	p.links = append(p.links, link)
	if p.onLink != nil {
		p.onLink(link)
	}
	here, there := link.Ends()
	p.serving.Go(func() { _ = p.acceptor.Serve(there, "alice") })
	return here, nil
}

// Links returns all links that there have been: those of carriers, and of dedicated streams.
func (p *Pair) Links() []*faultnet.Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*faultnet.Link(nil), p.links...)
}

// OnLink has fn called with every link that is made from now on, before anything crosses it.
func (p *Pair) OnLink(fn func(*faultnet.Link)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onLink = fn
}

// Cut breaks all links that there are.
func (p *Pair) Cut() {
	for _, l := range p.Links() {
		l.Cut()
	}
}
