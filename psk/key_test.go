package psk

import (
	"bytes"
	"crypto/fips140"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// Claim: psk.Derive
func TestDeriveRefusesShortSecrets(t *testing.T) {
	for n := range minSecret {
		_, err := Derive(make([]byte, n), cheap)
		require.ErrorIs(t, err, ErrInvalid, "%d bytes", n)
	}
	_, err := Derive(make([]byte, minSecret), cheap)
	require.NoError(t, err)
}

func TestDeriveLeavesTheSecretAlone(t *testing.T) {
	secret := []byte("correct horse battery staple")
	before := bytes.Clone(secret)
	key, err := Derive(secret, cheap)
	require.NoError(t, err)
	require.Equal(t, before, secret)
	id := key.ID()
	clear(secret)
	require.Equal(t, id, key.ID(), "the key must not alias the secret")
}

// The test runs itself again in that mode. Without the check the first hello of a peer would panic.
func TestDeriveIsUnsupportedInFIPSOnlyMode(t *testing.T) {
	if fips140.Enforced() {
		_, err := Derive([]byte("long enough"), cheap)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	again := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	again.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := again.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
}

func TestKeyIDIsIndependentOfTheKey(t *testing.T) {
	key := testKey(t, "one secret")
	require.NotContains(t, string(key.m().psk[:]), string(key.m().id[:]))
	require.NotEqual(t, key.ID(), testKey(t, "two secret").ID())
	require.Equal(t, key.ID(), testKey(t, "one secret").ID())
}

func TestNothingPrintsAKey(t *testing.T) {
	key := testKey(t, "a secret nobody prints")
	ring := testRing(t, key)
	secrets, _ := shake(t, ring, ring, "prologue")
	leaks := [][]byte{key.m().psk[:], secrets.keys.Load().send[:], secrets.keys.Load().receive[:]}
	holder := struct{ key Key }{*key}
	a, b := net.Pipe()
	defer func() { require.NoError(t, errors.Join(a.Close(), b.Close())) }()
	other, _ := shake(t, ring, ring, "prologue")
	leaks = append(leaks, other.keys.Load().send[:], other.keys.Load().receive[:])
	conn := Seal(a, other)
	for _, v := range []any{key, *key, Key{}, ring, secrets, holder, &holder, conn} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o"} {
			out := fmt.Sprintf(verb, v)
			for _, leak := range leaks {
				for _, form := range []string{verb, "%x", "%X", "%v", "%d", "%s"} {
					shown := fmt.Sprintf(form, leak)
					require.NotContains(t, out, shown[1:len(shown)-1], "%T with %s", v, verb)
				}
			}
		}
	}
	require.Equal(t, "psk key "+key.ID().String(), fmt.Sprintf("%d", key))
	require.Equal(t, "psk key (none)", fmt.Sprint(Key{}))
	require.Zero(t, new(Key).ID())
	require.Equal(t, "psk secrets of key "+key.ID().String(), fmt.Sprintf("%#v", secrets))
}
