package oldsession

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A Session is one side of a session. All methods are safe for concurrent use.
//
// It has a goroutine that reads, one that writes, one that watches for silence, and one that finds carriers; handlers have
// their own. They end with it.
type Session struct {
	cfg     Config
	id      [16]byte
	peer    string
	dialer  bool
	open    Opener
	caps    uint64 // of both sides
	theirs  Limits
	flow    *flow    // nil: the session ends with its carrier
	only    *carrier // the one of a session without a flow
	running sync.WaitGroup
	turn    chan struct{} // holds a value while a carrier is being found or taken
	attempt uint32        // guarded by turn
	lane    chan struct{} // holds a value while a one-way message is being sent
	done    chan struct{}
	ctx     context.Context // of handlers
	cancel  context.CancelFunc

	mu      sync.Mutex
	changed sync.Cond // anything below
	err     error     // why it has ended
	out     []byte    // frames for the writer
	writing bool
	pong    uint64
	heard   int
	pings   uint64
	lastOut uint64 // ids: opened by this side, and by the other
	lastIn  uint64

	waiting  int // works of this side that have not begun
	bodies   int // bodies that have begun and are not out
	calls    map[uint64]*call
	serving  map[uint64]*request
	handlers int
	outbox   outbox
	inbox    inbox
	streams  map[uint64]*shared
	shared   int                     // of them this side's, and those it is opening
	own      map[*Stream]struct{}    // streams on carriers of their own
	resumed  map[[16]byte]*resumable // those of them that the other side may resume

	draining bool // this side takes no new work
	closing  bool // Close
	saidBye  bool // GOAWAY of Close is out
	goneAway bool // the other side takes no new work
	cutOff   bool // nor waits for what is in flight
	heardBye bool
	leaving  error // why it will end
}

func newSession(cfg Config, h *hello, id [16]byte, peer string, open Opener) *Session {
	s := &Session{
		cfg: cfg, id: id, peer: peer, open: open, dialer: open != nil, caps: cfg.caps() & h.caps(), theirs: h.limits(),
		turn: make(chan struct{}, 1), lane: make(chan struct{}, 1), done: make(chan struct{}),
		calls: map[uint64]*call{}, serving: map[uint64]*request{}, streams: map[uint64]*shared{}, own: map[*Stream]struct{}{},
		resumed: map[[16]byte]*resumable{},
	}
	s.changed.L = &s.mu
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if s.caps&capResume != 0 {
		s.flow = newFlow(cfg.Window, 0, h.patience(cfg.Patience), s.dropCarrier)
		s.flow.onLost = s.onLost
	}
	return s
}

// Dial opens a session on conn, which it owns. open finds further conns; it must not be nil.
func Dial(conn net.Conn, peer string, open Opener, cfg Config) (*Session, error) {
	cfg = cfg.withDefaults()
	fields := cfg.sessionFields()
	fields[fieldRole] = []byte{roleSession}
	c, ack, err := cfg.greet(conn, peer, &hello{field: fields})
	if err != nil {
		return nil, err
	}
	s := newSession(cfg, ack, [16]byte(ack.field[fieldSession]), peer, open)
	s.run(c)
	return s, nil
}

// run puts the session on its first carrier.
func (s *Session) run(c *carrier) {
	var rw io.ReadWriter = c
	heard := func() (int, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.heard, true
	}
	lost := func() { s.end(fmt.Errorf("%w: %w", ErrLost, errSilent)) }
	if s.flow == nil {
		s.only = c
	} else {
		rw, heard, lost = s.flow, s.flow.sign, s.flow.silent
		_ = s.flow.attach(c, 0, false) // a new flow takes its carrier
		reopen := s.reopen
		if !s.dialer {
			reopen = nil
		}
		s.running.Go(func() { s.flow.keep(reopen) })
	}
	s.running.Go(func() { s.readLoop(rw) })
	s.running.Go(func() { s.writeLoop(rw) })
	s.running.Go(func() { watch(s.cfg.Heartbeat, s.done, heard, s.ping, lost) })
}

// Done returns a channel that is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err returns why the session has ended: what matches ErrClosed after Close, ErrLost after a loss, or a *Failure.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Wait waits until a session that has ended has nothing running any more.
func (s *Session) Wait() {
	<-s.done
	s.running.Wait()
	if s.flow != nil {
		s.flow.running.Wait()
	}
}

