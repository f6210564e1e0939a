package peerlane

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

// BenchmarkStream measures one direction of a shared and of a dedicated stream in writes of 64 KiB, beside a bare conn.
func BenchmarkStream(b *testing.B) {
	for _, tr := range []testnet.Transport{testnet.TCPTLS, testnet.QUIC} {
		for _, kind := range []string{"conn", "shared", "dedicated"} {
			b.Run(string(tr)+"/"+kind, func(b *testing.B) { benchmarkStream(b, tr, kind) })
		}
	}
}

func benchmarkStream(b *testing.B, tr testnet.Transport, kind string) {
	x, y := testnet.Pair(b, tr)
	drained := make(chan int64, 1)
	drain := func(r io.ReadCloser) {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 64<<10))
		drained <- n
		_ = r.Close()
	}
	var w interface {
		io.WriteCloser
		CloseWrite() error
	}
	if kind == "conn" {
		l, err := ListenConfig{}.listen(y, "/bench", nil)
		require.NoError(b, err)
		defer func() { _ = l.Close() }()
		go func() {
			c, err := l.accept()
			if err == nil {
				drain(c)
			}
		}()
		c, err := (&Dialer{Host: x, Tag: "/bench"}).Dial(context.Background(), y.ID())
		require.NoError(b, err)
		w = c
	} else {
		s, err := NewServer(y, &ServerConfig{AdmitAll: true})
		require.NoError(b, err)
		defer func() { _ = s.Stop() }()
		s.SetStream("sink", func(st *session.Stream) { drain(st) })
		require.NoError(b, s.Listen("/bench"))
		c, err := NewClient(x, &ClientConfig{AdmitAll: true})
		require.NoError(b, err)
		defer func() { _ = c.Close() }()
		own, err := c.Connect(context.Background(), y.ID(), "/bench")
		require.NoError(b, err)
		st, err := own.OpenStream(context.Background(), "sink", &session.StreamOptions{Dedicated: kind == "dedicated"})
		require.NoError(b, err)
		w = st
	}
	body := make([]byte, 64<<10)
	b.SetBytes(int64(len(body)))
	b.ResetTimer()
	for range b.N {
		if _, err := w.Write(body); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, w.CloseWrite())
	require.Equal(b, int64(b.N*len(body)), <-drained)
	_ = w.Close()
}
