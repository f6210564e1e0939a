package psk

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Keyring, Key or Secrets that this package has not made works for nothing, and is no panic.
func TestZeroValuesAreErrors(t *testing.T) {
	var k Keyring
	_, err := k.Initiate(nil)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = k.Respond(nil, KeyID{}, make([]byte, message1Size))
	require.ErrorIs(t, err, ErrMismatch)
	require.ErrorIs(t, k.Rotate(testKey(t, "secret of a test")), ErrInvalid, "it would not know replays")
	require.NotPanics(t, k.Retire)
	require.Empty(t, k.IDs())
	for _, key := range []*Key{nil, {}} {
		_, err = NewKeyring(key)
		require.ErrorIs(t, err, ErrInvalid)
		_, err = NewKeyring(testKey(t, "secret of a test"), key)
		require.ErrorIs(t, err, ErrInvalid)
	}
	for s, want := range map[*Secrets]error{nil: ErrInvalid, new(Secrets): errUsed} {
		here, there := net.Pipe()
		c := Seal(here, s)
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, want)
		_, err = c.Write([]byte{1})
		require.ErrorIs(t, err, want)
		_, _ = c.Close(), there.Close()
	}
	ring := testRing(t, testKey(t, "secret of a test"))
	ring.Retire()
	ring.Retire()
	require.Len(t, ring.IDs(), 1)
}

// Claim: psk.Params.Salt
func TestTheDefaultSaltIsThatOfTheSpec(t *testing.T) {
	cheap := Params{Time: 1, MemoryKiB: 64, Threads: 1}
	with := func(salt string) KeyID {
		p := cheap
		p.Salt = []byte(salt)
		key, err := Derive([]byte("secret of a test"), &p)
		require.NoError(t, err)
		return key.ID()
	}
	require.Equal(t, with(domainSalt), with(""))
	require.NotEqual(t, with(domainSalt), with("another salt"))
}
