package peerlane

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/session"
)

// A servedTag is one tag of a Server: a listener for its sessions, and one for old peers' calls unless a key is in force.
type servedTag struct {
	server   *Server
	tag      protocol.ID
	handler  Handler // nil: Listen
	mux      *session.Mux
	acceptor *session.Acceptor
	sessions *Listener
	legacy   *Listener // nil: not served

	wg sync.WaitGroup // accept loops, carriers, legacy calls, and the Closes of idle sessions

	mu    sync.Mutex
	down  bool                          // wg is waited for: nothing that it does not count may enter
	idle  map[*session.Session]struct{} // those that are being closed as idle
	calls map[*legacyCall]struct{}
	peers map[peer.ID]int                   // of calls
	lost  map[*session.Session]network.Conn // what the sessions that are detached were on
	hooks map[*session.Session]*pathHook    // of the open sessions, if OnPath is set
}

func cmpTags(x, y protocol.ID) int { return cmp.Compare(x, y) }

// maxLegacyPerPeer bounds the calls of one old peer at once; libp2p's default resource manager comes first.
const maxLegacyPerPeer = 128

// serve starts serving tag; handler is nil for Listen.
func (s *Server) serve(tag protocol.ID, handler Handler) error {
	if err := validateTag("tag", tag); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return ErrStopped
	}
	if isClosed(hostDone(s.host)) {
		return hostClosed("start", nil)
	}
	if s.tags[tag] != nil {
		return &Error{Op: "start", Link: string(tag), Err: ErrInUse}
	}
	t, err := s.newTag(tag, handler)
	if err != nil {
		return err
	}
	if err := t.listen(); err != nil {
		return err
	}
	s.tags[tag] = t
	s.ends.expect(tag)
	if !s.watched {
		s.watched = true
		go s.watchHost()
	}
	if s.reaper == nil {
		s.reaper = time.AfterFunc(s.reapInterval(), s.reap)
	}
	return nil
}

// newTag returns the tag, not yet listening. s.mu is held.
func (s *Server) newTag(tag protocol.ID, handler Handler) (*servedTag, error) {
	t := &servedTag{server: s, tag: tag, handler: handler, idle: make(map[*session.Session]struct{}),
		calls: make(map[*legacyCall]struct{}), peers: make(map[peer.ID]int),
		lost: make(map[*session.Session]network.Conn), hooks: make(map[*session.Session]*pathHook)}
	mux := s.muxLocked(tag).Child()
	t.mux = mux
	if handler != nil {
		mux.SetCall(t.answer)
	}
	if !s.admitsLocked() {
		mux.Guard(errCallsOnly)
	}
	cfg := s.cfg.sessionConfig(mux, s.quota)
	cfg.OnState = t.onState
	cfg.Local, cfg.Tag, cfg.Keys = s.host.ID().String(), string(tag), s.keys
	var err error
	t.acceptor, err = session.NewAcceptor(&session.AcceptorConfig{Config: cfg, Admit: s.admit,
		OnSession: func(c *session.Session) { s.ends.follow(c, tag) }})
	return t, err
}

// maxBurst bounds how many conns wait for an accept loop, which has room for them from the start. The loop only has to be scheduled.
const maxBurst = 1 << 14

// listen starts the listeners and their accept loops, which end when unlisten closes them.
func (t *servedTag) listen() error {
	s := t.server
	config := ListenConfig{Backlog: min(max(defaultBacklog, s.cfg.MaxConcurrentConns), maxBurst)} // all peers may come back at once
	var err error
	if t.sessions, err = config.listen(s.host, sessionTag(t.tag), nil); err != nil {
		return err
	}
	if t.handler != nil && s.keys == nil {
		if t.legacy, err = config.listen(s.host, t.tag, nil); err != nil {
			return errors.Join(err, t.sessions.Close())
		}
		t.wg.Go(func() { t.accept(t.legacy, t.serveLegacy) })
	}
	t.wg.Go(func() { t.accept(t.sessions, t.serveSession) })
	return nil
}

// accept serves each conn of l in a goroutine of its own, which wg counts until it ends or calls left. It ends when l is closed.
func (t *servedTag) accept(l *Listener, serve func(conn *Conn, left func())) {
	for {
		conn, err := l.accept()
		if err != nil {
			return
		}
		t.wg.Add(1)
		left := sync.OnceFunc(t.wg.Done)
		go func() {
			defer left()
			serve(conn, left)
		}()
	}
}

// serveSession serves a carrier to its end.
func (t *servedTag) serveSession(conn *Conn, _ func()) {
	if err := t.acceptor.Serve(newCarrier(conn, t.server.budgetOf(conn), t.server.host), conn.RemotePeer().String()); err != nil {
		t.noteRefused(conn, err)
		t.server.log.Info("carrier refused", "tag", t.tag, "peer", conn.RemotePeer(), "err", err)
	}
}

func (t *servedTag) serveLegacy(conn *Conn, left func()) {
	if err := t.server.admit(conn.RemotePeer().String()); err != nil {
		t.noteRefused(conn, err)
		conn.resetWith(codes.NotAllowed)
		return
	}
	if err := t.server.serveLegacy(t, conn, left); err != nil {
		t.server.log.Info("legacy call failed", "tag", t.tag, "peer", conn.RemotePeer(), "err", err)
	}
}