// Carriers returns how many there have been, and whether there is one now.
func (s *Session) Carriers() (n int, attached bool) {
	if s.flow == nil {
		return 1, true
	}
	s.flow.mu.Lock()
	defer s.flow.mu.Unlock()
	return s.flow.carriers, s.flow.cur != nil
}

// can reports whether both sides have all of caps.
func (s *Session) can(caps uint64) bool { return s.caps&caps == caps }

func (s *Session) attached() bool {
	_, yes := s.Carriers()
	return yes
}

func (f *flow) sign() (int, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard, f.cur != nil
}

// silent gives up the carrier.
func (f *flow) silent() {
	f.mu.Lock()
	l := f.cur
	f.mu.Unlock()
	if l != nil {
		f.failed(l, errSilent)
	}
}

// wait waits until ok, or the end of ctx or of the session. mu is held.
func (s *Session) wait(ctx context.Context, ok func() bool) error {
	stop := context.AfterFunc(ctx, s.poke)
	defer stop()
	for !ok() {
		switch {
		case s.err != nil:
			return s.err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		s.changed.Wait()
	}
	return nil
}

func (s *Session) poke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

// refusal returns why no new work is taken, or nil. mu is held.
func (s *Session) refusal() error {
	switch {
	case s.err != nil:
		return fmt.Errorf("%w: %w", &Failure{NotSent: true}, s.err)
	case s.closing || s.draining || s.goneAway:
		return &Failure{Code: CodeGoingAway, NotSent: true}
	}
	return nil
}

// post queues a frame. mu is held.
func (s *Session) post(typ, flags byte, id uint64, payload []byte) {
	if s.err == nil && !s.saidBye {
		s.out = frame{typ, flags, id, payload}.append(s.out)
		s.changed.Broadcast()
	}
}

// postFailure queues a frame whose payload is a failure. mu is held.
func (s *Session) postFailure(typ byte, id uint64, code uint32, text string) {
	s.post(typ, 0, id, (&Failure{Code: code, Text: text[:min(len(text), 1024)]}).append())
}

// newID returns the next id of this side. mu is held.
func (s *Session) newID() uint64 {
	switch {
	case s.lastOut > 0:
		s.lastOut += 2
	case s.dialer:
		s.lastOut = 1
	default:
		s.lastOut = 2
	}
	return s.lastOut
}

func (s *Session) ours(id uint64) bool { return id%2 == 1 == s.dialer }

// opened takes an id that the other side opens. mu is held.
func (s *Session) opened(id uint64) error {
	if id == 0 || s.ours(id) || id <= s.lastIn {
		return breach("id %d is opened after %d", id, s.lastIn)
	}
	s.lastIn = id
	return nil
}

// known reports an id that was never opened. mu is held.
func (s *Session) known(id uint64) error {
	if id == 0 || s.ours(id) && id > s.lastOut || !s.ours(id) && id > s.lastIn {
		return breach("id %d was never opened", id)
	}
	return nil
}

func (s *Session) ping() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pings++
	s.post(typePing, 0, s.pings, nil)
}

// writeLoop writes what is queued, all of it in one Write.
func (s *Session) writeLoop(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil {
		if len(s.out) == 0 && s.pong == 0 {
			s.changed.Wait()
			continue
		}
		b := s.out
		if s.pong != 0 {
			b = append(frame{typ: typePong, id: s.pong}.append(nil), b...)
		}
		s.out, s.pong, s.writing = nil, 0, true
		s.changed.Broadcast()
		s.mu.Unlock()
		_, err := w.Write(b)
		if err != nil {
			s.carrierFailed(err)
		}
		s.mu.Lock()
		s.writing = false
		s.changed.Broadcast()
	}
}

// readLoop takes every frame. It waits for nobody.
func (s *Session) readLoop(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		f, err := readFrame(in)
		if err == nil {
			s.mu.Lock()
			s.heard++
			if s.err == nil {
				err = s.take(f)
				s.changed.Broadcast()
			}
			over := s.err != nil
			s.mu.Unlock()
			if over {
				return
			}
		}
		var broken *Failure
		switch {
		case errors.As(err, &broken):
			s.end(err)
			return
		case err != nil:
			s.carrierFailed(err)
			return
		}
	}
}

