package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
)

func TestABoundedBufferTakesItsLimitAndNoMore(t *testing.T) {
	for n := range 9 {
		strict, lossy := &boundedBuffer{limit: 4}, &boundedBuffer{limit: 4, drop: true}
		_, err := strict.Write(make([]byte, n))
		if n > 4 {
			require.ErrorIs(t, err, errOutputTooLong, "%d bytes", n)
		} else {
			require.NoError(t, err, "%d bytes", n)
			require.Equal(t, n, strict.Len())
		}
		got, err := lossy.Write(make([]byte, n))
		require.NoError(t, err, "%d bytes", n)
		require.Equal(t, n, got, "a short write would end the command")
		require.Equal(t, min(n, 4), lossy.Len())
	}
}

func TestACallThatFindsNoPlaceEndsWithItsCtx(t *testing.T) {
	e := &executor{places: make(chan struct{}), ctx: t.Context()} // no place at all
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := e.handle(ctx, &peerlane.Request{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestACommandDoesNotSeePreSharedKeys(t *testing.T) {
	env := []string{"PATH=/bin", "PEERLANE_PSK=a", "PEERLANE_PSK_OLD=b", "peerlane_psk=c", "MINE=d", "MINE_TOO=e", "PEERLANE_RELAY=f", "=C:=g"}
	require.Equal(t, []string{"PATH=/bin", "MINE_TOO=e", "PEERLANE_RELAY=f", "=C:=g"}, withoutSecrets(env, "MINE"))
	require.Equal(t, []string{"PATH=/bin", "MINE=d", "MINE_TOO=e", "PEERLANE_RELAY=f", "=C:=g"}, withoutSecrets(env, ""))
}
