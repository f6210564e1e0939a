package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/psk"
)

// The hello of a carrier (spec 3):
//
//	dialing side                                accepting side
//	HELLO: role, caps, limits [, Noise 1] ────> admission, version, key, role
//	                                      <──── ACK: caps, limits, session id [, Noise 2]  or  REFUSE
//	both: seal, when there is a key
//
// Noise message 1 is bound to both names and to the whole HELLO by its prologue; message 2 carries the hash of that and
// of the whole ACK. So a changed byte of either hello is found before anything of the application runs.

// carrier is a connection whose hello is complete.
type carrier struct {
	raw    net.Conn
	sealed net.Conn // raw itself if there is no key
	tap    *tap     // between the two; nil if there is no key
	id     ID
	theirs *frame.Hello
}

// seal encrypts the carrier with a key.
func (c *carrier) seal(secrets *psk.Secrets) {
	c.tap = &tap{Conn: c.raw, made: time.Now()}
	c.sealed = psk.Seal(c.tap, secrets)
}

// forFlow returns the carrier in the form that a flow uses.
func (c *carrier) forFlow() *flowConn { return &flowConn{Conn: c.sealed, raw: c.raw, tap: c.tap} }

// prologueLabel separates these prologues from any other use of the key.
const prologueLabel = "peerlane psk v1\x00"

// prologue returns the data that Noise is bound to: both names, the tag, and the dialing side's hello.
func prologue(dialer, acceptor, tag string, hello []byte) []byte {
	b := []byte(prologueLabel)
	for _, name := range [...]string{dialer, acceptor, tag} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
	}
	return append(b, hello...)
}

// binding returns the payload of Noise message 2: the hash of the prologue and the answer.
func binding(prologue, ack []byte) []byte {
	h := sha256.New()
	h.Write(prologue)
	h.Write(ack)
	return h.Sum(nil)
}

// Dial opens a session to peer on conn, which it owns from then on: an error closes conn. peer is the name bound into the PSK handshake (a
// Peer ID in its text form) and shown in errors. open, if not nil, opens further connections to the same peer for dedicated streams.
//
// A nil conn is an error, and so is a config that is out of range: the text names the field. Any other error is an *Error with outcome
// NotSent. It matches ErrPSKRequired if only one side has a key, ErrPSKMismatch if the keys differ, ErrPSKTampered if the hello was changed
// on the way, ErrVersion, ErrNotAllowed, ErrUnavailable, the ctx's error, or os.ErrDeadlineExceeded if the peer did not answer within
// HandshakeTimeout.
func Dial(ctx context.Context, conn net.Conn, peer string, open Opener, cfg Config) (*Session, error) {
	if conn == nil {
		return nil, errors.New("session: conn is nil")
	}
	cfg, err := cfg.withDefaults()
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
	s := newSession(cfg, c, true, peer)
	s.open = open
	s.run()
	go s.readLoop()
	return s, nil
}

// greet does the dialing side's hello.
func greet(ctx context.Context, conn net.Conn, peer string, hello *frame.Hello, cfg *Config) (carrier, error) {
	stop := boundHandshake(ctx, conn, cfg.HandshakeTimeout)
	c, err := exchange(conn, peer, hello, cfg)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return c, nil
	}
	var refused *Error
	if !errors.As(err, &refused) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		refused = &Error{Err: err}
	}
	refused.Op, refused.Peer, refused.Outcome = "hello", peer, NotSent
	code := codes.Cancelled
	if hello.Role == frame.RoleSession {
		code = codes.Timeout // the peer may have opened the session already, and must not wait for us to resume it
	}
	drop(conn, code)
	return carrier{}, refused
}

// boundHandshake makes conn fail when ctx ends or the time is over. stop removes the bound, and reports whether ctx had not ended by then.
func boundHandshake(ctx context.Context, conn net.Conn, timeout time.Duration) (stop func() bool) {
	_ = conn.SetDeadline(time.Now().Add(timeout)) // a closed conn fails in the exchange
	unwatch := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(deadline.Past) })
	return func() bool {
		if !unwatch() {
			return false
		}
		_ = conn.SetDeadline(time.Time{})
		return true
	}
}

