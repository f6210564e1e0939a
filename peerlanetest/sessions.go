package peerlanetest

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/session"
)

// SessionsOptions are the properties of Sessions.
type SessionsOptions struct {
	// Delay is the time from a Write until its bytes can be read. If zero, none.
	Delay time.Duration
	// Rate is how many bytes per second each direction takes, of all links together. If zero, there is no limit.
	Rate int
	// Queue is how many bytes wait for Rate in each direction. If zero, 64 KiB.
	Queue int
	// Buffer is how many bytes each direction of a link takes without a reader. If zero, 64 KiB.
	Buffer int
	// CutDelivers makes CutAfter deliver what was written before the cut; the error comes after it. If false, what was not read by
	// then is lost.
	CutDelivers bool
	// Wrap, if not nil, returns what stands for the two ends of a link as carriers, as one that is limited or can be reset. here is
	// Alice's. It must not call methods of the Sessions.
	Wrap func(here, there net.Conn) (net.Conn, net.Conn)
	// Config is the configuration of both sides. Local and Mux are set by NewSessions.
	Config session.Config
	// Accept, if not nil, is the configuration of Bob, who accepts. Local, Mux and OnSession are set by NewSessions.
	Accept *session.AcceptorConfig
}

// Sessions are the two sides of a session, without libp2p, over a network in memory. Alice has dialed. They are safe for concurrent use.
type Sessions struct {
	Alice, Bob *session.Session
	ToAlice    *session.Mux // the handlers of what Bob sends and opens
	ToBob      *session.Mux // the handlers of what Alice sends and opens

	acceptor *session.Acceptor
	cfg      session.Config // of Alice
	wrap     func(here, there net.Conn) (net.Conn, net.Conn)
	serving  sync.WaitGroup
	opened   chan *session.Session

	mu     sync.Mutex
	link   faultnet.LinkOptions
	onLink func(*Link)
	links  []*Link
	frozen bool
	refuse bool
}

// NewSessions opens a session. nil options are the zero ones. Both sides are closed in t.Cleanup.
func NewSessions(t testing.TB, o *SessionsOptions) *Sessions {
	t.Helper()
	if o == nil {
		o = &SessionsOptions{}
	}
	p := &Sessions{
		ToAlice: session.NewMux(), ToBob: session.NewMux(), cfg: o.Config, opened: make(chan *session.Session, 1),
		link: faultnet.LinkOptions{Delay: o.Delay, Buffer: o.Buffer, CutDelivers: o.CutDelivers}, wrap: o.Wrap,
	}
	if o.Rate > 0 {
		p.link.Road = faultnet.NewRoad(o.Rate, cmp.Or(o.Queue, queueSize))
	}
	accept := session.AcceptorConfig{Config: o.Config}
	if o.Accept != nil {
		accept = *o.Accept
	}
	accept.Local, accept.Mux = "bob", p.ToBob
	accept.OnSession = func(s *session.Session) { p.opened <- s }
	p.cfg.Local, p.cfg.Mux = "alice", p.ToAlice
	var err error
	if p.acceptor, err = session.NewAcceptor(&accept); err != nil {
		t.Fatalf("peerlanetest: %v", err)
	}
	t.Cleanup(p.serving.Wait) // after the sessions have ended
	p.Alice, p.Bob = p.Dial(t)
	return p
}

// Dial opens one more session of the two, which is closed when t ends.
func (p *Sessions) Dial(t testing.TB) (alice, bob *session.Session) {
	t.Helper()
	first, err := p.open(t.Context(), session.Want{})
	if err == nil {
		alice, err = session.Dial(t.Context(), first, "bob", p.open, &p.cfg)
	}
	if err != nil {
		t.Fatalf("peerlanetest: %v", err)
	}
	bob = <-p.opened
	t.Cleanup(func() {
		_, _ = alice.Close(), bob.Close() // a test closes what it wants to know of
		<-alice.Done()
		<-bob.Done()
	})
	return alice, bob
}

// open is the Opener of Alice.
func (p *Sessions) open(context.Context, session.Want) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse {
		return nil, fmt.Errorf("peerlanetest: dial: %w", syscall.ECONNREFUSED)
	}
	link := &Link{faultnet.NewLink(p.link)}
	if p.frozen {
		link.Freeze()
	}
	p.links = append(p.links, link)
	if p.onLink != nil {
		p.onLink(link)
	}
	here, there := link.Ends()
	if p.wrap != nil {
		here, there = p.wrap(here, there)
	}
	p.serving.Go(func() { _ = p.acceptor.Serve(there, "alice") }) // its error is the session's
	return here, nil
}

// Links returns all links that there have been, in the order of their opening: those of carriers, and of dedicated streams.
func (p *Sessions) Links() []*Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.links)
}

// OnLink makes fn be called with every link that is opened from now on, before anything is written to it. fn must not call methods of p.
func (p *Sessions) OnLink(fn func(*Link)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onLink = fn
}

// Cut breaks all links. Alice can open others, and the session is resumed.
func (p *Sessions) Cut() { p.each(nil, (*Link).Cut) }

// CutAfter breaks each link when n more bytes have been written to it, both directions together.
func (p *Sessions) CutAfter(n int64) { p.each(nil, func(l *Link) { l.CutAfter(n) }) }

// Freeze holds everything on all links, and on those that are opened meanwhile, until Thaw.
func (p *Sessions) Freeze() { p.each(func() { p.frozen = true }, (*Link).Freeze) }

// Thaw ends Freeze.
func (p *Sessions) Thaw() { p.each(func() { p.frozen = false }, (*Link).Thaw) }

// Vanish makes all links silent for good, without an error: only heartbeats notice. Others can be opened.
func (p *Sessions) Vanish() { p.each(nil, (*Link).Vanish) }

// SetDelay sets the delay of what is written from now on, on all links and on those that are opened later.
func (p *Sessions) SetDelay(d time.Duration) {
	p.each(func() { p.link.Delay = d }, func(l *Link) { l.SetDelay(d) })
}

// Refuse makes every attempt of Alice to open a link fail, until it is called with false.
func (p *Sessions) Refuse(on bool) { p.each(func() { p.refuse = on }, func(*Link) {}) }

// each calls change, if it is not nil, and fn with each link, while none is opened.
func (p *Sessions) each(change func(), fn func(*Link)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if change != nil {
		change()
	}
	for _, l := range p.links {
		fn(l)
	}
}
