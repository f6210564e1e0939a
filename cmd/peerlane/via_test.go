package main

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane"
	"github.com/peerlane/peerlane/peerlanetest"
)

func TestPathsAreShownWhenTheyChange(t *testing.T) {
	var out bytes.Buffer
	p := newPaths(&display{out: &out}, false)
	for _, kind := range []string{"relayed", "relayed", "direct", "direct", "relayed"} {
		p.show("a", nil, kind, kind+", 12 ms")
	}
	p.end()
	p.show("a", nil, "lost", "lost")
	require.Equal(t, "path     relayed, 12 ms\npath     direct, 12 ms\npath     relayed, 12 ms\n", out.String())
}

func TestThePathsOfManyPeersTakeLittleMemory(t *testing.T) {
	var out bytes.Buffer
	p := newPaths(&display{out: &out}, true)
	for i := range 100 * maxPeers {
		p.show(strconv.Itoa(i), nil, "direct", "direct")
		require.LessOrEqual(t, len(p.last), 10*maxPeers)
	}
	require.Equal(t, 100*maxPeers, strings.Count(out.String(), "\n"))
}

// The terminal shows the path with its round trip and the rest of the relay's limit, and the loss of the path. Progress lines and the end
// of a transfer show the current path.
func TestPathsAreShownAsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{
			Delay: 10 * time.Millisecond, Relayed: true, RelayLimit: &relay.RelayLimit{Data: 128 << 10, Duration: time.Hour},
		})
		serverConfig := peerlane.DefaultServerConfig()
		serverConfig.AdmitAll = true
		server, err := peerlane.NewServer(h.Bob, serverConfig)
		require.NoError(t, err)
		defer server.Stop()
		require.NoError(t, server.Start("/t", func(b []byte) ([]byte, error) { return b, nil }))
		out, seen := new(lockedBuffer), 0
		news := func() string {
			text := out.String()[seen:]
			seen += len(text)
			return text
		}
		d := &display{out: out, every: lineEvery}
		d.paths = newPaths(d, false)
		config := peerlane.DefaultClientConfig()
		config.AdmitAll, config.Path, config.OnPath = true, peerlane.AllowRelay, d.paths.onPath
		client, err := peerlane.NewClient(h.Alice, config)
		require.NoError(t, err)
		defer client.Close()
		s, err := client.Connect(t.Context(), h.Bob.ID(), "/t")
		require.NoError(t, err)
		time.Sleep(time.Second)
		by := "relayed by " + h.Relay.Host().ID().String() + ", quic-v1, 40 ms, 127 KiB left, looking for a direct path"
		require.Equal(t, "path     "+by+"\n", news())
		_, err = s.Call(t.Context(), "", bytes.Repeat([]byte("0123456789abcdef"), 2<<10))
		require.NoError(t, err)
		require.Regexp(t, `, 40 ms, (9[0-9]|12[0-9]) KiB left, looking for a direct path$`, d.pathText(s.Peer()))
		require.Equal(t, " relayed", d.kindOfPath(s.Peer()))
		d.paths.showAgain(s.Peer())
		require.Empty(t, news(), "it was just shown")

		peerlanetest.OpenDirect(t, h.Alice, h.Bob)
		time.Sleep(lineEvery + time.Second)
		require.Equal(t, "path     direct, quic-v1, 20 ms\n", news())
		require.Equal(t, ", direct, quic-v1, 20 ms", d.pathText(s.Peer()))
		require.Equal(t, " direct", d.kindOfPath(s.Peer()))
		d.paths.showAgain(s.Peer())
		require.Equal(t, "path     direct, quic-v1, 20 ms\n", news())

		require.NoError(t, h.Bob.Close())
		time.Sleep(time.Second)
		require.Equal(t, "path     lost; looking for another\n", news())
		require.Empty(t, d.pathText(s.Peer()))
		s.Abort()
	})
}

// overLimitedRelay returns two hosts behind a relay with limits, and a client of the one that the other serves.
func overLimitedRelay(t *testing.T) (*peerlanetest.Hosts, *client) {
	t.Helper()
	h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{
		Delay: 10 * time.Millisecond, Relayed: true, RelayLimit: &relay.RelayLimit{Data: 128 << 10, Duration: time.Hour},
	})
	serving := peerlane.DefaultServerConfig()
	serving.AdmitAll = true
	server, err := peerlane.NewServer(h.Bob, serving)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	require.NoError(t, server.Start(defaultTag, func(b []byte) ([]byte, error) { return b, nil }))
	config := clientConfig(time.Minute, 0)
	config.Path = peerlane.AllowRelay
	c, err := peerlane.NewClient(h.Alice, config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return h, &client{Client: c, peer: h.Bob.ID(), tag: defaultTag}
}

// ping and call show the path in the same words as the transfers. ping shows it again when it has changed, and when it ends over a relay.
func TestPingAndCallShowThePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, cl := overLimitedRelay(t)
		by := "relayed by " + h.Relay.Host().ID().String() + ", quic-v1, "
		out := new(lockedBuffer)
		cl.showPath(t.Context(), &display{out: out})
		require.Regexp(t, "^path     "+by+"40 ms, 12[0-9] KiB left, looking for a direct path\n$", out.String())

		s, err := cl.Connect(t.Context(), cl.peer, cl.tag)
		require.NoError(t, err)
		ping := func() error {
			out = new(lockedBuffer)
			c := pingCmd{peerFlags: peerFlags{Timeout: time.Minute}, Count: 4, Interval: 10 * time.Second}
			return c.pings(t.Context(), stdio{nil, out, out}, s)
		}
		require.NoError(t, ping())
		require.Regexp(t, "^"+cl.peer.String()+": "+by+"12[0-9] KiB left, looking for a direct path, not sealed\n"+
			"1: 40.0 ms\n2: 40.0 ms\n3: 40.0 ms\npath     "+by+"40 ms, 12[0-9] KiB left, looking for a direct path\n4: 40.0 ms\n4 pings: ", out.String())

		done := make(chan error)
		go func() { done <- ping() }()
		time.Sleep(15 * time.Second)
		peerlanetest.OpenDirect(t, h.Alice, h.Bob)
		require.NoError(t, <-done)
		require.Regexp(t, "not sealed\n1: 40.0 ms\n2: 40.0 ms\npath     direct, quic-v1, 20 ms\n3: 20.0 ms\n4: 20.0 ms\n4 pings: ", out.String())

		out = new(lockedBuffer)
		cl.showPath(t.Context(), &display{out: out})
		require.Equal(t, "path     direct, quic-v1, 20 ms\n", out.String())
	})
}
