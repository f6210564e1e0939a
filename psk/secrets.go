package psk

import (
	"fmt"
	"sync/atomic"

	"github.com/flynn/noise"
)

// Secrets is what a finished handshake leaves: one key per direction, for one Seal.
type Secrets struct {
	id      KeyID
	binding [32]byte                      // the Noise handshake hash: the same on both sides, and on no other conn; not secret
	keys    atomic.Pointer[directionKeys] // nil once sealed
}

type directionKeys struct{ send, receive [keySize]byte }

func newSecrets(id KeyID, binding []byte, send, receive *noise.CipherState) *Secrets {
	s := &Secrets{id: id, binding: [32]byte(binding)}
	s.keys.Store(&directionKeys{send: send.UnsafeKey(), receive: receive.UnsafeKey()})
	return s
}

// KeyID returns the id of the key that both sides proved to hold.
func (s *Secrets) KeyID() KeyID { return s.id }

// Format writes the id of the key for every verb, so that none prints a key.
func (s *Secrets) Format(f fmt.State, _ rune) {
	_, _ = f.Write([]byte("psk secrets of key " + s.id.String()))
}

// take hands the keys out, once: sealing two conns with the same keys would repeat nonces.
func (s *Secrets) take() (*directionKeys, error) {
	if s == nil {
		return nil, fmt.Errorf("%w: no secrets", ErrInvalid)
	}
	keys := s.keys.Swap(nil)
	if keys == nil {
		return nil, fmt.Errorf("%w: secrets", errUsed)
	}
	return keys, nil
}
