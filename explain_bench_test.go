package peerlane

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
)

// BenchmarkRefusedDial dials a tag that the peer does not serve, over an open connection. The error carries an Explanation.
func BenchmarkRefusedDial(b *testing.B) {
	from, to := testnet.Pair(b, testnet.TCPTLS)
	require.NoError(b, from.Connect(b.Context(), peer.AddrInfo{ID: to.ID()}))
	d := Dialer{Host: from, Tag: testTag}
	for b.Loop() {
		_, err := d.Dial(b.Context(), to.ID())
		require.Error(b, err)
	}
}

// BenchmarkExplanation is the cost that an Explanation adds to a failed dial of a peer with many addresses.
func BenchmarkExplanation(b *testing.B) {
	from, to := testnet.Pair(b, testnet.TCPTLS)
	for i := range 30 {
		peerlanetest.Teach(from, to.ID(), quicAt([]string{"11.0.0.1", "11.0.0.2", "11.0.0.3"}[i%3]).Encapsulate(to.Addrs()[0]))
	}
	d := Dialer{Host: from, Tag: testTag}
	err := d.dialError(to.ID(), notServed([]protocol.ID{testTag}))
	_, t := withTrail(b.Context())
	b.ReportAllocs()
	for b.Loop() {
		_ = d.explain(to.ID(), testTag, nil, t, err)
	}
}
