package peerlanetest_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/peerlanetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call makes a server on b answer the calls of a client on a, and returns a function that makes one and says how long it took.
func call(t *testing.T, a, b host.Host) (once func(size int) time.Duration, client *peerlane.Client) {
	t.Helper()
	server, err := peerlane.NewServer(b, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop() })
	require.NoError(t, server.Start(tag, func(request []byte) ([]byte, error) { return request, nil }))
	config := peerlane.DefaultClientConfig()
	config.Path = peerlane.AllowRelay
	client, err = peerlane.NewClient(a, config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return func(size int) time.Duration {
		t.Helper()
		began := time.Now()
		got, err := client.Send(t.Context(), b.ID(), tag, noise(size))
		require.NoError(t, err)
		require.Len(t, got, size)
		return time.Since(began)
	}, client
}

// Claim: peerlanetest.Hosts.Alice, peerlanetest.Hosts.Bob, peerlanetest.Hosts.Relay, peerlanetest.HostsOptions.Delay
// Claim: peerlanetest.NetworkOptions.Delay
func TestHostsCallEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 50 * time.Millisecond})
		require.Nil(t, h.Relay)
		there, _ := call(t, h.Alice, h.Bob)
		back, _ := call(t, h.Bob, h.Alice)
		for _, once := range []func(int) time.Duration{there, back} {
			once(1)
			require.InDelta(t, 0.1, once(1).Seconds(), 0.001)
		}
		h.SetDelay(200 * time.Millisecond)
		require.InDelta(t, 0.4, there(1).Seconds(), 0.001)
	})
}

// Claim: peerlanetest.HostsOptions.Rate, peerlanetest.NetworkOptions.Rate
func TestHostsSendAtTheirRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const second = 200 << 10
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond, Rate: second})
		once, _ := call(t, h.Alice, h.Bob)
		once(1)
		require.InDelta(t, 10, once(5*second).Seconds(), 5, "5 s there, 5 s back, and what QUIC adds and loses")
	})
}

// Claim: peerlanetest.HostsOptions.Libp2p
func TestHostsHaveTheirOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Libp2p: []libp2p.Option{libp2p.UserAgent("a test's")}})
		require.NoError(t, h.Alice.Connect(t.Context(), peer.AddrInfo{ID: h.Bob.ID()}))
		agent, err := h.Alice.Peerstore().Get(h.Bob.ID(), "AgentVersion")
		require.NoError(t, err)
		require.Equal(t, "a test's", agent)
	})
}

func TestHostsSurviveWhatTheNetworkDoes(t *testing.T) {
	for _, relayed := range []bool{false, true} {
		for name, fault := range map[string]func(h *peerlanetest.Hosts){
			"cut":       func(h *peerlanetest.Hosts) { h.Cut() },
			"cut after": func(h *peerlanetest.Hosts) { h.CutAfter(10 << 10) },
			"freeze": func(h *peerlanetest.Hosts) {
				h.Freeze()
				time.AfterFunc(10*time.Second, h.Thaw)
			},
			"vanish": func(h *peerlanetest.Hosts) {
				h.Vanish(true)
				time.AfterFunc(10*time.Second, func() { h.Vanish(false) })
			},
		} {
			t.Run(map[bool]string{false: "direct ", true: "relayed "}[relayed]+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 5 * time.Millisecond, Relayed: relayed})
					once, client := call(t, h.Alice, h.Bob)
					once(1)
					require.Equal(t, relayed, client.GetConnectionsInfo()[0].Path.Relayed)
					fault(h)
					once(50 << 10)
				})
			})
		}
	}
}

// VanishBetween cuts what goes directly between two hosts, and neither the way over a relay nor that to a third host.
func TestPacketsVanishBetweenTwoHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 5 * time.Millisecond, Relayed: true})
		once, client := call(t, h.Alice, h.Bob)
		peerlanetest.OpenDirect(t, h.Alice, h.Bob)
		once(1)
		require.False(t, client.GetConnectionsInfo()[0].Path.Relayed)
		h.VanishBetween("10.0.0.2", "10.0.0.1", true)
		once(1)
		require.True(t, client.GetConnectionsInfo()[0].Path.Relayed)
		h.VanishBetween("10.0.0.1", "10.0.0.2", false)
		peerlanetest.OpenDirect(t, h.Alice, h.Bob)
		time.Sleep(time.Second)
		once(1)
		require.False(t, client.GetConnectionsInfo()[0].Path.Relayed)
	})
}

func TestAFrozenNetworkHoldsWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond})
		got := make(chan string, 1)
		h.Bob.SetStreamHandler("/x", func(s network.Stream) {
			b, _ := io.ReadAll(s)
			got <- string(b)
		})
		s, err := h.Alice.NewStream(t.Context(), h.Bob.ID(), "/x")
		require.NoError(t, err)
		_, err = s.Write([]byte("hello"))
		require.NoError(t, err)
		h.Freeze()
		require.NoError(t, s.Close())
		time.Sleep(3 * time.Second)
		require.Empty(t, got)
		h.Thaw()
		require.Equal(t, "hello", <-got)
	})
}

// A host that comes back at its address is found there.
func TestAHostMayFollowAnotherAtItsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := peerlanetest.NewNetwork(t, &peerlanetest.NetworkOptions{Delay: time.Millisecond})
		key, _, err := crypto.GenerateEd25519Key(nil)
		require.NoError(t, err)
		a := n.Host("10.0.0.1:4001")
		for range 3 {
			b := n.Host("10.0.0.2:4001", libp2p.Identity(key))
			require.NoError(t, a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}))
			require.NoError(t, b.Close())
			time.Sleep(10 * time.Millisecond) // until a has heard of it
			require.Empty(t, a.Network().ConnsToPeer(b.ID()))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		pid, err := peer.IDFromPrivateKey(key)
		require.NoError(t, err)
		began := time.Now()
		require.Error(t, a.Connect(ctx, peer.AddrInfo{ID: pid}))
		require.Equal(t, 5*time.Second, time.Since(began), "its packets are lost, and QUIC waits")
	})
}
