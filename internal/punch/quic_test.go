package punch

import (
	"crypto/rand"
	"net"
	"net/netip"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"
)

// A closing socket says whether it was closed.
type closing struct {
	net.PacketConn
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

// A full resource manager lets no connection be.
type full struct{ network.NullResourceManager }

func (*full) OpenConnection(network.Direction, bool, ma.Multiaddr) (network.ConnManagementScope, error) {
	return nil, network.ErrResourceLimitExceeded
}

func TestASocketIsClosedWhenItsDialFails(t *testing.T) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	require.NoError(t, err)
	tr := &quicTransport{key: key, limits: &full{}, routes: make(map[route]net.PacketConn)}
	a := ma.StringCast("/ip4/11.0.0.1/udp/4001/quic-v1")
	socket := &closing{}
	done := tr.through(route{"peer", udpOf(a)}, socket)
	_, err = tr.Dial(t.Context(), a, "peer")
	require.ErrorIs(t, err, network.ErrResourceLimitExceeded)
	done()
	require.True(t, socket.closed)
}

// Two peers may name the same address, and one peer may be dialed there twice.
func TestSocketsForOneAddressAreKeptApart(t *testing.T) {
	tr := &quicTransport{routes: make(map[route]net.PacketConn)}
	to := netip.MustParseAddrPort("11.0.0.1:4001")
	a, b, c := &closing{}, &closing{}, &closing{}
	doneA, doneB, doneC := tr.through(route{"a", to}, a), tr.through(route{"b", to}, b), tr.through(route{"a", to}, c)
	require.True(t, a.closed)
	require.Equal(t, b, tr.take(route{"b", to}))
	doneA()
	doneB()
	require.False(t, b.closed)
	require.False(t, c.closed)
	doneC()
	require.True(t, c.closed)
}
