package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/fair"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/hook"
)

// AcceptorConfig is the configuration of the accepting side.
type AcceptorConfig struct {
	Config
	// MaxHandshakes limits the carriers of one peer whose hello is being answered; as many again wait. If zero, 16.
	MaxHandshakes int
	// MaxDetached limits the sessions of one peer that wait for another carrier. Beyond it, the one that has waited longest ends. The
	// peer's connection bounds what it has open at a time, but nothing else bounds its detached sessions. If zero, 256: as many as libp2p
	// streams of one peer, at the limits of package node.
	MaxDetached int
	// Admit, if not nil, is called for each peer when its hello has arrived and before it is examined. An error refuses the carrier, and is
	// sent to the peer.
	Admit func(peer string) error
	// OnSession, if not nil, is called with each new session before anything of it is handled. It must not block.
	OnSession func(*Session)
}

// An Acceptor is the accepting side of sessions: it answers hellos and holds the open sessions. It is safe for concurrent use.
type Acceptor struct {
	cfg      Config
	perPeer  int
	detached int // MaxDetached
	admit    func(string) error
	onOpen   func(*Session)
	refused  atomic.Uint64

	mu       sync.Mutex
	sessions map[ID]*Session
	byPeer   map[string][]*Session
	promised map[ID]chan struct{}  // sessions whose ACK is under way
	hellos   map[string]*hellos    // those of each peer that are not complete
	conns    map[net.Conn]struct{} // the same carriers
	closed   bool
	drained  chan struct{} // made by Shutdown, closed when sessions is empty
}

// NewAcceptor returns an Acceptor, or an error that names the field that is out of range. A nil config has the defaults.
func NewAcceptor(config *AcceptorConfig) (*Acceptor, error) {
	var cfg AcceptorConfig
	if config != nil {
		cfg = *config
	}
	base, err := cfg.Config.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.MaxHandshakes < 0 {
		return nil, fmt.Errorf("session: config: %w: MaxHandshakes is %d, want 0 or more", ErrInvalid, cfg.MaxHandshakes)
	}
	if cfg.MaxDetached < 0 {
		return nil, fmt.Errorf("session: config: %w: MaxDetached is %d, want 0 or more", ErrInvalid, cfg.MaxDetached)
	}
	base.MaxMessage = int(min(int64(base.MaxMessage), base.Quota.all().Most(fair.Bytes)))
	a := &Acceptor{
		cfg: base, perPeer: cmp.Or(cfg.MaxHandshakes, 16), detached: cmp.Or(cfg.MaxDetached, 256), admit: cfg.Admit,
		onOpen:   cfg.OnSession,
		sessions: make(map[ID]*Session),
		byPeer:   make(map[string][]*Session),
		hellos:   make(map[string]*hellos),
		conns:    make(map[net.Conn]struct{}),
		promised: make(map[ID]chan struct{}),
	}
	return a, nil
}

// Serve answers the hello on a carrier that peer opened, and serves it to its end. It owns conn. peer is the name bound into the PSK
// handshake, a Peer ID in its text form. Serve returns nil after an opened session or stream, however it ended. It returns an *Error if the
// hello was refused or never came, or if conn is nil.
func (a *Acceptor) Serve(conn net.Conn, peer string) error {
	if conn == nil {
		return &Error{Op: "hello", Peer: peer, Outcome: NotSent, Text: "conn is nil"}
	}
	if err := a.beginHello(conn, peer); err != nil {
		a.refused.Add(1)
		drop(conn, err.Code)
		a.cfg.Hooks.reportRefusal(Refusal{Kind: "carrier", Peer: peer, Tag: a.cfg.Tag, Err: err}, a.cfg.Logger)
		return err
	}
	stop := sync.OnceValue(boundHandshake(context.Background(), conn, a.cfg.HandshakeTimeout))
	run, err := a.answer(conn, peer, stop)
	a.endHello(conn, peer)
	stop()
	if err != nil {
		a.refused.Add(1)
		refusal := &Error{Err: err}
		if told := (*Error)(nil); errors.As(err, &told) {
			*refusal = *told // it may be Admit's own, shared by all peers
			a.refuse(conn, refusal)
		} else {
			drop(conn, cutCode(err))
		}
		refusal.Op, refusal.Peer, refusal.Outcome = "hello", peer, Rejected
		a.cfg.Hooks.reportRefusal(Refusal{Kind: "carrier", Peer: peer, Tag: a.cfg.Tag, Err: refusal}, a.cfg.Logger)
		return refusal
	}
	run()
	return nil
}

// cutCode returns the code to drop a carrier whose hello has failed with err. A hello that is cut or slow is no protocol error.
func cutCode(err error) codes.Code {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return codes.Timeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		return codes.Cancelled
	}
	return codes.Protocol
}

