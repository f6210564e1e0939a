package peerlane

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/budget"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

// How a pool opens a session, for the calls that wait for it or for Connect, and how long it keeps it.

// openingTime bounds opening a session, however many addresses the peer has: libp2p's own bound on dialing one, and ConnectTimeout for each
// of finding a direct connection, the stream, its protocol and the hello.
func (p *pool) openingTime() time.Duration {
	return network.DialPeerTimeout + 4*min(p.cfg.ConnectTimeout, time.Hour)
}

// startOpening begins to open a session for key, in a goroutine that ends within openingTime, or when no caller waits for it any more. p.mu
// is held.
func (p *pool) startOpening(key poolKey) *poolEntry {
	ctx, cancel := context.WithTimeout(p.ctx, p.openingTime())
	ctx, t := withTrail(ctx)
	e := &poolEntry{ready: make(chan struct{}), cancel: cancel, trail: t}
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
	if p.to[key.peer] == nil {
		p.to[key.peer] = make(map[*session.Session]poolKey)
	}
	p.to[key.peer][s] = key
	p.book.hold(key.peer)
	p.careFor(key.peer)
	p.takeDirect(s, key)
	p.ends.follow(s, key.tag)
	context.AfterFunc(s.Context(), func() {
		p.book.release(key.peer)
		if e, ok := errors.AsType[*Error](s.Err()); ok && e.Code != codes.GoingAway { // an OnOpen of the peer's may have said when to come again
			refused := *e
			refused.Op, refused.Outcome = "open", session.NotSent
			p.refused.note(key, &refused)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, s)
		if delete(p.to[key.peer], s); len(p.to[key.peer]) == 0 {
			delete(p.to, key.peer)
		}
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
			return link{}, p.noConnection(key, e.trail)
		}
		err := &Error{Op: "send", Peer: key.peer.String(), Link: string(key.tag), Outcome: session.NotSent, Err: ctx.Err()}
		return link{}, p.carry(key, e.trail, err)
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
	unserved func(error) error) (_ link, err error) {
	ctx, t := withTrail(ctx)
	defer func() { err = p.carry(key, t, err) }()
	for again := false; ; again = true {
		if err := p.refused.check(key); err != nil {
			return link{}, err
		}
		conn, b, tag, err := p.openConn(ctx, &p.dialer, key.peer, tags...)
		if err != nil {
			err = p.carry(key, t, unserved(err))
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
		err = p.carry(key, t, err)
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
	traced, t := withTrail(short)
	l, err := p.openLink(traced, key, keys, []protocol.ID{sessionTag(tag)}, func(err error) error {
		return notServedBy(p.host, key, code, err)
	})
	if err != nil && short.Err() != nil && bound.Err() == nil {
		err = p.noConnection(key, t)
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
