package node

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/punch"
)

// Claim: node.Options.HolePunch, node.Options.NoWide
func TestHolePunchStartsTheService(t *testing.T) {
	for _, test := range []struct {
		o            Options
		punches, all bool
	}{
		{o: Options{}},
		{o: Options{HolePunch: true}, punches: true, all: true},
		{o: Options{HolePunch: true, NoWide: true}, punches: true},
	} {
		test.o.Loopback = true
		n, err := New(t.Context(), &test.o)
		require.NoError(t, err)
		protocols := n.Host().Mux().Protocols()
		require.Equal(t, test.punches, punch.Of(n.Host()) != nil)
		require.Equal(t, test.punches, slices.Contains(protocols, punch.Protocol))
		require.Equal(t, test.punches, slices.Contains(protocols, "/libp2p/dcutr"))
		require.Equal(t, test.all, slices.Contains(protocols, "/peerlane/punch-wide/1.0.0"))
		require.NoError(t, n.Close())
		require.NoError(t, n.Close())
	}
}
