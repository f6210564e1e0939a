package session

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/hook"
	"github.com/peerlane/peerlane/psk"
)

// hello reads the HELLO on conn and checks its proof of the key. It returns the hello, and a function that sends the ACK and returns the
// carrier. An *Error is a refusal that the peer must receive.
func (a *Acceptor) hello(conn net.Conn, peer string) (h *frame.Hello, ack func(*frame.Hello) (carrier, error), err error) {
	body, err := frame.ReadHello(conn)
	if err != nil {
		return nil, nil, err
	}
	if a.admit != nil {
		if err := a.askAdmit(peer); err != nil {
			return nil, nil, refusalBy(err)
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