// carrierFailed ends a session whose flow, or only carrier, has failed.
func (s *Session) carrierFailed(err error) {
	s.mu.Lock()
	end := s.leaving
	s.mu.Unlock()
	switch {
	case end != nil:
	case s.flow != nil:
		end = err // of the flow
	default:
		end = fmt.Errorf("%w: %w", ErrLost, err)
	}
	s.end(end)
}

// take takes one frame. The error is a breach. mu is held.
func (s *Session) take(f frame) error {
	switch f.typ {
	case typeRequest, typeMessage, typeOpen:
		if err := s.opened(f.id); err != nil {
			return err
		}
	case typePing, typePong, typeGoAway:
	default:
		if err := s.known(f.id); err != nil {
			return err
		}
	}
	switch f.typ {
	case typeRequest:
		return s.onRequest(f)
	case typeResponse:
		return s.onResponse(f)
	case typeMessage:
		return s.onMessage(f)
	case typeContinue:
		return s.onContinue(f)
	case typeError:
		return s.onError(f)
	case typeCancel:
		return s.onCancel(f)
	case typeAck:
		return s.onAck(f.id)
	case typePing:
		if !s.saidBye {
			s.pong = f.id
		}
	case typePong:
	case typeGoAway:
		return s.onGoAway(f)
	case typeOpen:
		return s.onOpen(f)
	default:
		return s.onStreamFrame(f)
	}
	return nil
}

// end ends the session: everything that waits learns of it, and the carrier is dropped. mu is not held.
func (s *Session) end(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	for _, st := range s.streams {
		st.fail(err)
	}
	for _, c := range s.calls {
		c.finish(nil, err)
	}
	var own []*Stream
	for st := range s.own {
		own = append(own, st)
	}
	for _, m := range s.outbox.sent {
		s.tellFailure(m, err)
	}
	s.outbox.sent = nil
	s.changed.Broadcast()
	s.cancel()
	close(s.done)
	s.mu.Unlock()
	if s.flow != nil {
		s.flow.locked(func() { s.flow.close(err) })
	} else {
		s.only.drop(dropCode(err))
	}
	for _, st := range own {
		st.abandon(err)
	}
}

// dropCode returns the code that a carrier is reset with when its session ends with err.
func dropCode(err error) uint32 {
	if code := codeOf(err); code != CodeGoingAway {
		return code
	}
	return CodeClosed
}

// dropCarrier ends a carrier that is of no more use.
func (s *Session) dropCarrier(c *carrier, end error) {
	if end == nil {
		c.drop(CodeCancelled)
	} else {
		c.drop(dropCode(end))
	}
}

// onLost takes note that the session has no carrier: it may have been about to end.
func (s *Session) onLost(err error) {
	s.mu.Lock()
	end := s.leaving
	if end != nil && !s.closing && !s.cutOff && (s.busy() || s.flow.unacknowledged()) {
		end = nil
	}
	s.mu.Unlock()
	var reset *ResetError
	if end == nil && errors.As(err, &reset) {
		switch reset.Code {
		case CodeProtocol, CodeUnsupported, CodeFlowControl, CodeInternal, CodeTimeout:
			end = fmt.Errorf("%w: %w", ErrLost, err)
		}
	}
	if end != nil {
		s.end(end)
	}
}

func (f *flow) unacknowledged() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.kept) > 0
}

// Move moves the session to another carrier, in order if this one is alive. It is for the dialing side.
func (s *Session) Move() error {
	_, err := s.reopen(context.Background())
	return err
}

// reopen finds another carrier for the session. final says that no later attempt will do.
func (s *Session) reopen(ctx context.Context) (final bool, err error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	conn, err := s.open(ctx)
	if err != nil {
		return false, err
	}
	received, live := s.flow.settled(ctx)
	if !live {
		received = s.flow.pause()
	}
	s.attempt++
	p := position{received, s.attempt, live}
	c, ack, err := s.cfg.greet(conn, s.peer, &hello{field: map[byte][]byte{
		fieldRole: {roleResume}, fieldSession: s.id[:], fieldResume: p.append()}})
	if err != nil {
		return isFinal(err), err
	}
	p = ack.position()
	if err := s.flow.attach(c, p.received, live && p.live); err != nil {
		return true, err
	}
	s.moveStreams()
	return false, nil
}

