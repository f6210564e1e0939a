package peerlane

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
)

// BenchmarkSend measures calls of several sizes and numbers of callers; the comparison with others is in bench/.
func BenchmarkSend(b *testing.B) {
	for _, tr := range []testnet.Transport{testnet.TCPTLS, testnet.QUIC} {
		for _, load := range []struct{ size, callers int }{{128, 1}, {128, 64}, {64 << 10, 16}} {
			b.Run(fmt.Sprintf("%s/%dB/%d", tr, load.size, load.callers), func(b *testing.B) {
				benchmarkSend(b, tr, load.size, load.callers)
			})
		}
	}
}

func benchmarkSend(b *testing.B, tr testnet.Transport, size, callers int) {
	x, y := testnet.Pair(b, tr)
	s, err := NewServer(y, nil)
	require.NoError(b, err)
	defer func() { _ = s.Stop() }()
	require.NoError(b, s.Start("/bench", echoHandler))
	c, err := NewClient(x, nil)
	require.NoError(b, err)
	defer func() { _ = c.Close() }()
	body := make([]byte, size)
	_, _ = rand.Read(body)
	_, err = c.Send(context.Background(), y.ID(), "/bench", body)
	require.NoError(b, err)
	b.SetBytes(int64(2 * size))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range callers {
		n := b.N/callers + min(1, max(0, b.N%callers-i))
		wg.Go(func() {
			for range n {
				if _, err := c.Send(context.Background(), y.ID(), "/bench", body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
