package session

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/lane"
	"github.com/peerlane/peerlane/internal/zstd"
)

// Dial opens a session to peer on conn, which it owns from then on: an error closes conn. peer is the name bound into the PSK handshake (a
// Peer ID in its text form) and shown in errors. open, if not nil, opens further connections to the same peer for dedicated streams. A nil config
// has the defaults.
//
// A nil conn is an error, and so is a config that is out of range: the text names the field. Any other error is an *Error with outcome
// NotSent, and so is one of Hooks.OnOpen. It matches ErrPSKRequired if only one side has a key, ErrPSKMismatch if the keys differ, ErrPSKTampered if the hello was changed
// on the way, ErrVersion, ErrNotAllowed, ErrUnavailable, the ctx's error, or os.ErrDeadlineExceeded if the peer did not answer within
// HandshakeTimeout.
func Dial(ctx context.Context, conn net.Conn, peer string, open Opener, config *Config) (*Session, error) {
	if conn == nil {
		return nil, errors.New("session: conn is nil")
	}
	cfg, err := config.withDefaults()
	if err != nil {
		_ = conn.Close() // only the config's error counts
		return nil, err
	}
	if open == nil {
		cfg.ResumeWindow = -1 // without an Opener, no other carrier could be opened
	}
	hello := &frame.Hello{Role: frame.RoleSession, Limits: cfg.limits(), ResumeWindow: cfg.resumeWindow()}
	c, err := greet(ctx, conn, peer, hello, &cfg)
	if err != nil {
		return nil, err
	}
	s := newSession(cfg, c, true, peer, cfg.Quota.Hold(peer, subnetOf(conn)))
	s.carriers.open = open
	s.run()
	go s.readLoop()
	if err := s.askOnOpen(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// newSession returns a session on a carrier whose hello is complete, and with the peer's part of the quota, which
// it leaves at its end. The caller runs readLoop; run starts the rest.
func newSession(cfg Config, conn carrier, dialer bool, peer string, part *QuotaPart) *Session {
	s := &Session{
		cfg: cfg, peer: peer, dialer: dialer, part: part,
		coder: zstd.Peer{Network: part.holder.Network(), ID: peer},
		id:    conn.id, limits: bounded(*conn.theirs.Limits), agent: conn.theirs.Agent,
		caps:       cfg.caps() & conn.theirs.Caps,
		started:    time.Now(),
		ended:      make(chan struct{}),
		finished:   make(chan struct{}),
		readerDone: make(chan struct{}),
		writerDone: make(chan struct{}),
	}
	s.ctx, s.endCtx = context.WithCancel(context.Background())
	s.out.wake.L, s.out.part, s.out.fit = &s.mu, fragment, fragment
	s.end.idle, s.end.look = make(chan struct{}), s.lookIdleLocked
	s.calls.pending = make(map[uint64]*call)
	s.requests.open = make(map[uint64]*Message)
	s.messages.out.s = s
	s.shared.open, s.shared.account.part = make(map[uint64]*muxed), part
	s.shared.in.part, s.shared.in.window, s.shared.askAgain = part, cfg.StreamWindow, s.askForCredit
	if b := s.budget(); b != nil {
		s.messages.out.held = lane.In(b)
	}
	s.dedicated.greeting = make(chan struct{}, maxGreeting)
	s.carriers.raw.Store(&conn.raw)
	s.out.scarce = isScarce(conn.raw)
	s.setHooks()
	s.happenLocked(eventOpened, nil)
	s.touch()
	if s.caps&frame.CapResume != 0 {
		s.newFlow(conn)
	} else {
		s.carriers.conn, s.bare.under = conn.sealed, conn.forFlow()
	}
	return s
}

// bounded returns the sizes that the peer accepts, within the limits of the format.
func bounded(l frame.Limits) frame.Limits {
	for _, n := range [...]*uint32{&l.MaxMessage, &l.MaxInFlight, &l.MessageWindow, &l.MaxStreams, &l.StreamWindow} {
		*n = min(*n, frame.MaxTotal)
	}
	return l
}

// run starts the writer and the heartbeat. They end with the session.
func (s *Session) run() {
	s.startHeartbeat()
	s.startFlow()
	go s.writeLoop()
	s.startCron()
	s.tell()
}
