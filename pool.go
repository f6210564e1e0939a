package peerlane

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
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
	old     map[poolKey]chan struct{}       // places for calls to peers that speak pointsub's wire
	open    map[*session.Session]poolKey    // every session that has not ended, including draining ones and those of Connect
	reaper  *time.Timer                     // looks for idle sessions while there are entries
	budgets map[network.Conn]*budget.Budget // of connections through limited relays
	moving  map[*session.Session]bool       // for which moveToDirect runs
	ends    endings                         // of sessions
	failed  registry.Ring                   // sessions that were not opened
	refused refusals                        // hints of peers that take no sessions now
	cares   cares                           // of the connections to peers; see pool_care.go. Its lock comes after mu
	tasks   sync.WaitGroup                  // openings, and goroutines that move sessions to a better carrier

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
	return &Error{Op: "send", Peer: key.peer.String(), Link: string(key.tag), Outcome: session.NotSent,
		Text: "the session has lost its connection and has no other yet", Err: cause}
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

// openingTime bounds opening a session, however many addresses the peer has: libp2p's own bound on dialing one, and ConnectTimeout for each
// of finding a direct connection, the stream, its protocol and the hello.
func (p *pool) openingTime() time.Duration {
	return network.DialPeerTimeout + 4*min(p.cfg.ConnectTimeout, time.Hour)
}

// startOpening begins to open a session for key, in a goroutine that ends within openingTime, or when no caller waits for it any more. p.mu
// is held.
func (p *pool) startOpening(key poolKey) *poolEntry {
	ctx, cancel := context.WithTimeout(p.ctx, p.openingTime())
	e := &poolEntry{ready: make(chan struct{}), cancel: cancel}
	p.entries[key] = e
	p.crowded.Store(len(p.entries) > p.cfg.MaxIdleConns)
	p.tasks.Go(func() {
		defer cancel()
		l, err := p.dial(ctx, key)
		p.finishOpening(key, e, l, err).drop()
	})
	return e
}

// finishOpening gives the opened link to the waiters, and returns a link to drop.
func (p *pool) finishOpening(key poolKey, e *poolEntry, l link, err error) (unused link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		unused, l, err = l, link{}, stopped("send", key.peer, key.tag)
	}
	if l.session != nil && p.entries[key] != e { // all waiters have left: the session would not be found again
		unused, l, err = l, link{}, context.Canceled
	}
	if l.conn != nil { // it showed what the peer speaks; each call opens its own
		unused, l = l, link{}
		p.old[key] = make(chan struct{}, maxLegacyCalls)
	}
	e.link, e.err = l, err
	defer close(e.ready) // when the session is kept: its first call is measured too
	if l.session == nil {
		if p.entries[key] == e {
			delete(p.entries, key)
		}
		return unused
	}
	p.keep(l.session, key)
	if p.reaper == nil {
		p.reaper = time.AfterFunc(p.reapInterval(), p.reap)
	}
	return unused
}

// keep registers a session until it has ended. p.mu is held.
func (p *pool) keep(s *session.Session, key poolKey) {
	p.open[s] = key
	p.book.hold(key.peer)
	p.careFor(key.peer)
	p.takeDirect(s, key)
	p.ends.follow(s, key.tag)
	context.AfterFunc(s.Context(), func() {
		p.book.release(key.peer)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, s)
	})
}

// drop ends an unused link.
func (l link) drop() {
	if l.session != nil {
		_ = l.session.Close() // nothing has been sent on it
	}
	if l.conn != nil {
		_ = l.conn.Close() // nothing has been sent on it
	}
}

// await waits until e is open.
func (p *pool) await(ctx context.Context, key poolKey, e *poolEntry, w *wait) (link, error) {
	short, done := w.begin(ctx, p, key.peer)
	select {
	case <-e.ready:
		done()
	case <-short.Done():
		done()
		p.leave(key, e)
		if ctx.Err() == nil {
			return link{}, p.noConnection(key.peer)
		}
		return link{}, &Error{Op: "send", Peer: key.peer.String(), Link: string(key.tag), Outcome: session.NotSent, Err: ctx.Err()}
	}
	if e.err != nil {
		return link{}, e.err
	}
	if e.link.session != nil {
		return e.link, nil
	}
	p.mu.Lock()
	places := p.old[key]
	p.mu.Unlock()
	if places == nil { // another caller has found meanwhile that the peer supports sessions now
		return p.get(ctx, key.peer, key.tag, w)
	}
	return p.getLegacy(ctx, key, places, w)
}