// exchange sends the hello and reads the answer.
func exchange(conn net.Conn, peer string, hello *frame.Hello, cfg *Config) (carrier, error) {
	hello.Kind, hello.Version, hello.Caps, hello.Agent = frame.KindHello, frame.Version, cfg.caps(), cfg.Agent
	body := frame.AppendHello(nil, hello)
	bound := prologue(cfg.Local, peer, cfg.Tag, body)
	var initiator *psk.Initiator
	if cfg.Keys != nil {
		var err error
		if initiator, err = cfg.Keys.Initiate(bound); err != nil {
			return carrier{}, err
		}
		id := initiator.KeyID()
		hello.Noise = append(id[:], initiator.Message()...)
		body = frame.AppendHello(nil, hello)
	}
	if err := frame.WriteHello(conn, body); err != nil {
		return carrier{}, err
	}
	answer, err := frame.ReadHello(conn)
	if err != nil {
		return carrier{}, fmt.Errorf("no answer: %w", err)
	}
	ack, covered, err := frame.ConsumeHello(answer)
	if err != nil {
		return carrier{}, &Error{Code: codes.Protocol, Err: err}
	}
	if err := checkAck(ack, hello); err != nil {
		return carrier{}, err
	}
	c := carrier{raw: conn, sealed: conn, id: ack.SessionID, theirs: ack}
	if initiator == nil {
		return c, nil
	}
	secrets, err := finishInitiator(initiator, ack, bound, covered)
	if err != nil {
		return carrier{}, err
	}
	c.seal(secrets)
	return c, nil
}

// checkAck returns the peer's refusal, or the error of an invalid answer to hello.
func checkAck(ack, hello *frame.Hello) error {
	switch {
	case ack.Kind == frame.KindRefuse:
		refusal := remote(*ack.Failure)
		refusal.refused = true
		return refusal
	case ack.Kind != frame.KindAck, hello.Role == frame.RoleSession && ack.Limits == nil,
		hello.Role == frame.RoleResume && ack.Resume == nil:
		return &Error{Code: codes.Protocol, Text: "the answer to HELLO is not one"}
	case ack.Version != frame.Version:
		return &Error{Code: codes.Version, Text: fmt.Sprintf("the peer answers in version %d", ack.Version)}
	case hello.Noise != nil && ack.Noise == nil:
		return &Error{Code: codes.PSKRequired, Text: "the peer answers without a proof of the pre-shared key"}
	case hello.Noise == nil && ack.Noise != nil:
		return &Error{Code: codes.PSKUnexpected, Text: "the peer answers with a proof nobody asked for"}
	}
	return nil
}

// finishInitiator verifies the peer's proof, and that the received answer is the one that the peer sent.
func finishInitiator(i *psk.Initiator, ack *frame.Hello, bound, covered []byte) (*psk.Secrets, error) {
	id := i.KeyID()
	if len(ack.Noise) < len(id) || [len(id)]byte(ack.Noise[:len(id)]) != id {
		return nil, &Error{Code: codes.PSKTampered, Text: "the answer names another key"}
	}
	payload, secrets, err := i.Finish(ack.Noise[len(id):])
	if err != nil {
		return nil, &Error{Code: codes.PSKTampered, Err: err}
	}
	if subtle.ConstantTimeCompare(payload, binding(bound, covered)) != 1 {
		return nil, &Error{Code: codes.PSKTampered, Text: "the answer was changed on the way"}
	}
	return secrets, nil
}

