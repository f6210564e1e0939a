package session

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/zstd"
)

// A thousand peers, each of a network of its own, with ten sessions each use all but the reserve of a server's sessions, and call on all of
// them at once. None is refused, and the memory is that of the calls. MaxSessions and MaxCalls are eleven times the defaults, MaxBytes is the
// default.
func TestNoHonestPeerIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const each, size = 10, 1 << 10
		peers := 1000
		if raceEnabled {
			peers /= 10
		}
		limit := peers*each*8/7 + 1
		quota := &Quota{MaxSessions: limit, MaxCalls: limit, MaxBytes: 1 << 30}
		c := newGuests(t, Config{Quota: quota, Heartbeat: -1, pacer: zstd.NewPacer()})
		var arrived, called sync.WaitGroup
		arrived.Add(peers * each)
		release := make(chan struct{})
		free := sync.OnceFunc(func() { close(release) })
		defer free()
		body := make([]byte, size)
		_, _ = rand.Read(body) // it is not compressed
		c.acceptor.cfg.Mux.SetLink("all", func(m *Message) {
			arrived.Done()
			<-release
			_ = m.Reply(m.Value)
		})
		for i := range peers {
			for range each {
				s, err := c.dial(fmt.Sprint("peer ", i), fmt.Sprint("net ", i))
				require.NoError(t, err)
				called.Go(func() {
					defer s.Abort()
					for _, link := range []string{"", "all", ""} {
						_, err := s.Call(t.Context(), link, body)
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		arrived.Wait()
		v := quota.Snapshot()
		require.Equal(t, QuotaSnapshot{Sessions: peers * each, Calls: peers * each, Bytes: int64(peers * each * size)}, v)
		free()
		called.Wait()
		require.Zero(t, quota.Snapshot().Refused)
	})
}

// BenchmarkCallsOfOneQuota measures the calls of 64 callers: of one session, of 64 sessions of one peer, and of a session of 64 peers each.
func BenchmarkCallsOfOneQuota(b *testing.B) {
	const callers = 64
	for name, of := range map[string]struct{ peers, sessions int }{
		"one session": {1, 1}, "one peer": {1, callers}, "64 peers": {callers, callers},
	} {
		b.Run(name, func(b *testing.B) {
			mux := NewMux()
			mux.SetCall(echo)
			a, err := NewAcceptor(&AcceptorConfig{Config: Config{Mux: mux,
				Quota: &Quota{MaxSessions: 1000, MaxCalls: 1000, MaxBytes: 1 << 30}}})
			require.NoError(b, err)
			var all []*Session
			for i := range of.sessions {
				here, there := net.Pipe()
				peer := fmt.Sprint("peer ", i%of.peers)
				go func() { _ = a.Serve(from{there, peer}, peer) }()
				s, err := Dial(b.Context(), here, "server", nil, nil)
				require.NoError(b, err)
				defer s.Abort()
				all = append(all, s)
			}
			body := make([]byte, 100)
			var next atomic.Int64
			b.SetParallelism(callers / runtime.GOMAXPROCS(0))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				s := all[int(next.Add(1))%len(all)]
				for pb.Next() {
					if _, err := s.Call(context.Background(), "", body); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
