package psk

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNewKeyringRefusesWhatCannotWork(t *testing.T) {
	a, b, c := testKey(t, "secret one"), testKey(t, "secret two"), testKey(t, "secret three")
	for name, make := range map[string]func() (*Keyring, error){
		"no current":   func() (*Keyring, error) { return NewKeyring(nil) },
		"zero current": func() (*Keyring, error) { return NewKeyring(&Key{}) },
		"no previous":  func() (*Keyring, error) { return NewKeyring(a, nil) },
		"three keys":   func() (*Keyring, error) { return NewKeyring(a, b, c) },
	} {
		ring, err := make()
		require.ErrorIs(t, err, ErrInvalid, name)
		require.Nil(t, ring, name)
	}
}

// Row: N1
func TestRotateKeepsOnePrevious(t *testing.T) {
	a, b, c := testKey(t, "secret one"), testKey(t, "secret two"), testKey(t, "secret three")
	ring := testRing(t, a)
	require.Equal(t, []KeyID{a.ID()}, ring.IDs())
	require.NoError(t, ring.Rotate(b))
	require.Equal(t, []KeyID{b.ID(), a.ID()}, ring.IDs())
	require.NoError(t, ring.Rotate(b), "rotating to the current key changes nothing")
	require.Equal(t, []KeyID{b.ID(), a.ID()}, ring.IDs())
	require.NoError(t, ring.Rotate(c))
	require.Equal(t, []KeyID{c.ID(), b.ID()}, ring.IDs())
	require.ErrorIs(t, ring.Rotate(nil), ErrInvalid)
	ring.Retire()
	require.Equal(t, []KeyID{c.ID()}, ring.IDs())
	ring.Retire()
	require.Equal(t, []KeyID{c.ID()}, ring.IDs())
	require.Equal(t, []KeyID{a.ID()}, testRing(t, a, a).IDs(), "a previous equal to current is dropped")
}

// The three steps of the Keyring doc, with a handshake both ways after each.
//
// Row: N1
func TestRotationLeavesNoGap(t *testing.T) {
	before, after := testKey(t, "the old secret"), testKey(t, "the new secret")
	a, b := testRing(t, before), testRing(t, before)
	both := func(step string) {
		shake(t, a, b, step+" a to b")
		shake(t, b, a, step+" b to a")
	}
	both("start")
	a = testRing(t, before, after)
	both("a knows the new key")
	b = testRing(t, before, after)
	both("b knows the new key")
	require.NoError(t, a.Rotate(after))
	both("a offers the new key")
	require.NoError(t, b.Rotate(after))
	both("b offers the new key")
	a.Retire()
	b.Retire()
	both("the old key is gone")
	old, err := testRing(t, before).Initiate(nil)
	require.NoError(t, err)
	_, err = a.Respond(nil, old.KeyID(), old.Message())
	require.ErrorIs(t, err, ErrMismatch)
}

func TestKeyringIsSafeForConcurrentUse(t *testing.T) {
	a, b := testKey(t, "secret one"), testKey(t, "secret two")
	ring, peer := testRing(t, a, b), testRing(t, a, b)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { _ = ring.Rotate(b) })
		wg.Go(func() { _ = ring.Rotate(a) })
		wg.Go(func() { _ = ring.IDs() })
		wg.Go(func() { shake(t, ring, peer, "out") })
		wg.Go(func() { shake(t, peer, ring, "in") })
	}
	wg.Wait()
}

func TestChooseGivesTheDummyForUnknownIDs(t *testing.T) {
	a, b := testKey(t, "secret one"), testKey(t, "secret two")
	ring := testRing(t, a, b)
	for _, key := range []*Key{a, b} {
		secret, known := ring.choose(key.ID())
		require.Equal(t, key.m().psk, secret)
		require.Equal(t, 1, known)
	}
	secret, known := ring.choose(KeyID{1})
	require.Equal(t, ring.dummy, secret)
	require.Zero(t, known)
	require.NotEqual(t, ring.dummy, testRing(t, a).dummy)
}
