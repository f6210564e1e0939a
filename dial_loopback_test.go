package peerlane

import (
	"testing"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/stretchr/testify/require"
)

// Row: P5, C5, G23.
func TestAHostDialsItself(t *testing.T) {
	h := testHost(t)
	require.ErrorIs(t, func() error {
		_, err := h.Network().DialPeer(testContext(t), h.ID())
		return err
	}(), swarm.ErrDialToSelf, "libp2p refuses")

	c, far := newPair(t, h, h)
	_, err := c.Write([]byte("to myself"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Equal(t, "to myself", string(readAll(t, far)))
	require.Equal(t, h.ID(), far.RemotePeer())
	require.Empty(t, h.Network().Conns())
}
