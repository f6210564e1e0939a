package peerlane

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

// A pool keeps a Client's sessions: one per peer and tag, opened by the first call that needs it and shared by all.
//
//	none ──get──> opening ──> open ──drained, lost, idle──> none
//	                 └─failed──> none
type pool struct {
	host   host.Host
	cfg    *ClientConfig
	mux    *session.Mux
	dialer Dialer

	mu      sync.Mutex
	keys    *psk.Keyring
	used    bool // a session has been asked for: too late for a key
	closed  bool
	entries map[poolKey]*poolEntry
	old     map[poolKey]chan struct{}    // places for calls to peers that speak pointsub's wire
	own     map[*session.Session]poolKey // those of Connect
	reaper  *time.Timer                  // looks for idle sessions while there are entries
	dials   sync.WaitGroup
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

// link is what a call goes over: a session, or a conn to an old peer.
type link struct {
	session *session.Session
	conn    *Conn
	done    func() // gives back the place of a call to an old peer
}

// maxLegacyCalls bounds the calls at once to one old peer and tag, each of which is a stream of its own: libp2p's default
// resource manager takes 64 and a few more.
const maxLegacyCalls = 48

func newPool(h host.Host, cfg *ClientConfig, mux *session.Mux) *pool {
	return &pool{
		host: h, cfg: cfg, mux: mux,
		dialer:  Dialer{Host: h, Path: cfg.Path, DirectWait: cfg.DirectWait, Timeout: cfg.ConnectTimeout},
		entries: make(map[poolKey]*poolEntry),
		old:     make(map[poolKey]chan struct{}),
		own:     make(map[*session.Session]poolKey),
	}
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

// get returns what a call to key goes over, and whether it was open before.
func (p *pool) get(ctx context.Context, pid peer.ID, tag protocol.ID) (l link, kept bool, err error) {
	key := poolKey{pid, tag}
	p.mu.Lock()
	p.used = true
	if p.closed {
		p.mu.Unlock()
		return link{}, false, stopped("send", pid, tag)
	}
	e := p.entries[key]
	if e != nil && e.isOpen() {
		if !e.link.session.Draining() {
			p.mu.Unlock()
			return e.link, true, nil
		}
		delete(p.entries, key)
		e = nil
	}
	if e == nil {
		if places := p.old[key]; places != nil {
			p.mu.Unlock()
			return p.getLegacy(ctx, key, places)
		}
		e = p.startOpening(key)
	}
	e.waiters++
	p.mu.Unlock()
	return p.await(ctx, key, e)
}

// isOpen reports whether the opening is done and brought a session. p.mu is held.
func (e *poolEntry) isOpen() bool {
	select {
	case <-e.ready:
		return e.link.session != nil
	default:
		return false
	}
}

// startOpening begins to open a session for key, in a goroutine that ends within ConnectTimeout, or when nobody waits for
// it any more. p.mu is held.
func (p *pool) startOpening(key poolKey) *poolEntry {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.ConnectTimeout)
	e := &poolEntry{ready: make(chan struct{}), cancel: cancel}
	p.entries[key] = e
	p.dials.Go(func() {
		defer cancel()
		l, err := p.open(ctx, key)
		p.finishOpening(key, e, l, err)
	})
	return e
}

// finishOpening makes what was opened known to those who wait.
func (p *pool) finishOpening(key poolKey, e *poolEntry, l link, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed && err == nil {
		go l.drop()
		l, err = link{}, stopped("send", key.peer, key.tag)
	}
	e.link, e.err = l, err
	close(e.ready)
	if l.session == nil && p.entries[key] == e {
		delete(p.entries, key)
	}
	if l.conn != nil {
		p.old[key] = make(chan struct{}, maxLegacyCalls)
		go l.drop() // it told what the peer speaks; each call opens its own
		e.link.conn = nil
		return
	}
	if l.session != nil && p.reaper == nil {
		p.reaper = time.AfterFunc(p.cfg.IdleConnTimeout/4, p.reap)
	}
}

// drop ends a link that nobody has used.
func (l link) drop() {
	if l.session != nil {
		_ = l.session.Close() // never fails
	}
	if l.conn != nil {
		_ = l.conn.Close() // nothing has been sent on it
	}
}

// await waits until e is open.
func (p *pool) await(ctx context.Context, key poolKey, e *poolEntry) (link, bool, error) {
	select {
	case <-e.ready:
	case <-ctx.Done():
		p.leave(key, e)
		return link{}, false, &Error{Op: "send", Peer: key.peer.String(), Link: string(key.tag), Outcome: session.NotSent, Err: ctx.Err()}
	}
	if e.err != nil {
		return link{}, false, e.err
	}
	if e.link.session != nil {
		return e.link, false, nil
	}
	p.mu.Lock()
	places := p.old[key]
	p.mu.Unlock()
	return p.getLegacy(ctx, key, places)
}

// leave gives up an opening that nobody else waits for.
func (p *pool) leave(key poolKey, e *poolEntry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.waiters--; e.waiters == 0 && p.entries[key] == e && !e.isOpen() {
		delete(p.entries, key)
		e.cancel()
	}
}

// open connects to key and opens a session, or finds that the peer is an old one.
func (p *pool) open(ctx context.Context, key poolKey) (link, error) {
	keys := p.currentKeys()
	tags := []protocol.ID{sessionTag(key.tag)}
	if keys == nil {
		tags = append(tags, key.tag)
	}
	conn, tag, err := p.dialer.open(ctx, key.peer, tags...)
	if err != nil {
		if keys != nil {
			err = notServedBy(p.host, key.peer, key.tag, err)
		}
		return link{}, err
	}
	if tag == key.tag {
		return link{conn: conn}, nil
	}
	s, err := p.greet(ctx, conn, key, keys)
	return link{session: s}, err
}

// greet opens a session on conn.
func (p *pool) greet(ctx context.Context, conn *Conn, key poolKey, keys *psk.Keyring) (*session.Session, error) {
	cfg := p.cfg.sessionConfig(p.mux)
	cfg.Local, cfg.Keys = p.host.ID().String(), keys
	reopen := func(ctx context.Context) (net.Conn, error) {
		c, _, err := p.dialer.open(ctx, key.peer, sessionTag(key.tag))
		if err != nil {
			return nil, err
		}
		return carrier{c}, nil
	}
	return session.Dial(ctx, carrier{conn}, key.peer.String(), reopen, cfg)
}

// getLegacy opens a conn for one call to a peer that spoke pointsub's wire when it was last asked. A peer that has learnt
// sessions meanwhile is remembered as such.
func (p *pool) getLegacy(ctx context.Context, key poolKey, places chan struct{}) (link, bool, error) {
	select {
	case places <- struct{}{}:
	case <-ctx.Done():
		return link{}, false, &Error{Op: "send", Peer: key.peer.String(), Link: string(key.tag), Outcome: session.NotSent, Err: ctx.Err()}
	}
	release := func() { <-places }
	conn, tag, err := p.dialer.open(ctx, key.peer, sessionTag(key.tag), key.tag)
	if err != nil {
		release()
		return link{}, false, err
	}
	if tag == key.tag {
		return link{conn: conn, done: release}, false, nil
	}
	release()
	_ = conn.Close() // get opens the session
	p.mu.Lock()
	delete(p.old, key)
	p.mu.Unlock()
	return p.get(ctx, key.peer, key.tag)
}

// connect opens a session that the pool does not share.
func (p *pool) connect(ctx context.Context, pid peer.ID, tag protocol.ID) (*session.Session, error) {
	key := poolKey{pid, tag}
	p.mu.Lock()
	p.used = true
	keys, closed := p.keys, p.closed
	p.mu.Unlock()
	if closed {
		return nil, stopped("connect", pid, tag)
	}
	conn, _, err := p.dialer.open(ctx, pid, sessionTag(tag))
	if err != nil {
		return nil, notServedBy(p.host, pid, tag, err)
	}
	s, err := p.greet(ctx, conn, key, keys)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		go func() { _ = s.Close() }() // never fails
		return nil, stopped("connect", pid, tag)
	}
	p.own[s] = key
	context.AfterFunc(s.Context(), func() { p.forget(s) })
	return s, nil
}

