//go:build !race

// The race detector makes sync.Pool drop buffers at random, so these counts hold without it only.

package resume

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// In steady state neither a Write nor a Read allocates, on either side, nor does what goes on between them.
//
// Row: S1
func TestWriteAndReadDoNotAllocate(t *testing.T) {
	under, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	a, b, stop, err := paired(tcpDial(under.Addr().String()), under)
	require.NoError(t, err)
	defer stop()
	for _, size := range []int{1, 128, 4 << 10, 64 << 10} {
		p, q := make([]byte, size), make([]byte, size)
		turn := func() {
			_, _ = a.Write(p)
			_, _ = io.ReadFull(b, q)
			_, _ = b.Write(q)
			_, _ = io.ReadFull(a, p)
		}
		for range 50 {
			turn()
		}
		each := testing.AllocsPerRun(1000, turn)
		require.Zero(t, each, "%d bytes", size)
	}
}
