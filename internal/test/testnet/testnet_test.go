package testnet

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/internal/test/procs"
)

func TestMain(m *testing.M) {
	procs.Parallel(8)
	goleak.VerifyTestMain(m)
}

func TestPairsConnectOverTheirTransportBothWays(t *testing.T) {
	t.Parallel() // it waits for real
	for _, tr := range append(All(), WebTransport, LimitedRelay) {
		t.Run(string(tr), func(t *testing.T) {
			a, b := Pair(t, tr)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for _, h := range []struct {
				from, to interface{ Network() network.Network }
			}{{a, b}, {b, a}} {
				to := h.to.Network().LocalPeer()
				c, err := h.from.Network().DialPeer(network.WithAllowLimitedConn(ctx, "test"), to)
				require.NoError(t, err)
				require.Equal(t, tr == LimitedRelay, c.Stat().Limited)
				require.NoError(t, c.Close())
			}
		})
	}
}