// leave gives up an opening without other waiters.
func (p *pool) leave(key poolKey, e *poolEntry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.waiters--; e.waiters == 0 && p.entries[key] == e && !e.isOpen() {
		delete(p.entries, key)
		e.cancel()
	}
}

// dial connects to key and opens a session, or finds that the peer is an old one.
func (p *pool) dial(ctx context.Context, key poolKey) (link, error) {
	p.watchOnce.Do(p.watch)
	keys := p.currentKeys()
	tags := []protocol.ID{sessionTag(key.tag)}
	if keys == nil {
		tags = append(tags, key.tag)
	}
	return p.openLink(ctx, key, keys, tags, func(err error) error {
		if keys != nil {
			err = notServedBy(p.host, key, codes.PSKRequired, err)
		}
		return err
	})
}

// openLink opens a session, or a conn on the plain tag. It calls unserved with the error of a failed dial. A connection that closes during
// the hello, such as a relay's that is being left, is tried again once: nothing has been sent. A peer that has refused a session and said
// for how long is not dialed before.
func (p *pool) openLink(ctx context.Context, key poolKey, keys *psk.Keyring, tags []protocol.ID,
	unserved func(error) error) (link, error) {
	for again := false; ; again = true {
		if err := p.refused.check(key); err != nil {
			return link{}, err
		}
		conn, b, tag, err := p.openConn(ctx, &p.dialer, key.peer, tags...)
		if err != nil {
			err = unserved(err)
			p.noteFailed(ctx, key, Path{}, err)
			return link{}, err
		}
		if tag == key.tag {
			return link{conn: conn}, nil
		}
		s, err := p.greet(ctx, conn, b, key, keys)
		if err == nil {
			return link{session: s}, nil
		}
		p.refused.note(key, err)
		p.noteFailed(ctx, key, conn.Path(), err)
		if again || ctx.Err() != nil || conn.under == nil || !conn.under.IsClosed() {
			return link{}, err
		}
	}
}

// greet opens a session on conn.
func (p *pool) greet(ctx context.Context, conn *Conn, b *budget.Budget, key poolKey, keys *psk.Keyring) (*session.Session, error) {
	mux := p.mux
	if keys == nil && !p.cfg.AdmitAll {
		mux = p.guarded
	}
	cfg := p.cfg.sessionConfig(mux)
	cfg.Quota = p.quota
	cfg.Local, cfg.Tag, cfg.Keys = p.host.ID().String(), string(key.tag), keys
	cfg.OnState = p.onState(key)
	cfg.OtherPath = func(s *session.Session) bool { return p.suspect(s, key) }
	reopen := func(ctx context.Context, want session.Want) (net.Conn, error) { return p.reopen(ctx, want, key) }
	s, err := session.Dial(ctx, newCarrier(conn, b, p.host), key.peer.String(), reopen, &cfg)
	if e, ok := errors.AsType[*Error](err); ok && e.Remote && e.Code == codes.GoingAway { // the peer only waits for its sessions to end
		e.Err = ErrNotServed
	}
	return s, err
}

// connect opens a session that the pool does not share. It waits for a connection as w allows.
func (p *pool) connect(ctx context.Context, pid peer.ID, tag protocol.ID, w *wait) (*session.Session, error) {
	key := poolKey{pid, tag}
	p.mu.Lock()
	p.used = true
	keys, closed := p.keys, p.closed
	p.mu.Unlock()
	if closed {
		return nil, stopped("connect", pid, tag)
	}
	p.watchOnce.Do(p.watch)
	bound, cancel := p.bound(ctx)
	defer cancel()
	bound, cancel = context.WithTimeout(bound, p.openingTime())
	defer cancel()
	short, done := w.begin(bound, p, pid)
	code := codes.Unsupported
	if keys != nil {
		code = codes.PSKRequired
	}
	l, err := p.openLink(short, key, keys, []protocol.ID{sessionTag(tag)}, func(err error) error {
		return notServedBy(p.host, key, code, err)
	})
	if err != nil && short.Err() != nil && bound.Err() == nil {
		err = p.noConnection(pid)
	}
	done()
	if err != nil {
		return nil, p.because(ctx, err, "connect", key)
	}
	s := l.session
	p.mu.Lock()
	closed = p.closed
	if !closed {
		p.keep(s, key)
	}
	p.mu.Unlock()
	if closed {
		_ = s.Close() // nothing has been sent on it
		return nil, stopped("connect", pid, tag)
	}
	return s, nil
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
