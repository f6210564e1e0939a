package psk

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// Row: N1
func TestHandshakeMatrix(t *testing.T) {
	current, previous, other := testKey(t, "the current one"), testKey(t, "the previous one"), testKey(t, "another one")
	server := testRing(t, current, previous)
	for _, test := range []struct {
		name     string
		key      *Key
		id       KeyID
		prologue string
		want     error
	}{
		{"right key", current, current.ID(), "a>b", nil},
		{"previous key", previous, previous.ID(), "a>b", nil},
		{"wrong key under a known id", other, current.ID(), "a>b", ErrMismatch},
		{"right key under the other id", current, previous.ID(), "a>b", ErrMismatch},
		{"unknown id", other, other.ID(), "a>b", ErrMismatch},
		{"right key under an unknown id", current, KeyID{1}, "a>b", ErrMismatch},
		{"changed prologue", current, current.ID(), "b>a", ErrMismatch},
		{"longer prologue", current, current.ID(), "a>b.", ErrMismatch},
		{"no prologue", current, current.ID(), "", ErrMismatch},
	} {
		i, err := testRing(t, test.key).Initiate([]byte(test.prologue))
		require.NoError(t, err, test.name)
		require.Equal(t, test.key.ID(), i.KeyID(), test.name)
		require.Len(t, i.Message(), message1Size, test.name)
		r, err := server.Respond([]byte("a>b"), test.id, i.Message())
		require.ErrorIs(t, err, test.want, test.name)
		require.Equal(t, test.want == nil, r != nil, test.name)
	}
}

// Row: N1
func TestSecretsAgree(t *testing.T) {
	ring := testRing(t, testKey(t, "one secret"))
	a, b := shake(t, ring, testRing(t, testKey(t, "one secret")), "prologue")
	require.Equal(t, a.KeyID(), b.KeyID())
	require.Equal(t, a.binding, b.binding)
	ka, kb := a.keys.Load(), b.keys.Load()
	require.Equal(t, ka.send, kb.receive)
	require.Equal(t, ka.receive, kb.send)
	require.NotEqual(t, ka.send, ka.receive)
	c, _ := shake(t, ring, testRing(t, testKey(t, "one secret")), "prologue")
	require.NotEqual(t, a.binding, c.binding)
	require.NotEqual(t, ka.send, c.keys.Load().send, "a second handshake has other keys")
}

// Row: N1
// Claim: psk.ErrMismatch
func TestMessage1FailsWithAnyBitFlippedOrMissing(t *testing.T) {
	ring := testRing(t, testKey(t, "one secret"))
	i, err := ring.Initiate(nil)
	require.NoError(t, err)
	for at := range 8 * message1Size {
		bad := flip(i.Message(), at)
		_, err := ring.Respond(nil, i.KeyID(), bad)
		require.ErrorIs(t, err, ErrMismatch, "bit %d", at)
	}
	for n := range message1Size {
		_, err := ring.Respond(nil, i.KeyID(), i.Message()[:n])
		require.ErrorIs(t, err, ErrMismatch, "%d bytes", n)
	}
	_, err = ring.Respond(nil, i.KeyID(), append(bytes.Clone(i.Message()), 0))
	require.ErrorIs(t, err, ErrMismatch, "one byte more")
	for at := range 8 * len(KeyID{}) {
		id := i.KeyID()
		id[at/8] ^= 1 << (at % 8)
		_, err = ring.Respond(nil, id, i.Message())
		require.ErrorIs(t, err, ErrMismatch, "id bit %d", at)
	}
	_, err = ring.Respond(nil, i.KeyID(), i.Message())
	require.NoError(t, err, "nothing that failed was remembered as seen")
}

// Row: N1
func TestMessage2FailsWithAnyBitFlippedOrMissing(t *testing.T) {
	ring := testRing(t, testKey(t, "one secret"))
	message2Len := message2Overhead + len("ack")
	finish := func(change func([]byte) []byte) error {
		i, err := ring.Initiate(nil)
		require.NoError(t, err)
		r, err := ring.Respond(nil, i.KeyID(), i.Message())
		require.NoError(t, err)
		message2, _, err := r.Finish([]byte("ack"))
		require.NoError(t, err)
		require.Len(t, message2, message2Len)
		payload, s, err := i.Finish(change(message2))
		if err != nil {
			require.Nil(t, payload)
			require.Nil(t, s)
		}
		return err
	}
	for at := range message2Len {
		err := finish(func(m []byte) []byte { return flip(m, 8*at+at%8) })
		require.ErrorIs(t, err, ErrMismatch, "byte %d", at)
		err = finish(func(m []byte) []byte { return m[:at] })
		require.ErrorIs(t, err, ErrMismatch, "%d bytes", at)
	}
	require.ErrorIs(t, finish(func(m []byte) []byte { return append(m, 0) }), ErrMismatch, "one byte more")
	require.NoError(t, finish(bytes.Clone))
}

