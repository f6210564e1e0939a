package psk

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// specState is a second implementation of spec 3 and 4, written from SPEC.md and sharing nothing with the package: what it
// agrees on is in the text.
type specState struct {
	ck, h, k []byte
	n        uint64
}

func newSpecState(psk, id, prologue []byte) *specState {
	name := []byte("Noise_NNpsk0_25519_AESGCM_SHA256")
	s := &specState{ck: name, h: name}
	s.mixHash([]byte("peerlane/psk/1\x00"), id, prologue)
	out := s.hkdf(psk, 3)
	s.ck, s.k, s.n = out[:32], out[64:], 0
	s.mixHash(out[32:64])
	return s
}

func (s *specState) mixHash(parts ...[]byte) {
	h := sha256.New()
	h.Write(s.h)
	for _, p := range parts {
		h.Write(p)
	}
	s.h = h.Sum(nil)
}

func (s *specState) hkdf(input []byte, outputs int) []byte {
	out, err := hkdf.Key(sha256.New, input, s.ck, "", 32*outputs)
	if err != nil {
		panic(err)
	}
	return out
}

func (s *specState) mixKey(input []byte) {
	out := s.hkdf(input, 2)
	s.ck, s.k, s.n = out[:32], out[32:], 0
}

// mixEphemeral is the e token of a psk pattern: the public key goes into the hash and the key.
func (s *specState) mixEphemeral(public []byte) {
	s.mixHash(public)
	s.mixKey(public)
}

func (s *specState) seal(plain []byte) []byte {
	out := specSeal(s.k, s.n, plain, s.h)
	s.mixHash(out)
	s.n++
	return out
}

func (s *specState) open(t *testing.T, sealed []byte) []byte {
	plain, err := specAEAD(s.k).Open(nil, specNonce(s.n), sealed, s.h)
	require.NoError(t, err)
	s.mixHash(sealed)
	s.n++
	return plain
}

// split returns the key of the initiator's records and the key of the responder's.
func (s *specState) split() (initiator, responder []byte) {
	out := s.hkdf(nil, 2)
	return out[:32], out[32:]
}

func specAEAD(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func specNonce(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4), n) }

func specSeal(key []byte, n uint64, plain, ad []byte) []byte {
	return specAEAD(key).Seal(nil, specNonce(n), plain, ad)
}

// specRecord is spec 4.1.
func specRecord(key []byte, n uint64, plain []byte) []byte {
	header := binary.BigEndian.AppendUint16(nil, uint16(len(plain)+16))
	return append(header, specSeal(key, n, plain, header)...)
}

// Row: N1
func TestSpecInitiatorTalksToTheResponder(t *testing.T) {
	key := testKey(t, "one secret")
	private, err := ecdh.X25519().NewPrivateKey(seq(1, 32))
	require.NoError(t, err)
	public := private.PublicKey().Bytes()

	spec := newSpecState(key.m().psk[:], key.m().id[:], []byte("prologue"))
	spec.mixEphemeral(public)
	message1 := append(public, spec.seal(nil)...)

	r, err := testRing(t, key).Respond([]byte("prologue"), key.ID(), message1)
	require.NoError(t, err)
	message2, s, err := r.Finish([]byte("the answer"))
	require.NoError(t, err)

	spec.mixEphemeral(message2[:32])
	remote, err := ecdh.X25519().NewPublicKey(message2[:32])
	require.NoError(t, err)
	shared, err := private.ECDH(remote)
	require.NoError(t, err)
	spec.mixKey(shared)
	require.Equal(t, "the answer", string(spec.open(t, message2[32:])))
	binding := s.binding
	require.Equal(t, spec.h, binding[:])
	send, receive := spec.split()
	require.Equal(t, send, s.keys.Load().receive[:])
	require.Equal(t, receive, s.keys.Load().send[:])
}

// A peer that holds the key may still send a point of small order, which would make the keys predictable.
func TestLowOrderEphemeralIsRefused(t *testing.T) {
	key := testKey(t, "one secret")
	zero := make([]byte, dhSize)
	spec := newSpecState(key.m().psk[:], key.m().id[:], nil)
	spec.mixEphemeral(zero)
	r, err := testRing(t, key).Respond(nil, key.ID(), append(zero, spec.seal(nil)...))
	require.NoError(t, err, "it verifies: the peer has the key")
	_, s, err := r.Finish(nil)
	require.ErrorIs(t, err, ErrMismatch)
	require.Nil(t, s)
}

// The key that stands in for an unknown id is random; were it known, it would still admit nobody.
//
// Row: N1
func TestDummyKeyAdmitsNobody(t *testing.T) {
	ring, unknown := testRing(t, testKey(t, "one secret")), KeyID{1, 2, 3}
	public := seq(9, dhSize)
	spec := newSpecState(ring.dummy[:], unknown[:], nil)
	spec.mixEphemeral(public)
	_, err := ring.Respond(nil, unknown, append(public, spec.seal(nil)...))
	require.ErrorIs(t, err, ErrMismatch)
	require.Empty(t, ring.seen.young)
}

// A message 1 with a payload verifies, but has none in this version.
func TestMessage1WithAPayloadIsRefused(t *testing.T) {
	key := testKey(t, "one secret")
	public := seq(9, dhSize)
	spec := newSpecState(key.m().psk[:], key.m().id[:], nil)
	spec.mixEphemeral(public)
	ring := testRing(t, key)
	_, err := ring.Respond(nil, key.ID(), append(public, spec.seal([]byte("x"))...))
	require.ErrorIs(t, err, ErrMismatch)
	require.Empty(t, ring.seen.young)
}

// seq returns n bytes that count up from start.
func seq(start byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = start + byte(i)
	}
	return b
}