// isFinal reports whether the other side has refused the session, and not only the moment (PROTOCOL.md, 7.2).
func isFinal(err error) bool {
	var f *Failure
	if !errors.As(err, &f) {
		return false
	}
	switch f.Code {
	case CodeVersion, CodePSKTampered:
		return true
	case CodeNotFound, CodeUnsupported, CodeProtocol, CodeNotAllowed, CodeGoingAway, CodePSKRequired, CodePSKMismatch, CodePSKReplayed, CodePSKUnexpected:
		return f.Refused
	}
	return false
}

// Close ends the session: what has been taken to be sent is sent, and then GOAWAY, which the other side answers with its own.
// All that takes a second at most. What the other side has not handled or read by then, it drops.
func (s *Session) Close() { s.closeFor(ErrClosed) }

func (s *Session) closeFor(reason error) {
	s.mu.Lock()
	if s.err != nil || s.closing {
		s.mu.Unlock()
		return
	}
	s.closing, s.leaving = true, reason
	for _, c := range s.calls {
		c.finish(nil, reason)
	}
	s.changed.Broadcast()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	attached := s.attached()
	_ = s.wait(ctx, func() bool { return s.bodies == 0 }) // what is late is given up
	s.postFailure(typeGoAway, s.lastIn, CodeClosed, "")
	s.saidBye = true
	_ = s.wait(ctx, func() bool { return len(s.out) == 0 && !s.writing && (s.heardBye || !attached) }) // likewise
	s.mu.Unlock()
	if s.flow != nil {
		s.flow.awaitSent(ctx)
	}
	s.end(reason)
}

// awaitSent waits until all has been given to a carrier.
func (f *flow) awaitSent(ctx context.Context) {
	end, _ := ctx.Deadline()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waitFor(time.Until(end), func() bool { return f.cur == nil || f.sent == f.end() && f.writing == 0 })
}

// Drain takes no new work, tells the other side so, and ends the session when nothing is in flight. It returns at once.
func (s *Session) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || s.err != nil {
		return
	}
	s.draining = true
	s.leave(&Failure{Code: CodeGoingAway, Text: "drained"}, !s.attached() && !s.busy())
}

// onGoAway takes the word that the other side takes no new work. mu is held.
func (s *Session) onGoAway(f frame) error {
	why, err := parseFailure(f.payload)
	if err != nil {
		return err
	}
	s.goneAway, s.cutOff = true, s.cutOff || why.Code != CodeGoingAway
	unserved := &Failure{Code: CodeGoingAway, Remote: true, NotSent: true, Text: why.Text}
	for id, c := range s.calls {
		if id > f.id {
			c.finish(nil, unserved)
		}
	}
	for id, st := range s.streams {
		if st.mine && !st.accepted && id > f.id {
			st.fail(unserved)
		}
	}
	s.leave(why, false)
	if why.Code == CodeClosed && !s.heardBye {
		s.heardBye = true
		for _, r := range s.serving { // it does not hear the answers
			r.cancel()
		}
		clear(s.serving)
		reason := s.leaving
		s.running.Go(func() { s.closeFor(reason) })
	}
	return nil
}

// leave ends the session for a reason once nothing is in flight. deserted says that the other side is away, and need not
// come back for that. mu is held.
func (s *Session) leave(reason error, deserted bool) {
	if s.leaving != nil {
		return
	}
	s.leaving = reason
	s.running.Go(func() { s.finishDrain(reason, deserted) })
}

func (s *Session) finishDrain(reason error, deserted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	forever := context.Background()
	if s.draining { // what its callers have queued goes first
		_ = s.wait(forever, func() bool { return s.waiting == 0 }) // the end of the session ends all of these
		s.postFailure(typeGoAway, s.lastIn, CodeGoingAway, "")
	}
	for again := true; again && s.err == nil; again = s.busy() {
		_ = s.wait(forever, func() bool { return !s.busy() })
		if s.draining { // the other side closes, when it sees the same
			ctx, cancel := context.WithTimeout(forever, closeTimeout)
			_ = s.wait(ctx, func() bool { return false })
			cancel()
		}
		if s.flow != nil && (s.attached() || !deserted) {
			s.mu.Unlock()
			_ = s.flow.awaitAcked()
			s.mu.Lock()
		}
	}
	s.mu.Unlock()
	s.closeFor(reason)
	s.mu.Lock()
}

