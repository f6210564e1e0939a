package peerlane

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
)

// A town is a server and its clients, in memory: two greedy ones in one network, and honest ones in others.
type town struct {
	t       *testing.T
	network *peerlanetest.Network
	host    host.Host // the server's
	server  *Server
	stuck   *stuckHandler
}

func inTown(t *testing.T, cfg ServerConfig, play func(*testing.T, *town)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &town{t: t, network: peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: time.Millisecond})}
		w.host = w.network.Host("10.0.0.1:4001")
		w.server = newServer(t, w.host, &cfg)
		w.stuck = newStuckHandler(t)
		require.NoError(t, w.server.Handle(callTag, func(ctx context.Context, req *Request) ([]byte, error) {
			if string(req.Value) == "stick" {
				return w.stuck.handle(ctx, req)
			}
			return req.Value, nil
		}))
		play(t, w)
	})
}

// client returns a client on a host at an address, which knows the server.
func (w *town) client(at string) *Client {
	w.t.Helper()
	h := w.network.Host(at)
	peerlanetest.Teach(h, w.host.ID(), w.host.Addrs()...)
	cfg := patientClient()
	cfg.AdmitAll = true
	return newClient(w.t, h, cfg)
}

// serves requires that each of n honest peers, each in its own network, is served within a second.
func (w *town) serves(n int) {
	w.t.Helper()
	for i := range n {
		c := w.client(fmt.Sprintf("10.%d.0.1:4001", i+1))
		began := time.Now()
		_, err := c.Send(w.t.Context(), w.host.ID(), callTag, []byte("honest"))
		require.NoError(w.t, err, "peer %d", i)
		require.Less(w.t, time.Since(began), time.Second)
	}
}

func (w *town) greedy(i int) (*Client, peer.ID) {
	return w.client(fmt.Sprintf("10.200.0.%d:4001", i+1)), w.host.ID()
}

// Peers that open all the sessions of a server keep no others from theirs.
func TestPeersWithAllSessionsKeepNobodyOut(t *testing.T) {
	inTown(t, ServerConfig{MaxConcurrentConns: 64}, func(t *testing.T, w *town) {
		for i := range 2 {
			c, server := w.greedy(i)
			for range 64 {
				if _, err := c.Connect(t.Context(), server, callTag); err != nil {
					require.ErrorIs(t, err, ErrUnavailable)
					break
				}
			}
		}
		require.Greater(t, len(w.server.Sessions()), 48)
		w.serves(20)
		require.LessOrEqual(t, w.server.quota.Snapshot().Sessions, 64)
	})
}

// A peer whose slow calls take all places for handlers leaves some for others.
func TestAPeerWithAllHandlersKeepsNobodyOut(t *testing.T) {
	inTown(t, ServerConfig{MaxConcurrentConns: 64}, func(t *testing.T, w *town) {
		c, server := w.greedy(0)
		calls := make(chan error, 64)
		for range 64 {
			go func() {
				_, err := c.Send(t.Context(), server, callTag, []byte("stick"))
				calls <- err
			}()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		require.Equal(t, 56, w.server.quota.Snapshot().Calls, "all but an eighth")
		w.serves(20)
		close(w.stuck.release)
		refused := 0
		for range 64 {
			if err := <-calls; err != nil {
				require.ErrorIs(t, err, ErrUnavailable)
				refused++
			}
		}
		require.Equal(t, 8, refused)
	})
}
