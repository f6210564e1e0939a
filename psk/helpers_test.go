package psk

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
)

func TestMain(m *testing.M) {
	procs.One()
	goleak.VerifyTestMain(m)
}

// cheap is the least Argon2id there is: the tests are not about its cost.
var cheap = &Params{Time: 1, MemoryKiB: 8, Threads: 1}

func testKey(t testing.TB, secret string) *Key {
	t.Helper()
	key, err := Derive([]byte(secret), cheap)
	require.NoError(t, err)
	return key
}

func testRing(t testing.TB, current *Key, previous ...*Key) *Keyring {
	t.Helper()
	ring, err := NewKeyring(current, previous...)
	require.NoError(t, err)
	return ring
}

// shake runs a whole handshake and returns the secrets of both sides.
func shake(t testing.TB, from, to *Keyring, prologue string) (initiator, responder *Secrets) {
	t.Helper()
	i, err := from.Initiate([]byte(prologue))
	require.NoError(t, err)
	r, err := to.Respond([]byte(prologue), i.KeyID(), i.Message())
	require.NoError(t, err)
	message2, responder, err := r.Finish([]byte("ack"))
	require.NoError(t, err)
	payload, initiator, err := i.Finish(message2)
	require.NoError(t, err)
	require.Equal(t, "ack", string(payload))
	return initiator, responder
}

// fixedKeys are the keys of the two sides of a conn in tests that need the same bytes every time.
func fixedKeys() (a, b *directionKeys) {
	var one, two [keySize]byte
	for i := range keySize {
		one[i], two[i] = byte(i), byte(0x80+i)
	}
	return &directionKeys{send: one, receive: two}, &directionKeys{send: two, receive: one}
}

// sealPair seals both ends under fixed keys.
func sealPair(a, b net.Conn) (*sealedConn, *sealedConn) {
	ka, kb := fixedKeys()
	return newConn(a, ka, rekeyInterval), newConn(b, kb, rekeyInterval)
}

// sealedPipe returns both ends of a sealed net.Pipe and closes them after the test.
func sealedPipe(t testing.TB) (*sealedConn, *sealedConn) {
	t.Helper()
	a, b := sealPair(net.Pipe())
	t.Cleanup(func() {
		_ = a.NetConn().Close()
		_ = b.NetConn().Close()
	})
	return a, b
}

// tcpPair returns both ends of a loopback TCP conn.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	a, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	b, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
	})
	return a, b
}
