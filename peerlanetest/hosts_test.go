package peerlanetest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/peerlanetest"
)

func TestRelayVirtual(t *testing.T) {
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Relayed: true, Delay: time.Millisecond,
			RelayLimit: &relay.RelayLimit{Duration: 10 * time.Second, Data: 64 << 20}})
		s, err := peerlane.NewServer(h.Bob, nil)
		require.NoError(t, err)
		require.NoError(t, s.Start("/x", func(b []byte) ([]byte, error) { return b, nil }))
		cfg := peerlane.DefaultClientConfig()
		cfg.Path = peerlane.AllowRelay
		c, err := peerlane.NewClient(h.Alice, cfg)
		require.NoError(t, err)
		defer c.Close()
		defer s.Stop()
		for range 400 {
			time.Sleep(100 * time.Millisecond)
			_, err := c.Send(t.Context(), h.Bob.ID(), "/x", []byte("hello"))
			require.NoError(t, err)
		}
		t.Log(c.GetConnectionsInfo())
		h.Relay.Restart()
		_, err = c.Send(t.Context(), h.Bob.ID(), "/x", []byte("hello"))
		require.NoError(t, err)
	})
	t.Log(time.Since(began))
}
