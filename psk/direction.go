package psk

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math"
)

// Sizes of a record (spec 4.1).
const (
	headerSize = 2  // length of what follows, big endian
	tagSize    = 16 // GCM tag

	maxBody = math.MaxUint16 // ciphertext and tag
)

// rekeyInterval is the number of records under one key (spec 4.4). A record has at most 2^12 blocks of 16 bytes, so a key
// encrypts at most 2^32 blocks: below the 2^34.5 of RFC 8446 section 5.5 (2^24.5 records of 2^10 blocks), which leaves an
// attacker an advantage under 2^-64. Nonces are a counter, so the 2^32 calls of NIST SP 800-38D section 8.3, meant for
// random ones, do not bind; they are kept as well.
const rekeyInterval = 1 << 20

// A direction is one way of a sealed conn: the key in force and the number of the next record. Its owner serialises calls.
type direction struct {
	interval uint64 // records per key

	aead  cipher.AEAD
	next  uint64   // number of the next record, over all keys: it never starts again
	nonce [12]byte // scratch: an array on the stack would escape and cost an allocation per record
}

func newDirection(key [keySize]byte, interval uint64) *direction {
	return &direction{interval: interval, aead: newAEAD(key[:])}
}

func newAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("psk: BUG: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("psk: BUG: " + err.Error())
	}
	return aead
}

// appendRecord appends the next record with plain inside to b. No plain makes the end record (spec 4.3). plain has at most
// maxBody-tagSize bytes and does not overlap b.
func (d *direction) appendRecord(b, plain []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, uint16(len(plain)+tagSize))
	b = d.aead.Seal(b, d.setNonce(d.next), plain, b[start:])
	d.advance()
	return b
}

// open appends the content of the next record to dst, or returns ErrTampered and the direction stays where it was.
func (d *direction) open(dst, header, body []byte) ([]byte, error) {
	plain, err := d.aead.Open(dst, d.setNonce(d.next), body, header)
	if err != nil {
		return nil, ErrTampered
	}
	d.advance()
	return plain, nil
}

// advance counts the record and changes the key when its records are used up.
func (d *direction) advance() {
	d.next++
	if d.next == math.MaxUint64 {
		panic("psk: BUG: 2^64-1 records in one direction")
	}
	if d.next%d.interval == 0 {
		d.rekey()
	}
}

// rekey is Noise REKEY (Noise revision 34, section 4.2): the new key is the old one's encryption of 32 zero bytes under
// the reserved nonce.
func (d *direction) rekey() {
	var zeros [keySize]byte
	key := d.aead.Seal(nil, d.setNonce(math.MaxUint64), zeros[:], nil)[:keySize]
	d.aead = newAEAD(key)
	clear(key)
}

// setNonce writes the Noise AESGCM nonce of record n: four zero bytes and n, big endian (spec 4.2).
func (d *direction) setNonce(n uint64) []byte {
	binary.BigEndian.PutUint64(d.nonce[4:], n)
	return d.nonce[:]
}