// answer runs the tag's handler for one call of a session.
func (t *servedTag) answer(m *session.Message) ([]byte, error) {
	conn := m.Session().Conn().(*carrier)
	return t.handler(m.Context(), &Request{Peer: conn.RemotePeer(), Tag: t.tag, Value: m.Value})
}

func (t *servedTag) addLegacy(c *legacyCall) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	pid := c.conn.RemotePeer()
	if t.peers[pid] >= maxLegacyPerPeer {
		return false
	}
	t.peers[pid]++
	t.calls[c] = struct{}{}
	return true
}

func (t *servedTag) removeLegacy(c *legacyCall) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pid := c.conn.RemotePeer()
	if t.peers[pid]--; t.peers[pid] == 0 {
		delete(t.peers, pid)
	}
	delete(t.calls, c)
}

// legacyInfo returns the old peers' calls that are being served.
func (t *servedTag) legacyInfo(now time.Time) []ConnectionInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []ConnectionInfo
	for c := range t.calls {
		pid := c.conn.RemotePeer()
		all = append(all, ConnectionInfo{
			RemoteAddr: pid.String(), LastActive: c.started, IdleTime: max(now.Sub(c.started), 0),
			Peer: pid, Tag: t.tag, Path: c.conn.Path(), Legacy: true, Requests: 1, InFlight: 1,
			BytesIn: c.in.Load(), BytesOut: c.out.Load(),
		})
	}
	return all
}

// unlisten stops taking the calls of old peers. New sessions are refused by the acceptor; those that drain may still need
// another carrier.
func (t *servedTag) unlisten() {
	if t.legacy != nil {
		_ = t.legacy.Close() // a listener's Close does not fail
	}
}

// cutOffTime is how long Shutdown waits for handlers whose ctx has ended.
const cutOffTime = time.Second

// legacyCalls returns the old peers' calls that are being served.
func (t *servedTag) legacyCalls() []*legacyCall {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.calls))
}

// shutdown waits until what is open has ended, and cuts it off when ctx ends.
func (t *servedTag) shutdown(ctx context.Context) error {
	err := t.acceptor.Shutdown(ctx)
	_ = t.sessions.Close() // a listener's Close does not fail
	t.mu.Lock()
	t.down = true
	t.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.wg.Wait()
	}()
	select {
	case <-done:
		return err
	case <-ctx.Done():
	}
	calls := t.legacyCalls()
	for _, c := range calls { // before their handlers hear of it, who would answer as if nothing were
		c.conn.resetWith(codes.GoingAway)
	}
	t.server.cutOff()
	timer := time.NewTimer(cutOffTime)
	defer timer.Stop()
	wasCut := len(calls) > 0
	select {
	case <-done:
	case <-timer.C: // a handler does not heed its ctx
		wasCut = true
	}
	if err == nil && wasCut {
		err = &Error{Op: "shutdown", Link: string(t.tag), Err: context.Cause(ctx)}
	}
	return err
}

// reapInterval returns how often idle sessions are looked for.
func (s *Server) reapInterval() time.Duration {
	return max(min(s.cfg.CleanupInterval, s.cfg.IdleTimeout/4, s.cfg.MaxIdleTime/4), minReap)
}

// reap ends what is idle, every reapInterval.
func (s *Server) reap() {
	now := time.Now()
	for _, t := range s.servedTags() {
		for _, c := range t.acceptor.Sessions() {
			s.reapSession(t, c, now)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.reaper.Reset(s.reapInterval())
	}
}

// reapSession ends one session if it is idle: by a drain, or, when nothing has moved on it for MaxIdleTime, also if something is open.
func (s *Server) reapSession(t *servedTag, c *session.Session, now time.Time) {
	v := c.Snapshot()
	switch quiet := now.Sub(v.LastActive); {
	case v.Idle && t.handler != nil && quiet >= s.cfg.IdleTimeout, v.Idle && quiet >= s.cfg.MaxIdleTime:
		c.Drain("idle")
	case quiet >= s.cfg.MaxIdleTime && v.InFlightIn == 0 && t.enterIdle(c):
		go t.closeIdle(c)
	}
}

// enterIdle reports whether c is to be closed as idle, once. Then the caller calls closeIdle.
func (t *servedTag) enterIdle(c *session.Session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, closing := t.idle[c]; closing || t.down {
		return false
	}
	t.idle[c] = struct{}{}
	t.wg.Add(1)
	return true
}

// closeIdle closes a session in order, and gives it up after CloseTimeout: what is open on it has not moved for MaxIdleTime.
func (t *servedTag) closeIdle(c *session.Session) {
	defer t.wg.Done()
	aborted := make(chan struct{})
	late := time.AfterFunc(t.server.cfg.CloseTimeout, func() {
		defer close(aborted)
		c.Abort()
	})
	_ = c.Close() // nobody waits for what did not move
	if !late.Stop() {
		<-aborted
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.idle, c)
}
