package peerlane

import (
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// What was written before a session's Close, on the hosts of libp2p. The session's tests prove the rest on links in memory.

func TestAMessageBeforeCloseIsHandled(t *testing.T) {
	const goodbyes = 200
	synctest.Test(t, func(t *testing.T) {
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
		s := newServer(t, hosts.Bob, &ServerConfig{AdmitAll: true})
		var handled atomic.Int64
		s.SetLink("bye", func(*session.Message) { handled.Add(1) })
		require.NoError(t, s.Listen(callTag))
		c := newClient(t, hosts.Alice, &ClientConfig{AdmitAll: true, OnUndelivered: func(err *Error) { t.Error(err) }})
		for range goodbyes {
			own, err := c.Connect(t.Context(), hosts.Bob.ID(), callTag)
			require.NoError(t, err)
			require.NoError(t, own.Send(t.Context(), "bye", []byte("bye")))
			require.NoError(t, own.Close())
		}
		require.EqualValues(t, goodbyes, handled.Load())
	})
}

func TestWhatIsWrittenBeforeTheSessionsCloseIsRead(t *testing.T) {
	const size = 2 << 20
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, &ServerConfig{AdmitAll: true})
		got := make(chan int64, 1)
		s.SetStream("sink", func(st *session.Stream) {
			n, err := io.Copy(io.Discard, st)
			if err != nil {
				t.Error(err)
			}
			got <- n
		})
		require.NoError(t, s.Listen(callTag))
		c := newClient(t, a, &ClientConfig{AdmitAll: true})
		for name, opts := range map[string]*session.StreamOptions{"shared": nil, "dedicated": {Dedicated: true}, "resumable": outlasting} {
			for range 3 {
				own, err := c.Connect(testContext(t), b.ID(), callTag)
				require.NoError(t, err)
				st, err := own.OpenStream(testContext(t), "sink", opts)
				require.NoError(t, err)
				n, err := st.Write(noise(size))
				require.NoError(t, err, name)
				require.NoError(t, st.Close(), name)
				require.NoError(t, own.Close(), name)
				require.EqualValues(t, n, await(t, got, name), name)
			}
		}
	})
}

// A live link of 32 KiB/s is slow and not dead, with all settings at their defaults: a large call loses no carrier, and a neighbour's conn
// on the same connection lives.
func TestALargeCallOverASlowLinkLosesNothing(t *testing.T) {
	const rate = 32 << 10
	synctest.Test(t, func(t *testing.T) {
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 20 * time.Millisecond, Rate: rate})
		s := newServer(t, hosts.Bob, nil)
		require.NoError(t, s.Start(callTag, func([]byte) ([]byte, error) { return nil, nil }))
		near, far := newPair(t, hosts.Alice, hosts.Bob)
		cfg := DefaultClientConfig()
		cfg.ReadTimeout, cfg.EnableCompression = 10*time.Minute, false
		log := newStepLog()
		cfg.OnState = log.note
		c := newClient(t, hosts.Alice, cfg)
		took := timed(func() {
			_, err := c.Send(t.Context(), hosts.Bob.ID(), callTag, noise(40*rate))
			require.NoError(t, err)
		})
		require.Greater(t, took, 40*time.Second)
		require.Less(t, took, 80*time.Second)
		require.Zero(t, log.count(session.StateDetached))
		_, err := near.Write([]byte("still here"))
		require.NoError(t, err)
		_, err = io.ReadFull(far, make([]byte, len("still here")))
		require.NoError(t, err)
	})
}
