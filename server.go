package peerlane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/handler"
	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

// ErrStopped means that the Server has been stopped, the Client closed, or the host under them closed, which ends both. It matches
// net.ErrClosed.
var ErrStopped = fmt.Errorf("stopped: %w", session.ErrClosed)

// StreamHandler answers one request. The request belongs to the handler. An error reaches the caller as an *Error with
// outcome Delivered and its text.
type StreamHandler func(request []byte) (response []byte, err error)

// Request is one call as a Handler sees it.
type Request struct {
	Peer  peer.ID     // the caller, authenticated by libp2p
	Tag   protocol.ID // the called tag
	Value []byte      // the body; it belongs to the handler
}

// Handler answers one request. ctx ends when the caller gives up or is gone, when its deadline passes, and when the server is cut off. An
// error reaches the caller as an *Error with outcome Delivered and its text, or, if it is an *Error with a Code, with its own Code, Text
// and RetryAfter. The response must not change afterwards.
type Handler func(ctx context.Context, req *Request) ([]byte, error)

// A Server serves tags on a host: calls, one-way messages and streams of the sessions that peers open, and the calls of
// pointsub v0.0.2 peers. One host can have a Server and a Client, and several of each. It is safe for concurrent use.
type Server struct {
	host   host.Host
	cfg    ServerConfig
	log    *slog.Logger
	mux    *session.Mux
	quota  *session.Quota
	allow  map[string]bool // Peer IDs as text; nil: all peers
	ctx    context.Context // ends when the server is cut off
	cutOff context.CancelFunc
	down   chan struct{} // closed when Shutdown is done

	ends    endings       // of sessions
	refused registry.Ring // carriers that were refused

	hurried context.Context // ends when Stop or a Shutdown no longer waits for running handlers
	hurry   context.CancelCauseFunc

	mu      sync.Mutex
	keys    *psk.Keyring
	tags    map[protocol.ID]*servedTag
	muxes   map[protocol.ID]*session.Mux // the handlers of each tag, served or not
	stopped bool
	ending  []*servedTag // tags that Shutdown has removed from tags
	watched bool         // watchHost runs, or has run
	reaper  *time.Timer  // looks for idle sessions while there are tags

	circuits circuits // limited relayed connections to this side
}

// NewServer returns a server on h. A nil config means DefaultServerConfig; config is copied. The error matches ErrInvalid
// and names the field that is out of range.
func NewServer(h host.Host, config *ServerConfig) (*Server, error) {
	if h == nil {
		return nil, invalidf("host: nil")
	}
	if config == nil {
		config = DefaultServerConfig()
	}
	if err := config.Validate(); err != nil {
		return nil, err
	}
	s := &Server{host: h, cfg: config.withDefaults(), mux: session.NewMux(), tags: make(map[protocol.ID]*servedTag)}
	s.muxes = make(map[protocol.ID]*session.Mux)
	s.down = make(chan struct{})
	s.ctx, s.cutOff = context.WithCancel(context.Background())
	s.hurried, s.hurry = context.WithCancelCause(context.Background())
	s.log = s.cfg.Logger
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.quota = &session.Quota{
		MaxSessions: s.cfg.MaxConcurrentConns, MaxCalls: s.cfg.MaxConcurrentConns, MaxBytes: int64(min(s.cfg.MaxMemoryUsage, maxInt)),
	}
	if config.AllowPeers != nil {
		s.allow = make(map[string]bool)
		for _, pid := range config.AllowPeers {
			s.allow[pid.String()] = true
			s.quota.Expect(pid.String())
		}
	}
	return s, nil
}

// Start serves calls to tag with handler. It serves the messages and streams of the same sessions too if the server admits who opens them:
// if UseModernPSKServer came before, or the configuration has AllowPeers or AdmitAll. Without, everyone may call, and links, streams and
// lanes are refused with ErrNotAllowed. Start returns ErrInUse when the tag is served on this host already, ErrStopped after Stop, and an
// error that matches ErrInvalid for a nil handler.
func (s *Server) Start(tag protocol.ID, handler StreamHandler) error {
	if handler == nil {
		return invalidf("handler: nil")
	}
	return s.Handle(tag, func(_ context.Context, req *Request) ([]byte, error) { return handler(req.Value) })
}

// Handle is Start for a handler that knows its caller and can be cancelled.
func (s *Server) Handle(tag protocol.ID, handler Handler) error {
	if handler == nil {
		return invalidf("handler: nil")
	}
	return s.serve(tag, handler)
}

// Listen serves the sessions of tag: messages to the links set with SetLink, and streams. It returns
// ErrModernPSKRequired unless UseModernPSKServer came before, or the configuration says who is admitted; otherwise it
// returns what Start returns.
func (s *Server) Listen(tag protocol.ID) error {
	s.mu.Lock()
	admits, stopped := s.admitsLocked(), s.stopped
	s.mu.Unlock()
	if !admits && !stopped {
		return ErrModernPSKRequired
	}
	return s.serve(tag, nil)
}