// refuse sends the reason to the peer, and closes the carrier. Where it cannot be written, the carrier is reset with its code (spec 3.2).
func (a *Acceptor) refuse(conn net.Conn, err *Error) {
	body := frame.AppendHello(nil, &frame.Hello{Kind: frame.KindRefuse, Version: frame.Version, Failure: &frame.Failure{
		Code: err.Code, RetryAfter: err.RetryAfter, Text: err.Text}})
	_ = boundHandshake(context.Background(), conn, min(a.cfg.CloseTimeout, partingGrace))
	if frame.WriteHello(conn, body) != nil { // the peer is gone, or does not read
		drop(conn, err.Code)
		return
	}
	_ = conn.Close() // the peer has been told
}

// answer does the hello, and returns the function that runs the carrier. timed ends the time limit of the hello.
func (a *Acceptor) answer(conn net.Conn, peer string, timed func() bool) (run func(), err error) {
	h, ack, err := a.hello(conn, peer)
	if err != nil {
		return nil, err
	}
	switch h.Role {
	case frame.RoleStream:
		return a.answerStream(conn, h, ack, peer, timed)
	case frame.RoleResume:
		return a.answerResume(h, ack, peer)
	}
	return a.answerSession(ack, peer, subnetOf(conn))
}

// answerSession opens a session.
func (a *Acceptor) answerSession(ack func(*frame.Hello) (carrier, error), peer, subnet string) (func(), error) {
	part, err := a.reserve(peer, subnet)
	if err != nil {
		return nil, err
	}
	id := newSessionID()
	kept := a.promise(id)
	c, err := ack(&frame.Hello{Limits: a.cfg.limits(), SessionID: id, ResumeWindow: a.cfg.resumeWindow()})
	if err != nil {
		kept()
		a.cfg.Quota.givePlace(part.holder)
		part.Leave()
		return nil, err
	}
	s := newSession(a.cfg, c, false, peer, part)
	s.onEnd = func() { a.release(s) }
	s.onLeft = func() { a.cfg.Quota.unregister(s) }
	a.cfg.Quota.register(s)
	s.onDetached = func() { a.boundDetached(peer) }
	return func() {
		s.run()
		if !a.add(s) {
			drop(c.raw, codes.GoingAway)
			s.fail(&Error{Op: "session", Peer: peer, Code: codes.GoingAway})
		} else if a.onOpen != nil {
			if err := hook.Do(func() { a.onOpen(s) }); err != nil {
				s.fail(&Error{Op: "session", Peer: peer, Code: codes.Internal, Err: fmt.Errorf("OnSession: %w", err)})
			}
		}
		kept()
		s.askOnOpenBeside()
		s.readLoop()
		<-s.writerDone
		s.awaitCarriers()
	}, nil
}

// promise records that a session with this id is about to exist: the peer may name it as soon as it has the ACK, which is before Write
// returns here. kept ends the promise, once the session exists or never will.
func (a *Acceptor) promise(id ID) (kept func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	made := make(chan struct{})
	a.promised[id] = made
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.promised, id)
		close(made)
	}
}

// find returns the session with an id, or nil. It waits for one that is promised.
func (a *Acceptor) find(id ID) *Session {
	for {
		a.mu.Lock()
		s, made := a.sessions[id], a.promised[id]
		a.mu.Unlock()
		if s != nil || made == nil {
			return s
		}
		<-made // bounded by the handshake's deadline, like the ACK
	}
}

// reserve takes a place for one session of a peer, in the peer's part of the quota.
func (a *Acceptor) reserve(peer, subnet string) (*QuotaPart, error) {
	a.mu.Lock()
	closed := a.closed
	a.mu.Unlock()
	if closed { // or later: then add fails
		return nil, &Error{Code: codes.GoingAway}
	}
	part := a.cfg.Quota.Hold(peer, subnet)
	if f := a.cfg.Quota.takePlace(part); f.Code != codes.OK {
		part.Leave()
		return nil, failed(f)
	}
	return part, nil
}

// add keeps s, unless the Acceptor has been closed meanwhile.
func (a *Acceptor) add(s *Session) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	if s.Err() == nil { // otherwise release has been called, or waits for a.mu
		a.sessions[s.id] = s
		a.byPeer[s.peer] = append(a.byPeer[s.peer], s)
	}
	return true
}

