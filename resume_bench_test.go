package peerlane

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

// BenchmarkResume measures what outliving the connection costs while nothing is lost: each case with and without it, side
// by side in one run, so that the ratio means something on a busy machine.
func BenchmarkResume(b *testing.B) {
	for _, tr := range []testnet.Transport{testnet.TCPTLS, testnet.QUIC} {
		for _, load := range []string{"call", "stream"} {
			b.Run(string(tr)+"/"+load, func(b *testing.B) { benchmarkResume(b, tr, load) })
		}
	}
}

// benchmarkResume runs turns of both kinds by turns, and reports the time of the one without over that of the one with.
func benchmarkResume(b *testing.B, tr testnet.Transport, load string) {
	with, without := newResumeLoad(b, tr, load, 0), newResumeLoad(b, tr, load, -1)
	var spent [2]time.Duration
	const turn = 200
	b.ResetTimer()
	for n := 0; n < b.N; n += turn {
		for i, run := range []func(int){with, without} {
			began := time.Now()
			run(min(turn, b.N-n))
			spent[i] += time.Since(began)
		}
	}
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "without/with")
	b.ReportMetric(float64(spent[0])/float64(b.N), "ns/with")
}

// newResumeLoad returns what runs n calls of 128 B, or writes of 64 KiB on a shared stream.
func newResumeLoad(b *testing.B, tr testnet.Transport, load string, window time.Duration) func(n int) {
	x, y := testnet.Pair(b, tr)
	s, err := NewServer(y, &ServerConfig{AdmitAll: true, MaxRequestsPerConn: 1 << 30})
	require.NoError(b, err)
	b.Cleanup(func() { _ = s.Stop() })
	s.SetStream("sink", func(st *session.Stream) {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{st}, make([]byte, 64<<10))
	})
	require.NoError(b, s.Start("/bench", echoHandler))
	c, err := NewClient(x, &ClientConfig{AdmitAll: true, ResumeWindow: window})
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	own, err := c.Connect(context.Background(), y.ID(), "/bench")
	require.NoError(b, err)
	if load == "call" {
		body := make([]byte, 128)
		return func(n int) {
			for range n {
				if _, err := own.Call(context.Background(), "", body); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	st, err := own.OpenStream(context.Background(), "sink", nil)
	require.NoError(b, err)
	body := make([]byte, 64<<10)
	return func(n int) {
		for range n {
			if _, err := st.Write(body); err != nil {
				b.Fatal(err)
			}
		}
	}
}
