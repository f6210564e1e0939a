package oldsession

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
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

// Move moves the session to another carrier, in order if this one is alive. It is for the dialing side.
func (s *Session) Move() error {
	ctx, cancel := context.WithTimeout(s.ctx, reopenTimeout)
	defer cancel()
	_, err := s.reopen(ctx)
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