// boundDetached ends the session of a peer that has been detached longest, if there are more than MaxDetached.
func (a *Acceptor) boundDetached(peer string) {
	var oldest *Session
	var since time.Time
	n := 0
	a.mu.Lock()
	own := slices.Clone(a.byPeer[peer])
	a.mu.Unlock()
	if len(own) <= a.detached {
		return
	}
	for _, s := range own {
		state, at := s.stateAt()
		if state != StateDetached {
			continue
		}
		if n++; oldest == nil || at.Before(since) {
			oldest, since = s, at
		}
	}
	if n > a.detached {
		oldest.fail(oldest.lost("session", fmt.Errorf("more than %d sessions of this peer wait for a carrier", a.detached)))
	}
}

// release forgets s, which has ended.
func (a *Acceptor) release(s *Session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions[s.id] == s {
		delete(a.sessions, s.id)
		a.byPeer[s.peer] = slices.DeleteFunc(a.byPeer[s.peer], func(other *Session) bool { return other == s })
		if len(a.byPeer[s.peer]) == 0 {
			delete(a.byPeer, s.peer)
		}
	}
	if a.drained != nil && len(a.sessions) == 0 {
		close(a.drained)
		a.drained = nil
	}
}

// Sessions returns the open sessions, oldest first.
func (a *Acceptor) Sessions() []*Session {
	a.mu.Lock()
	all := make([]*Session, 0, len(a.sessions))
	for _, s := range a.sessions {
		all = append(all, s)
	}
	a.mu.Unlock()
	slices.SortFunc(all, func(x, y *Session) int {
		if c := x.started.Compare(y.started); c != 0 {
			return c
		}
		return slices.Compare(x.id[:], y.id[:])
	})
	return all
}

// Refused returns how many carriers have been refused or dropped at their hello.
func (a *Acceptor) Refused() uint64 { return a.refused.Load() }

// Drain refuses new sessions from now on, and begins to drain every session.
func (a *Acceptor) Drain() {
	_, sessions := a.close()
	drainAll(sessions)
}

func drainAll(sessions []*Session) {
	for _, s := range sessions {
		s.mu.Lock()
		s.drainLocked(frame.Failure{Code: codes.GoingAway, Text: "the server is shutting down"})
		s.mu.Unlock()
	}
}

// Shutdown refuses new sessions, drains every session, and returns when all have ended. If ctx ends first, it cuts off the rest. The error
// is an *Error that wraps the cause of ctx's end, if that came first, and the errors of Session.Close for sessions with undelivered work. A
// handler may call Shutdown, which does not wait for it.
func (a *Acceptor) Shutdown(ctx context.Context) error {
	drained, sessions := a.close()
	drainAll(sessions)
	if caller := handler.Here(); slices.ContainsFunc(sessions, func(s *Session) bool { return caller.Of(s) }) {
		caller.Exempt()
	}
	select {
	case <-drained:
	case <-ctx.Done():
	}
	var cause error
	select {
	case <-drained: // ctx may have ended as well, and cuts off nothing here
	default:
		cause = context.Cause(ctx)
		var wg sync.WaitGroup
		for _, s := range a.Sessions() {
			wg.Go(func() {
				s.cutOff(&Error{Op: "session", Peer: s.peer, Code: codes.Closed, Err: ErrClosed}, true)
			})
		}
		wg.Wait()
	}
	lost := []error{cause}
	for _, s := range sessions {
		lost = append(lost, s.awaitClosed())
	}
	if err := errors.Join(lost...); err != nil {
		return &Error{Op: "shutdown", Link: a.cfg.Tag, Err: err}
	}
	return nil
}

// Abort refuses new sessions and ends every session at once, without notifying its peer. It serves an owner that has lost all carriers for
// good. The sessions' Err wraps cause, which must match ErrClosed; nil is ErrClosed.
func (a *Acceptor) Abort(cause error) {
	if cause == nil {
		cause = ErrClosed
	}
	_, sessions := a.close()
	for _, s := range sessions {
		s.fail(&Error{Op: "session", Peer: s.peer, Code: codes.Closed, Err: cause})
	}
}

// close refuses new sessions from now on, and cuts off hellos in progress. drained is closed when no session is left.
func (a *Acceptor) close() (drained <-chan struct{}, sessions []*Session) {
	a.mu.Lock()
	a.closed = true
	for _, h := range a.hellos {
		h.refuseWaiting()
	}
	greeting := slices.Collect(maps.Keys(a.conns))
	code := codes.GoingAway
	if len(a.sessions) > 0 { // the hello may belong to a draining session, whose peer must be able to retry
		code = codes.Unavailable
	}
	done := make(chan struct{})
	if len(a.sessions) == 0 {
		close(done)
	} else if a.drained == nil {
		a.drained = done
	} else {
		done = a.drained
	}
	a.mu.Unlock()
	for _, conn := range greeting {
		drop(conn, code)
	}
	return done, a.Sessions()
}
