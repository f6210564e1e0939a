//go:build unix

package diagnostics

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
)

// BenchmarkWatchedCalls shows what a snapshot of both sides each 100 ms adds to a call: compare cpu-ns/op, over some 10 s (-benchtime 10s).
func BenchmarkWatchedCalls(b *testing.B) {
	for name, watched := range map[string]bool{"alone": false, "watched": true} {
		b.Run(name, func(b *testing.B) {
			there, here := testnet.Host(b, testnet.TCPTLS), testnet.Host(b, testnet.TCPTLS)
			peerlanetest.Teach(here, there.ID(), there.Addrs()...)
			server, err := peerlane.NewServer(there, nil)
			require.NoError(b, err)
			defer func() { _ = server.Stop() }()
			require.NoError(b, server.Start(tag, echo))
			client, err := peerlane.NewClient(here, nil)
			require.NoError(b, err)
			defer func() { _ = client.Close() }()
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			body := make([]byte, 100)
			call := func() {
				_, err := client.Send(ctx, there.ID(), tag, body)
				require.NoError(b, err)
			}
			call()
			if watched {
				go watch(ctx, client, server)
			}
			before := spent()
			for b.Loop() {
				call()
			}
			b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// watch takes snapshots until ctx ends.
func watch(ctx context.Context, c *peerlane.Client, s *peerlane.Server) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = Summary(OfClient(c), OfServer(s))
		}
	}
}

// spent returns the time that this process has had of the processors.
func spent() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails for this process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
