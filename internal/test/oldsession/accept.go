package oldsession

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

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
	s.turn <- struct{}{} // it may be resumed as soon as the ACK is out, and is to have a carrier first
	a.mu.Lock()
	a.sessions[s.id] = s
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
		<-s.turn
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
