package psk

import (
	"bytes"
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"
)

// minSecret is the length of the shortest secret Derive takes, in bytes.
const minSecret = 8

// The domains of the two values that come out of the Argon2id root (spec 2.2).
const (
	domainPSK   = "peerlane/psk/1 noise psk"
	domainKeyID = "peerlane/psk/1 key id"
)

const keySize = 32

// A KeyID names a key on the wire. It is derived from the key, so two sides with the same secret have the same id
// without configuring one; it tells nothing else about the key.
type KeyID [8]byte

// String returns the id in hex.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// A Key is a derived pre-shared key and its id. It is immutable, safe for concurrent use, and prints as its id only.
type Key struct {
	// m is a func because fmt, which cannot call Format on an unexported field of a caller's struct, would follow a
	// pointer; of a func it prints the address.
	m func() *keyMaterial
}

type keyMaterial struct {
	psk [keySize]byte
	id  KeyID
}

// Derive returns the key of a secret: Argon2id, then one HKDF output for the key and one for its id. It fails on a secret
// shorter than 8 bytes and on invalid params; nil params are the defaults. It takes the time and memory that Params
// says, so call it once per secret. The secret is copied for the call and not kept. Under GODEBUG=fips140=only, which
// forbids what the handshake is made of, it fails with errors.ErrUnsupported.
func Derive(secret []byte, p *Params) (*Key, error) {
	if fips140.Enforced() {
		return nil, fmt.Errorf("psk: derive under GODEBUG=fips140=only: %w", errors.ErrUnsupported)
	}
	if len(secret) < minSecret {
		return nil, fmt.Errorf("%w: the secret has %d bytes, want at least %d", ErrInvalid, len(secret), minSecret)
	}
	params := p.withDefaults()
	if err := params.validate(); err != nil {
		return nil, err
	}
	own := bytes.Clone(secret)
	defer clear(own)
	root := argon2.IDKey(own, params.Salt, params.Time, params.MemoryKiB, params.Threads, keySize)
	defer clear(root)
	return newKey(root)
}

// newKey splits the Argon2id root into key and id.
func newKey(root []byte) (*Key, error) {
	m := new(keyMaterial)
	if err := expand(m.psk[:], root, domainPSK); err != nil {
		return nil, err
	}
	if err := expand(m.id[:], root, domainKeyID); err != nil {
		return nil, err
	}
	return &Key{m: func() *keyMaterial { return m }}, nil
}

// expand fills out with HKDF-SHA256(root, no salt, domain).
func expand(out, root []byte, domain string) error {
	b, err := hkdf.Key(sha256.New, root, nil, domain, len(out))
	if err != nil {
		return fmt.Errorf("psk: derive %q: %w", domain, err)
	}
	copy(out, b)
	clear(b)
	return nil
}

// ID returns the id of the key; that of the zero Key is zero.
func (k *Key) ID() KeyID {
	if k.m == nil {
		return KeyID{}
	}
	return k.m().id
}

// Format writes the id of the key for every verb, so that none prints the key.
func (k Key) Format(f fmt.State, _ rune) {
	text := "psk key (none)"
	if k.m != nil {
		text = "psk key " + k.ID().String()
	}
	_, _ = f.Write([]byte(text))
}