// busy reports whether anything is in flight. mu is held.
func (s *Session) busy() bool {
	return s.waiting > 0 || s.bodies > 0 || len(s.calls) > 0 || len(s.serving) > 0 || s.handlers > 0 || s.outbox.charge > 0 ||
		s.inbox.running || s.inbox.current != nil || len(s.streams) > 0 || s.shared > 0 || len(s.own) > 0 || len(s.out) > 0 || s.writing
}

// An Acceptor is the accepting side of sessions.
type Acceptor struct {
	cfg    Config
	opened func(*Session)

	mu       sync.Mutex
	sessions map[[16]byte]*Session
}

// NewAcceptor returns an Acceptor. opened, if not nil, is called with each session before anything of it is handled.
func NewAcceptor(cfg Config, opened func(*Session)) *Acceptor {
	return &Acceptor{cfg: cfg.withDefaults(), opened: opened, sessions: map[[16]byte]*Session{}}
}

// Serve answers the hello on a carrier that peer has opened, and serves it until it, or its session, has ended. The error is
// that of the hello.
func (a *Acceptor) Serve(conn net.Conn, peer string) error {
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout)) // a closed conn fails in the hello
	h, ack, err := a.cfg.hear(conn, peer)
	var serve func()
	if err == nil {
		serve, err = a.answer(h, ack, peer)
	}
	if err == nil {
		serve()
		return nil
	}
	var f *Failure
	if errors.As(err, &f) {
		refuse := &hello{kind: kindRefuse, version: version, field: map[byte][]byte{fieldFailure: f.append()}}
		_ = writeHello(conn, refuse.append()) // who is gone need not be told
	}
	_ = conn.Close() // likewise
	return err
}

// answer does what h asks for. serve goes on with the carrier; its hello's deadline has been taken off.
func (a *Acceptor) answer(h *hello, ack func(map[byte][]byte) (*carrier, error), peer string) (serve func(), err error) {
	answer := func(field map[byte][]byte) (*carrier, error) {
		c, err := ack(field)
		if err == nil && a.cfg.Keys != nil && h.field[fieldRole][0] == roleStream { // PROTOCOL.md, 5.10
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		return c, err
	}
	if h.field[fieldRole][0] == roleSession {
		return a.answerSession(h, answer, peer)
	}
	a.mu.Lock()
	s := a.sessions[[16]byte(h.field[fieldSession])]
	a.mu.Unlock()
	if s == nil || s.peer != peer || s.flow == nil && h.field[fieldRole][0] == roleResume {
		return nil, &Failure{Code: CodeNotFound, Text: "no such session"}
	}
	if h.field[fieldRole][0] == roleStream {
		return s.answerStream(h, answer)
	}
	return func() {}, s.answerResume(h.position(), answer)
}

func (a *Acceptor) answerSession(h *hello, ack func(map[byte][]byte) (*carrier, error), peer string) (func(), error) {
	s := newSession(a.cfg, h, newID(), peer, nil)
	a.mu.Lock()
	a.sessions[s.id] = s // it may be named as soon as the ACK is out
	a.mu.Unlock()
	forget := func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.sessions, s.id)
	}
	fields := a.cfg.sessionFields()
	fields[fieldSession] = s.id[:]
	c, err := ack(fields)
	if err != nil {
		forget()
		return nil, err
	}
	_ = c.raw.SetDeadline(time.Time{}) // a closed conn fails in the session
	return func() {
		if a.opened != nil {
			a.opened(s)
		}
		s.run(c)
		<-s.done
		forget()
		s.Wait()
	}, nil
}

// answerResume takes a further carrier.
func (s *Session) answerResume(p position, ack func(map[byte][]byte) (*carrier, error)) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	default:
		return &Failure{Code: CodeUnavailable, Text: "another carrier is being taken"}
	}
	if p.attempt <= s.attempt {
		return &Failure{Code: CodeUnavailable, Text: "a later attempt has been made"}
	}
	s.attempt = p.attempt
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTimeout)
	defer cancel()
	received, live := s.flow.settled(ctx)
	if live = live && p.live; !live {
		received = s.flow.pause()
	}
	c, err := ack(map[byte][]byte{fieldResume: position{received, p.attempt, live}.append()})
	if err != nil {
		return err
	}
	_ = c.raw.SetDeadline(time.Time{})     // a closed conn fails in the flow
	_ = s.flow.attach(c, p.received, live) // its error has ended the session
	return nil
}

// newID returns 16 random bytes.
func newID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}