// Row: N1
func TestInitiatorRefusesAResponderWithAnotherPrologue(t *testing.T) {
	ring := testRing(t, testKey(t, "one secret"))
	i, err := ring.Initiate([]byte("a>b"))
	require.NoError(t, err)
	// The responder answers another initiator, and the answer is handed to this one.
	other, err := ring.Initiate([]byte("c>b"))
	require.NoError(t, err)
	r, err := ring.Respond([]byte("c>b"), other.KeyID(), other.Message())
	require.NoError(t, err)
	message2, _, err := r.Finish(nil)
	require.NoError(t, err)
	_, _, err = i.Finish(message2)
	require.ErrorIs(t, err, ErrMismatch)
}

// Row: N1
// Claim: psk.ErrReplayed
func TestReplayedHelloIsRefused(t *testing.T) {
	key := testKey(t, "one secret")
	server := testRing(t, key)
	i, err := testRing(t, key).Initiate([]byte("p"))
	require.NoError(t, err)
	_, err = server.Respond([]byte("p"), i.KeyID(), i.Message())
	require.NoError(t, err)
	for range 3 {
		_, err = server.Respond([]byte("p"), i.KeyID(), i.Message())
		require.ErrorIs(t, err, ErrReplayed)
	}
	_, err = server.Respond([]byte("q"), i.KeyID(), i.Message())
	require.ErrorIs(t, err, ErrMismatch, "a replay elsewhere does not even verify")
}

// The doc's reason why a replay that the cache has forgotten is harmless.
//
// Row: N1
func TestForgottenReplayGivesOtherKeys(t *testing.T) {
	key := testKey(t, "one secret")
	i, err := testRing(t, key).Initiate(nil)
	require.NoError(t, err)
	answer := func() ([]byte, *Secrets) {
		r, err := testRing(t, key).Respond(nil, i.KeyID(), i.Message()) // a new keyring has forgotten everything
		require.NoError(t, err)
		message2, s, err := r.Finish(nil)
		require.NoError(t, err)
		return message2, s
	}
	message2, first := answer()
	_, second := answer()
	require.NotEqual(t, first.binding, second.binding)
	_, mine, err := i.Finish(message2)
	require.NoError(t, err)
	require.Equal(t, mine.keys.Load().send, first.keys.Load().receive)
	require.NotEqual(t, mine.keys.Load().send, second.keys.Load().receive)
}

func TestFailedHellosDoNotPoisonTheReplayCache(t *testing.T) {
	key, wrong := testKey(t, "one secret"), testKey(t, "wrong secret")
	server := testRing(t, key)
	i, err := testRing(t, key).Initiate(nil)
	require.NoError(t, err)
	forged := bytes.Clone(i.Message())
	forged[dhSize] ^= 1 // the victim's ephemeral under a tag that does not verify
	for range 3 {
		_, err = server.Respond(nil, i.KeyID(), forged)
		require.ErrorIs(t, err, ErrMismatch)
		w, err := testRing(t, wrong).Initiate(nil)
		require.NoError(t, err)
		_, err = server.Respond(nil, i.KeyID(), w.Message())
		require.ErrorIs(t, err, ErrMismatch)
	}
	require.Empty(t, server.seen.young)
	_, err = server.Respond(nil, i.KeyID(), i.Message())
	require.NoError(t, err)
}

// Claim: psk.ErrInvalid
func TestHandshakeIsUsedOnce(t *testing.T) {
	ring := testRing(t, testKey(t, "one secret"))
	i, err := ring.Initiate(nil)
	require.NoError(t, err)
	r, err := ring.Respond(nil, i.KeyID(), i.Message())
	require.NoError(t, err)
	message2, _, err := r.Finish(nil)
	require.NoError(t, err)
	_, _, err = r.Finish(nil)
	require.ErrorIs(t, err, errUsed)
	_, _, err = i.Finish(message2[1:])
	require.ErrorIs(t, err, ErrMismatch)
	_, _, err = i.Finish(message2)
	require.ErrorIs(t, err, errUsed, "a failure uses it too")
}

func TestPayloadBoundary(t *testing.T) {
	ring := testRing(t, testKey(t, "one secret"))
	for _, n := range []int{0, 1, maxPayload - 1, maxPayload} {
		i, err := ring.Initiate(nil)
		require.NoError(t, err)
		r, err := ring.Respond(nil, i.KeyID(), i.Message())
		require.NoError(t, err)
		_, _, err = r.Finish(make([]byte, maxPayload+1))
		require.ErrorIs(t, err, ErrInvalid, "refused, and the responder is not used up")
		message2, _, err := r.Finish(make([]byte, n))
		require.NoError(t, err, "%d bytes", n)
		require.Len(t, message2, n+message2Overhead)
		payload, _, err := i.Finish(message2)
		require.NoError(t, err, "%d bytes", n)
		require.Len(t, payload, n)
	}
}

func flip(b []byte, bit int) []byte {
	out := bytes.Clone(b)
	out[bit/8] ^= 1 << (bit % 8)
	return out
}
