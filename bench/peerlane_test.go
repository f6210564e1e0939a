package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
)

// startPeerlane returns a running service that the end of the test stops.
func startPeerlane(t *testing.T, over transport, psk bool) *peerlaneService {
	t.Helper()
	s, err := peerlaneSend{psk: psk}.Start(over)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return s.(*peerlaneService)
}

func TestPSKContenderRefusesAClientWithoutTheKey(t *testing.T) {
	for _, over := range everyTransport {
		s := startPeerlane(t, over, true)
		ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
		defer cancel()
		keyless, err := peerlane.NewClient(s.hosts.dialer, peerlane.DefaultClientConfig())
		require.NoError(t, err)
		_, err = keyless.Send(ctx, s.hosts.listener.ID(), peerlaneTag, []byte("hello"))
		require.ErrorIs(t, err, peerlane.ErrPSKRequired, "%s", over)
		require.NoError(t, keyless.Close())

		reply, err := s.client.Send(ctx, s.hosts.listener.ID(), peerlaneTag, []byte("hello"))
		require.NoError(t, err, "%s", over)
		require.Equal(t, "hello", string(reply))
	}
}

func TestPlainContenderHasNoKey(t *testing.T) {
	s := startPeerlane(t, overTCP, false)
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	keyed, err := peerlane.NewClient(s.hosts.dialer, peerlane.DefaultClientConfig())
	require.NoError(t, err)
	require.NoError(t, peerlane.UseModernPSKClient(keyed, []byte("a secret that the server lacks"), nil))
	_, err = keyed.Send(ctx, s.hosts.listener.ID(), peerlaneTag, []byte("hello"))
	require.Error(t, err)
	require.NoError(t, keyed.Close())
}