// hello reads the HELLO on conn and checks its proof of the key. It returns the hello, and a function that sends the ACK and returns the
// carrier. An *Error is a refusal that the peer must receive.
func (a *Acceptor) hello(conn net.Conn, peer string) (h *frame.Hello, ack func(*frame.Hello) (carrier, error), err error) {
	body, err := frame.ReadHello(conn)
	if err != nil {
		return nil, nil, err
	}
	if a.admit != nil {
		if err := a.askAdmit(peer); err != nil {
			return nil, nil, notAllowed(err)
		}
	}
	h, covered, err := frame.ConsumeHello(body)
	switch {
	case err != nil && len(body) > 1 && body[1] != frame.Version: // another version may have another format
		return nil, nil, a.versionRefusal(body[1])
	case errors.Is(err, frame.ErrCritical):
		return nil, nil, &Error{Code: codes.Unsupported, Text: err.Error()}
	case err != nil:
		return nil, nil, &Error{Code: codes.Protocol, Text: err.Error()}
	case h.Kind != frame.KindHello:
		return nil, nil, &Error{Code: codes.Protocol, Text: "the first thing said is not HELLO"}
	case h.Version < frame.Version:
		return nil, nil, a.versionRefusal(h.Version)
	case h.Role > frame.RoleResume:
		return nil, nil, &Error{Code: codes.Unsupported, Text: fmt.Sprintf("role %d", h.Role)}
	}
	bound := prologue(peer, a.cfg.Local, a.cfg.Tag, covered)
	responder, err := a.prove(h, bound)
	if err != nil {
		return nil, nil, err
	}
	return h, func(ack *frame.Hello) (carrier, error) { return a.sendAck(conn, h, ack, responder, bound) }, nil
}

// askAdmit calls Admit. An Admit that ends its goroutine has admitted no peer.
func (a *Acceptor) askAdmit(peer string) (err error) {
	if hook.Do(func() { err = a.admit(peer) }) != nil {
		return &Error{Code: codes.Internal, Text: "Admit ended its goroutine"}
	}
	return err
}

// notAllowed returns Admit's error as a refusal.
func notAllowed(err error) error {
	var refusal *Error
	switch is := errors.As(err, &refusal); {
	case is && refusal == nil: // a nil *Error in an error, which is not nil
		return &Error{Code: codes.NotAllowed}
	case is && refusal.Code != codes.OK:
		return refusal
	}
	return &Error{Code: codes.NotAllowed, Text: err.Error(), Err: err}
}

func (a *Acceptor) versionRefusal(theirs uint8) error {
	return &Error{Code: codes.Version, Text: fmt.Sprintf("this side speaks version %d, the hello is %d: update the older one",
		frame.Version, theirs)}
}

// prove checks the hello's proof of the key. With a key it does the same work for every hello.
func (a *Acceptor) prove(h *frame.Hello, bound []byte) (*psk.Responder, error) {
	keys := a.cfg.Keys
	if keys == nil {
		if h.Noise != nil {
			return nil, &Error{Code: codes.PSKUnexpected, Text: "this side has no pre-shared key"}
		}
		return nil, nil
	}
	var id psk.KeyID
	copy(id[:], h.Noise)
	responder, err := keys.Respond(bound, id, h.Noise[min(len(h.Noise), len(id)):])
	switch {
	case h.Noise == nil:
		return nil, &Error{Code: codes.PSKRequired, Text: "this side wants a pre-shared key"}
	case err == nil:
		return responder, nil
	case errors.Is(err, psk.ErrReplayed):
		return nil, &Error{Code: codes.PSKReplayed}
	case errors.Is(err, psk.ErrMismatch) && slices.Contains(keys.IDs(), id):
		return nil, &Error{Code: codes.PSKTampered}
	case errors.Is(err, psk.ErrMismatch):
		return nil, &Error{Code: codes.PSKMismatch}
	}
	return nil, &Error{Code: codes.Internal, Err: err}
}

// sendAck completes ack, sends it, and seals the carrier if there is a key.
func (a *Acceptor) sendAck(conn net.Conn, h, ack *frame.Hello, r *psk.Responder, bound []byte) (carrier, error) {
	ack.Kind, ack.Version, ack.Caps, ack.Agent = frame.KindAck, frame.Version, a.cfg.caps(), a.cfg.Agent
	body := frame.AppendHello(nil, ack)
	c := carrier{raw: conn, sealed: conn, id: ack.SessionID, theirs: h}
	if r != nil {
		message, secrets, err := r.Finish(binding(bound, body))
		if err != nil {
			return carrier{}, err
		}
		id := secrets.KeyID()
		ack.Noise = append(id[:], message...)
		body = frame.AppendHello(nil, ack)
		c.seal(secrets)
	}
	if err := frame.WriteHello(conn, body); err != nil {
		return carrier{}, err
	}
	return c, nil
}

// newSessionID returns an unguessable session id.
func newSessionID() (id ID) {
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	return id
}
