package psk

import (
	"bytes"
	"fmt"
	"io"

	"github.com/flynn/noise"
)

// Sizes of the handshake messages (spec 3.3, 3.4): an X25519 public key, the payload and a GCM tag.
const (
	dhSize = 32

	// message1Size is the length of every message 1; its payload is empty.
	message1Size = dhSize + tagSize

	// message2Overhead is what message 2 is longer than its payload.
	message2Overhead = dhSize + tagSize

	// maxPayload is the longest payload of message 2: a Noise message is at most 65535 bytes.
	maxPayload = noise.MaxMsgLen - message2Overhead
)

// prologueDomain opens the Noise prologue; the key id and the caller's prologue follow (spec 3.2).
const prologueDomain = "peerlane/psk/1\x00"

var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherAESGCM, noise.HashSHA256)

// An Initiator is the opening side of one handshake, between message 1 and message 2. It is for one goroutine.
type Initiator struct {
	id      KeyID
	message []byte
	state   *noise.HandshakeState // nil once finished
}

// Initiate starts a handshake with the current key. The prologue must be the same bytes on both sides and should name
// both peers in role order, or a message could be sent back to who made it. It fails only if the system's randomness or
// cryptography does, and with ErrInvalid for a Keyring that NewKeyring has not made.
func (k *Keyring) Initiate(prologue []byte) (*Initiator, error) {
	keys := k.live()
	if len(keys) == 0 {
		return nil, errNoKeyring
	}
	key := keys[0]
	state, err := newState(key.m().psk[:], key.m().id, prologue, true, k.random)
	if err != nil {
		return nil, err
	}
	message, _, _, err := state.WriteMessage(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("psk: make message 1: %w", err)
	}
	return &Initiator{id: key.m().id, message: message, state: state}, nil
}

// KeyID returns the id of the key the handshake was started with; the responder needs it.
func (i *Initiator) KeyID() KeyID { return i.id }

// Message returns message 1, 48 bytes. The caller must not change it.
func (i *Initiator) Message() []byte { return i.message }

// Finish reads message 2 and returns its payload and the secrets of the conn. It gives ErrMismatch if the answer does not
// verify, and ErrInvalid on a second call.
func (i *Initiator) Finish(message2 []byte) (payload []byte, s *Secrets, err error) {
	if i.state == nil {
		return nil, nil, fmt.Errorf("%w: initiator", errUsed)
	}
	state := i.state
	i.state = nil
	payload, send, receive, err := state.ReadMessage(nil, message2)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: message 2", ErrMismatch)
	}
	return payload, newSecrets(i.id, state.ChannelBinding(), send, receive), nil
}

// A Responder is the answering side of one handshake, after message 1 has verified. It is for one goroutine.
type Responder struct {
	id    KeyID
	state *noise.HandshakeState // nil once finished
}

// Respond checks message 1. It gives ErrMismatch if the key id is unknown, or the key or the prologue is another, and does
// the same work for each: time does not tell which ids are known. It gives ErrReplayed for a message it has accepted
// before. There is no Diffie-Hellman in it yet (NNpsk0 has that in message 2), so refusing is cheap.
func (k *Keyring) Respond(prologue []byte, id KeyID, message1 []byte) (*Responder, error) {
	secret, known := k.choose(id)
	state, err := newState(secret[:], id, prologue, false, k.random)
	if err != nil {
		return nil, err
	}
	payload, _, _, err := state.ReadMessage(nil, message1)
	if err != nil || known != 1 || len(payload) != 0 {
		return nil, fmt.Errorf("%w: message 1", ErrMismatch)
	}
	if !k.seen.add([dhSize]byte(message1)) {
		return nil, ErrReplayed
	}
	return &Responder{id: id, state: state}, nil
}

// Finish returns message 2 with payload inside, encrypted and bound to the handshake, and the secrets of the conn. It
// fails on a payload of more than 65487 bytes; it gives ErrMismatch if the peer's ephemeral is a point without a secret, and
// ErrInvalid on a second call.
func (r *Responder) Finish(payload []byte) (message2 []byte, s *Secrets, err error) {
	if len(payload) > maxPayload {
		return nil, nil, fmt.Errorf("%w: payload has %d bytes, want at most %d", ErrInvalid, len(payload), maxPayload)
	}
	if r.state == nil {
		return nil, nil, fmt.Errorf("%w: responder", errUsed)
	}
	state := r.state
	r.state = nil
	// The initiator's half comes first in Noise, so the responder receives with it.
	message2, receive, send, err := state.WriteMessage(nil, payload)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: message 2: %w", ErrMismatch, err)
	}
	return message2, newSecrets(r.id, state.ChannelBinding(), send, receive), nil
}

// newState returns a Noise handshake bound to the version, the key id and the caller's prologue.
func newState(secret []byte, id KeyID, prologue []byte, initiator bool, random io.Reader) (*noise.HandshakeState, error) {
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite:           suite,
		Random:                random,
		Pattern:               noise.HandshakeNN,
		Initiator:             initiator,
		Prologue:              bytes.Join([][]byte{[]byte(prologueDomain), id[:], prologue}, nil),
		PresharedKey:          secret,
		PresharedKeyPlacement: 0,
	})
	if err != nil {
		return nil, fmt.Errorf("psk: new handshake: %w", err)
	}
	return state, nil
}
