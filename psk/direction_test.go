package psk

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/flynn/noise"
	"github.com/stretchr/testify/require"
)

// spyAEAD records every nonce it encrypts under and fails on a second use.
type spyAEAD struct {
	cipher.AEAD
	t    interface{ Fatalf(string, ...any) }
	seen map[string]bool
}

func (s *spyAEAD) Seal(dst, nonce, plain, ad []byte) []byte {
	if s.seen[string(nonce)] {
		s.t.Fatalf("nonce %x used twice", nonce)
	}
	s.seen[string(nonce)] = true
	return s.AEAD.Seal(dst, nonce, plain, ad)
}

// Row: N2
func TestRecordsAreThoseOfTheSpec(t *testing.T) {
	keys, _ := fixedKeys()
	d := newDirection(keys.send, rekeyInterval)
	for n, size := range []int{1, 2, 15, 16, 17, 0, 1000, maxChunk, maxBody - tagSize} {
		plain := bytes.Repeat([]byte{byte(n)}, size)
		got := d.appendRecord([]byte("before"), plain)
		require.Equal(t, specRecord(keys.send[:], uint64(n), plain), got[len("before"):], "%d bytes", size)
	}
}

// Row: N2
func TestRekeyBoundary(t *testing.T) {
	for _, interval := range []uint64{1, 2, 3, 7} {
		keys, _ := fixedKeys()
		send, receive := newDirection(keys.send, interval), newDirection(keys.send, interval)
		reference := noise.UnsafeNewCipherState(suite, keys.send, 0) // Noise's own counter and REKEY
		for n := range 5*interval + 1 {
			plain := fmt.Appendf(nil, "record %d", n)
			wire := send.appendRecord(nil, plain)
			want, err := reference.Encrypt(nil, wire[:headerSize], plain)
			require.NoError(t, err)
			require.Equal(t, want, wire[headerSize:], "record %d of interval %d", n, interval)
			got, err := receive.open(nil, wire[:headerSize], wire[headerSize:])
			require.NoError(t, err, "record %d of interval %d", n, interval)
			require.Equal(t, plain, got)
			if (n+1)%interval == 0 {
				reference.Rekey()
			}
		}
	}
}

// A peer that does not rekey with us is not understood: the interval is part of the format.
func TestRekeyIntervalIsPartOfTheFormat(t *testing.T) {
	keys, _ := fixedKeys()
	send, receive := newDirection(keys.send, 2), newDirection(keys.send, 3)
	for n := range 3 {
		wire := send.appendRecord(nil, []byte("x"))
		_, err := receive.open(nil, wire[:headerSize], wire[headerSize:])
		require.Equal(t, n == 2, err != nil, "record %d: %v", n, err)
	}
}

func TestRekeyIntervalKeepsTheLimits(t *testing.T) {
	const blocksPerRecord = (maxBody + 15) / 16
	blocks := math.Log2(float64(rekeyInterval) * blocksPerRecord)
	require.LessOrEqual(t, blocks, 34.5, "RFC 8446 section 5.5")
	require.LessOrEqual(t, 2*blocks-129, -64.0, "the advantage the doc claims")
	require.LessOrEqual(t, float64(rekeyInterval), math.Exp2(32), "NIST SP 800-38D section 8.3")
}

// Row: S-a
func TestDirectionsHaveTheirOwnKeys(t *testing.T) {
	ring := testRing(t, testKey(t, "one secret"))
	one, other := shake(t, ring, ring, "prologue")
	keys := one.keys.Load()
	require.NotEqual(t, keys.send, keys.receive)
	var wires [2][]byte
	question, answer := []byte("attack at dawn?"), []byte("bring the ladde")
	wires[0] = recordOf(t, one, question)
	wires[1] = recordOf(t, other, answer)
	xor, plain := make([]byte, len(question)), make([]byte, len(question))
	for i := range xor {
		xor[i] = wires[0][headerSize+i] ^ wires[1][headerSize+i]
		plain[i] = question[i] ^ answer[i]
	}
	require.NotEqual(t, plain, xor, "the key streams cancel out: snet's defect")
	require.NotEqual(t, recordOf(t, sameKeys(keys.send), question), recordOf(t, sameKeys(keys.receive), question))
}

// recordOf seals a conn under s, writes plain and returns the bytes of the conn below.
func recordOf(t *testing.T, s *Secrets, plain []byte) []byte {
	keys := *s.keys.Load()
	var wire bytes.Buffer
	s.keys.Store(&keys)
	_, err := Seal(&fakeConn{write: wire.Write}, s).Write(plain)
	require.NoError(t, err)
	s.keys.Store(&keys)
	return wire.Bytes()
}

func sameKeys(key [keySize]byte) *Secrets {
	s := new(Secrets)
	s.keys.Store(&directionKeys{send: key, receive: key})
	return s
}

func TestNonceIsTheNoiseNonce(t *testing.T) {
	d := new(direction)
	require.Equal(t, make([]byte, 12), d.setNonce(0))
	require.Equal(t, []byte{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, d.setNonce(0x0102030405060708))
	require.Equal(t, uint64(math.MaxUint64), binary.BigEndian.Uint64(d.setNonce(math.MaxUint64)[4:]))
}

func TestNonceSpaceIsNeverLeft(t *testing.T) {
	keys, _ := fixedKeys()
	d := newDirection(keys.send, rekeyInterval)
	d.next = math.MaxUint64 - 1
	require.Panics(t, func() { d.appendRecord(nil, []byte("x")) })
}
