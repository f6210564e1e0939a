package peerlane

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
)

// While one peer floods a server with bodies that unpack to a thousand times their size, no call of another peer is refused, compressed or
// not, and what the server holds for the flood stays a fraction of what it may. Without turns, the flood took all handlers.
func TestAFloodOfBombsCostsOtherPeersNoCall(t *testing.T) {
	for _, raw := range []int{64 << 10, 1 << 20, 32 << 20} {
		y := testnet.Host(t, testnet.TCPTLS)
		s := newServer(t, y, nil)
		require.NoError(t, s.Start(callTag, echoHandler))
		x := testnet.Host(t, testnet.TCPTLS)
		peerlanetest.Teach(x, y.ID(), y.Addrs()...)
		c := newClient(t, x, patientClient())
		stop := bombard(t, y, raw)
		text := bytes.Repeat([]byte("peerlane "), 8000)
		for began := time.Now(); time.Since(began) < 500*time.Millisecond; {
			for _, body := range [][]byte{[]byte("hello"), text} {
				got, err := c.Send(t.Context(), y.ID(), callTag, body)
				require.NoError(t, err, "bombs of %d", raw)
				require.True(t, bytes.Equal(body, got))
			}
			require.Less(t, s.quota.Snapshot().Bytes, int64(512<<20), "bombs of %d", raw)
		}
		stop()
	}
}