// forget takes a session of Connect that has ended out of the books.
func (p *pool) forget(s *session.Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.own, s)
}

// reap closes the sessions that have been idle for IdleConnTimeout, and those over MaxIdleConns, the longest idle first.
func (p *pool) reap() {
	p.mu.Lock()
	idle := p.idleLocked()
	now := time.Now()
	var over []poolKey
	for i, v := range idle {
		if now.Sub(v.since) >= p.cfg.IdleConnTimeout || i < len(idle)-p.cfg.MaxIdleConns {
			over = append(over, v.key)
		}
	}
	drained := p.takeLocked(over)
	if p.reaper != nil {
		if len(p.entries) == 0 || p.closed {
			p.reaper.Stop()
			p.reaper = nil
		} else {
			p.reaper.Reset(max(p.cfg.IdleConnTimeout/4, time.Millisecond))
		}
	}
	p.mu.Unlock()
	for _, s := range drained {
		s.Drain("idle")
	}
}

// idleEntry is a session with nothing in flight.
type idleEntry struct {
	key   poolKey
	since time.Time
}

// idleLocked returns the idle sessions, the longest idle first, and forgets those that have ended.
func (p *pool) idleLocked() []idleEntry {
	var idle []idleEntry
	for key, e := range p.entries {
		if !e.isOpen() {
			continue
		}
		if e.link.session.Draining() {
			delete(p.entries, key)
			continue
		}
		if since, ok := e.link.session.IdleSince(); ok {
			idle = append(idle, idleEntry{key, since})
		}
	}
	slices.SortFunc(idle, func(x, y idleEntry) int { return x.since.Compare(y.since) })
	return idle
}

// takeLocked takes the sessions of keys out of the pool.
func (p *pool) takeLocked(keys []poolKey) []*session.Session {
	var taken []*session.Session
	for _, key := range keys {
		taken = append(taken, p.entries[key].link.session)
		delete(p.entries, key)
	}
	return taken
}

// info returns the open sessions, those of Connect too.
func (p *pool) info(now time.Time) []ConnectionInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []ConnectionInfo
	for key, e := range p.entries {
		if e.isOpen() && e.link.session.Err() == nil {
			all = append(all, sessionInfo(e.link.session, key.peer, key.tag, now))
		}
	}
	for s, key := range p.own {
		all = append(all, sessionInfo(s, key.peer, key.tag, now))
	}
	return all
}

// close ends everything, and waits for it.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	var open []*session.Session
	for _, e := range p.entries {
		if e.isOpen() {
			open = append(open, e.link.session)
		} else {
			e.cancel()
		}
	}
	for s := range p.own {
		open = append(open, s)
	}
	clear(p.entries)
	if p.reaper != nil {
		p.reaper.Stop()
	}
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range open {
		wg.Go(func() { _ = s.Close() }) // never fails
	}
	wg.Wait()
	p.dials.Wait()
}
