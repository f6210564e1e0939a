package diagnostics

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/session"
)

// alone returns a client and a server on one host, which connects to itself within the process.
func alone(t testing.TB, server *peerlane.ServerConfig) (host.Host, *peerlane.Client, *peerlane.Server) {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay())
	require.NoError(t, err)
	t.Cleanup(func() { _ = h.Close() })
	s, err := peerlane.NewServer(h, server)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Stop() })
	c, err := peerlane.NewClient(h, &peerlane.ClientConfig{AdmitAll: true, Heartbeat: time.Hour})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, s.Start(tag, echo))
	return h, c, s
}

// The bound is loose, because the machine may be busy. The log has the time.
func TestASnapshotOfTenThousandSessions(t *testing.T) {
	count := 10_000
	if raceEnabled {
		count = 400 // enough for the detector, which makes each take ten times as long
	}
	h, c, s := alone(t, &peerlane.ServerConfig{AdmitAll: true, MaxConcurrentConns: 2 * count, IdleTimeout: time.Hour, Heartbeat: time.Hour})
	var opening sync.WaitGroup
	for range 4 {
		opening.Go(func() {
			for range count / 4 {
				if _, err := c.Connect(t.Context(), h.ID(), tag); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	opening.Wait()
	best := time.Hour
	var v ServerSnapshot
	for range 5 {
		began := time.Now()
		v = OfServer(s)
		best = min(best, time.Since(began))
	}
	require.Len(t, v.Sessions, count)
	require.Len(t, OfClient(c).Sessions, count)
	began := time.Now()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	t.Logf("snapshot: %v; JSON: %d bytes in %v", best, len(b), time.Since(began))
	require.Less(t, best, 2*time.Second)
}

// Snapshots are taken while everything changes.
func TestSnapshotsDuringTraffic(t *testing.T) {
	h, c, s := alone(t, &peerlane.ServerConfig{AdmitAll: true, MaxRequestsPerConn: 5})
	s.SetStream("echo", func(st *session.Stream) { _, _ = st.Write([]byte("x")) })
	var work sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		work.Go(func() {
			for range 100 {
				if _, err := c.Send(t.Context(), h.ID(), tag, []byte("x")); err != nil {
					t.Error(err)
				}
				ours, err := c.Connect(t.Context(), h.ID(), tag)
				if err != nil {
					t.Error(err)
					continue
				}
				if st, err := ours.OpenStream(t.Context(), "echo", nil); err == nil {
					_, _ = st.Read(make([]byte, 1))
					_ = st.Close()
				}
				_ = ours.Close()
			}
		})
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, err := json.Marshal(all{OfClient(c), OfServer(s), Summary(OfClient(c), OfServer(s))})
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	work.Wait()
	close(stop)
	watch.Wait()
}

// BenchmarkSnapshot takes snapshots of a server with 1000 sessions.
func BenchmarkSnapshot(b *testing.B) {
	h, c, s := alone(b, &peerlane.ServerConfig{AdmitAll: true, MaxConcurrentConns: 2000, IdleTimeout: time.Hour})
	for range 1000 {
		_, err := c.Connect(b.Context(), h.ID(), tag)
		require.NoError(b, err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = OfServer(s)
	}
}