// admitsLocked reports whether the application has said who may open sessions. s.mu is held.
func (s *Server) admitsLocked() bool { return s.keys != nil || s.allow != nil || s.cfg.AdmitAll }

// RegisterCodec registers c for the server's sessions. It returns an error if the codec is nil or its name is empty, longer than 255 bytes,
// or taken.
func (s *Server) RegisterCodec(c session.Codec) error { return s.mux.RegisterCodec(c) }

// Sessions returns the sessions that are open now, over all tags.
func (s *Server) Sessions() []*session.Session {
	var all []*session.Session
	for _, t := range s.servedTags() {
		all = append(all, t.acceptor.Sessions()...)
	}
	return all
}

// GetConnectionsInfo returns the open sessions, and the calls of old peers that are being served.
func (s *Server) GetConnectionsInfo() []ConnectionInfo {
	now := time.Now()
	var all []ConnectionInfo
	for _, t := range s.servedTags() {
		for _, c := range t.acceptor.Sessions() {
			if conn, ok := c.Conn().(*carrier); ok {
				all = append(all, sessionInfo(c, conn.RemotePeer(), t.tag, now))
			}
		}
		all = append(all, t.legacyInfo(now)...)
	}
	return all
}

// servedTags returns the tags in order.
func (s *Server) servedTags() []*servedTag {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Collect(maps.Values(s.tags))
	slices.SortFunc(all, func(x, y *servedTag) int { return cmpTags(x.tag, y.tag) })
	return all
}

// openTags returns the tags that are served, and those that have sessions left after that.
func (s *Server) openTags() []*servedTag {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(slices.Collect(maps.Values(s.tags)), s.ending...)
}

// admit decides whether to accept a peer, before its hello is examined.
func (s *Server) admit(pid string) error {
	if s.allow != nil && !s.allow[pid] {
		return &Error{Code: codes.NotAllowed, Text: "this peer is not on the list"}
	}
	return nil
}

// Stop stops the server: its tags are no longer served, what is being handled is given ReadTimeout to end, and the rest is cut off,
// which is an error. What had been accepted of the sessions' streams and messages is completed as Session.Close does, and what did not
// arrive is an error too. After it nothing of the server is left but handlers that do not heed their ctx. A second Stop waits for the
// first, or for Shutdown, and returns nil. A handler may call Stop, which does not wait for it.
func (s *Server) Stop() error {
	s.exemptCaller()
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ReadTimeout)
	defer cancel()
	if !s.beginStop() {
		<-s.down
		return nil
	}
	return s.stop(ctx)
}

// Shutdown is Stop with a bound chosen by the caller: when ctx ends, it cuts off the work still running and returns an error that matches
// the ctx's. During another Shutdown or Stop, the earlier bound applies.
func (s *Server) Shutdown(ctx context.Context) error {
	s.exemptCaller()
	if s.beginStop() {
		return s.stop(ctx)
	}
	select {
	case <-s.down:
		return nil
	case <-ctx.Done():
		s.hurry(ctx.Err())
		<-s.down // in cutOffTime
		return &Error{Op: "shutdown", Err: ctx.Err()}
	}
}

// exemptCaller makes the end of the server not wait for the handler that calls, if it is one of the server's.
func (s *Server) exemptCaller() {
	caller := handler.Here()
	if caller == nil {
		return
	}
	for _, t := range s.openTags() {
		ours := func(c *session.Session) bool { return caller.Of(c) }
		if caller.Of(t) || slices.ContainsFunc(t.acceptor.Sessions(), ours) {
			caller.Exempt()
		}
	}
}

// beginStop reports whether the server has not been stopped before.
func (s *Server) beginStop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.stopped = true
	if s.reaper != nil {
		s.reaper.Stop()
	}
	return true
}

// stop does the work of Stop and Shutdown. All tags drain at the same time. This goroutine, which may be a handler's, waits for them one
// after the other.
func (s *Server) stop(ctx context.Context) error {
	defer close(s.down)
	defer context.AfterFunc(ctx, func() { s.hurry(ctx.Err()) })()
	s.mu.Lock()
	tags := slices.Collect(maps.Values(s.tags))
	clear(s.tags)
	s.ending = tags
	s.mu.Unlock()
	for _, t := range tags {
		t.unlisten()
		t.acceptor.Drain()
	}
	var errs []error
	for _, t := range tags {
		errs = append(errs, t.shutdown(s.hurried))
	}
	s.cutOff()
	s.circuits.close(s.host)
	return errors.Join(errs...)
}

// watchHost stops the server at once when its host is closed, because no carrier is left and none will come. It ends then, or when the
// server is down.
func (s *Server) watchHost() {
	select {
	case <-hostDone(s.host):
	case <-s.down:
		return
	}
	for _, t := range s.openTags() {
		t.acceptor.Abort(errHostClosed)
	}
	s.cutOff()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if s.beginStop() {
		_ = s.stop(ctx) // intended: cuts off the rest at once
	}
}
