package psk

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"sync"
)

// errNoKeyring is what a zero Keyring returns.
var errNoKeyring = fmt.Errorf("%w: a Keyring is made by NewKeyring", ErrInvalid)

// maxKeys is how many keys a keyring holds: the current one and, while a rotation is under way, the one before.
const maxKeys = 2

// A Keyring holds the keys in force: Initiate offers the current one, Respond accepts every one. It is safe for
// concurrent use.
//
// To rotate a secret without a gap, first give every side the new key as previous (NewKeyring(old, new)), then Rotate
// each to it, then Retire.
type Keyring struct {
	random io.Reader     // ephemerals; tests replace it
	dummy  [keySize]byte // stands in for the key of an unknown id, so that the work is the same
	seen   replayCache   // message 1 ephemerals that verified

	mu   sync.RWMutex
	keys []*Key // current first; replaced as a whole, never changed
}

// NewKeyring returns a keyring whose current key is current and which also accepts previous. It fails on a missing key
// and on more than one previous; a previous equal to current is dropped.
func NewKeyring(current *Key, previous ...*Key) (*Keyring, error) {
	if len(previous) > maxKeys-1 {
		return nil, fmt.Errorf("%w: %d previous keys, want at most %d", ErrInvalid, len(previous), maxKeys-1)
	}
	k := &Keyring{random: rand.Reader, seen: replayCache{limit: replayGeneration}}
	if _, err := io.ReadFull(rand.Reader, k.dummy[:]); err != nil {
		return nil, fmt.Errorf("psk: new keyring: %w", err)
	}
	for _, key := range previous {
		if err := k.Rotate(key); err != nil {
			return nil, fmt.Errorf("previous key: %w", err)
		}
	}
	if err := k.Rotate(current); err != nil {
		return nil, fmt.Errorf("current key: %w", err)
	}
	return k, nil
}

// Rotate makes next the current key and keeps the one before as previous; an older one is dropped. Conns that are already
// sealed go on. Rotating to the current key changes nothing. It fails only on a missing key, and for a Keyring that NewKeyring
// has not made.
func (k *Keyring) Rotate(next *Key) error {
	if next == nil || next.m == nil {
		return fmt.Errorf("%w: no key", ErrInvalid)
	}
	if k.random == nil {
		return errNoKeyring
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) == 0 {
		k.keys = []*Key{next}
		return nil
	}
	if k.keys[0].m().id != next.m().id {
		k.keys = []*Key{next, k.keys[0]}
	}
	return nil
}

// Retire drops the previous key: from now on only the current one is accepted.
func (k *Keyring) Retire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = k.keys[:min(1, len(k.keys)):min(1, len(k.keys))]
}

// IDs returns the ids of the keys in force, the current one first.
func (k *Keyring) IDs() []KeyID {
	keys := k.live()
	ids := make([]KeyID, len(keys))
	for i, key := range keys {
		ids[i] = key.m().id
	}
	return ids
}

// live returns the keys in force; the slice is never changed.
func (k *Keyring) live() []*Key {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.keys
}

// choose returns the key that id names and 1, or the dummy and 0, without a branch on either.
func (k *Keyring) choose(id KeyID) (secret [keySize]byte, known int) {
	secret = k.dummy
	for _, key := range k.live() {
		match := subtle.ConstantTimeCompare(key.m().id[:], id[:])
		subtle.ConstantTimeCopy(match, secret[:], key.m().psk[:])
		known |= match
	}
	return secret, known
}
