package peerlane

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/internal/budget"
	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

// A pool keeps a Client's sessions: one per peer and tag, opened by the first call that needs it and shared by all.
//
//	none ──get──> opening ──> open ──drained, lost, idle──> none
//	                 └─failed──> none
type pool struct {
	host    host.Host
	cfg     *ClientConfig
	mux     *session.Mux
	guarded *session.Mux   // for sessions with whoever answers, where nobody is admitted
	quota   *session.Quota // bounds the work and memory that peers may cause on this side
	dialer  Dialer
	ctx     context.Context // ends with close
	end     context.CancelFunc

	mu      sync.Mutex
	keys    *psk.Keyring
	used    bool // a session has been requested: too late to set a key
	closed  bool
	entries map[poolKey]*poolEntry
	old     map[poolKey]chan struct{}                // places for calls to peers that speak pointsub's wire
	open    map[*session.Session]poolKey             // every session that has not ended, including draining ones and those of Connect
	to      map[peer.ID]map[*session.Session]poolKey // the same, by peer
	reaper  *time.Timer                              // looks for idle sessions while there are entries
	budgets map[network.Conn]*budget.Budget          // of connections through limited relays
	moving  map[*session.Session]bool                // for which moveToDirect runs
	ends    endings                                  // of sessions
	failed  registry.Ring                            // sessions that were not opened
	refused refusals                                 // hints of peers that take no sessions now
	cares   cares                                    // of the connections to peers; see pool_care.go. Its lock comes after mu
	tasks   sync.WaitGroup                           // openings, and goroutines that move sessions to a better carrier

	watchOnce sync.Once   // of watch, at the first session
	book      *addrBook   // set by watch; nil when the pool was closed before
	crowded   atomic.Bool // there may be more than MaxIdleConns entries
}

type poolKey struct {
	peer peer.ID
	tag  protocol.ID
}

// poolEntry is the session of one key, from the moment it is being opened.
type poolEntry struct {
	ready   chan struct{} // closed when the opening is done
	waiters int           // callers that wait for it
	cancel  context.CancelFunc
	trail   *trail // of the opening

	// Set before ready is closed.
	link link
	err  error
}

// link carries a call: a session, or a conn to an old peer.
type link struct {
	session *session.Session
	conn    *Conn
	done    func() // releases the place of a call to an old peer
}

// Limits for the work and memory that peers may cause by calling back on a client's sessions.
const (
	maxPeerCalls = 1000
	maxPeerBytes = 1 << 30
)

func newPool(h host.Host, cfg *ClientConfig, mux *session.Mux) *pool {
	p := &pool{
		host: h, cfg: cfg, mux: mux, quota: &session.Quota{MaxCalls: maxPeerCalls, MaxBytes: maxPeerBytes},
		dialer:  Dialer{Host: h, Path: cfg.Path, DirectWait: cfg.DirectWait, Timeout: -1, step: cfg.ConnectTimeout},
		entries: make(map[poolKey]*poolEntry),
		old:     make(map[poolKey]chan struct{}),
		open:    make(map[*session.Session]poolKey),
		to:      make(map[peer.ID]map[*session.Session]poolKey),
		budgets: make(map[network.Conn]*budget.Budget),
		moving:  make(map[*session.Session]bool),
	}
	p.guarded = mux.Child()
	p.guarded.Guard(errSendsOnly)
	p.ctx, p.end = context.WithCancel(context.Background())
	p.cares.all, p.cares.ping = make(map[peer.ID]*care), isAnswered
	p.dialer.chosen = p.chosen
	p.refused.most = cfg.ConnectTimeout
	return p
}

// useKeys sets the key before the first use.
func (p *pool) useKeys(keys *psk.Keyring) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used {
		return ErrPSKTooLate
	}
	p.keys = keys
	return nil
}

func (p *pool) currentKeys() *psk.Keyring {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys
}

// stopped is the error of a closed client.
func stopped(op string, pid peer.ID, tag protocol.ID) *Error {
	return &Error{Op: op, Peer: pid.String(), Link: string(tag), Outcome: session.NotSent, Err: ErrStopped}
}

// sleep waits for d. It returns ctx's error, or that of a closed client.
func (p *pool) sleep(ctx context.Context, d time.Duration, pid peer.ID, tag protocol.ID) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.ctx.Done():
		return stopped("send", pid, tag)
	}
}

// bound returns a ctx that ends with ctx and with the pool.
func (p *pool) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	unwatch := context.AfterFunc(p.ctx, cancel)
	return ctx, func() { unwatch(); cancel() }
}

// because returns the error of a closed client if that, and not ctx, caused err.
func (p *pool) because(ctx context.Context, err error, op string, key poolKey) error {
	if err != nil && ctx.Err() == nil && p.ctx.Err() != nil {
		return stopped(op, key.peer, key.tag)
	}
	return err
}

// kept returns the session that a call may use at once, or nothing.
func (p *pool) kept(pid peer.ID, tag protocol.ID) link {
	p.mu.Lock()
	e := p.entries[poolKey{pid, tag}]
	open := e != nil && !p.closed && e.isOpen()
	p.mu.Unlock()
	if !open || e.link.session.Draining() || e.link.session.State() == session.StateDetached {
		return link{}
	}
	return e.link
}

// get returns the link for a call to key. It waits for a connection as w allows.
func (p *pool) get(ctx context.Context, pid peer.ID, tag protocol.ID, w *wait) (link, error) {
	key := poolKey{pid, tag}
	p.mu.Lock()
	p.used = true
	if p.closed {
		p.mu.Unlock()
		return link{}, stopped("send", pid, tag)
	}
	e := p.entries[key]
	if e != nil && e.isOpen() {
		if s := e.link.session; !s.Draining() {
			p.mu.Unlock()
			return e.link, p.awaitCarrier(ctx, s, key, w)
		}
		delete(p.entries, key)
		e = nil
	}
	if e == nil {
		if places := p.old[key]; places != nil {
			p.mu.Unlock()
			return p.getLegacy(ctx, key, places, w)
		}
		e = p.startOpening(key)
	}
	e.waiters++
	p.mu.Unlock()
	return p.await(ctx, key, e, w)
}

// awaitCarrier waits until a session that has lost its carrier has another, as a call that has to connect does. The session starts to look
// for one at once.
func (p *pool) awaitCarrier(ctx context.Context, s *session.Session, key poolKey, w *wait) error {
	if s.State() != session.StateDetached {
		return nil
	}
	s.Probe()
	began := time.Now()
	short, cancel := context.WithTimeout(ctx, w.left())
	defer cancel()
	err := s.AwaitCarrier(short)
	w.spent += time.Since(began)
	if err == nil || s.Err() != nil { // a call reports what became of the session
		return nil
	}
	var cause error = ErrUnreachable
	if ctx.Err() != nil {
		cause = ctx.Err()
	}
	return p.carry(key, &trail{began: began}, &Error{Op: "send", Peer: key.peer.String(), Link: string(key.tag), Outcome: session.NotSent,
		Text: "the session has lost its connection and has no other yet", Err: cause})
}

// isOpen reports whether the opening is complete and gave a session. p.mu is held.
func (e *poolEntry) isOpen() bool {
	select {
	case <-e.ready:
		return e.link.session != nil
	default:
		return false
	}
}

// info returns the open sessions, including draining ones and those of Connect.
func (p *pool) info(now time.Time) []ConnectionInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []ConnectionInfo
	for s, key := range p.open {
		if s.Err() == nil {
			all = append(all, sessionInfo(s, key.peer, key.tag, now))
		}
	}
	return all
}
