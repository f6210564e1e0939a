package session

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/frame"
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
