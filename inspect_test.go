package peerlane

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/registry"
	"github.com/peerlane/peerlane/internal/test/oldpeer"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// What package diagnostics shows of a Client and a Server beside their sessions; its own tests have the rest.
//
// Claim: peerlane.Client.Sessions, peerlane.Client.ForDiagnostics, peerlane.Server.ForDiagnostics
func TestWhatDiagnosticsShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
		server, err := NewServer(h.Bob, &ServerConfig{AdmitAll: true})
		require.NoError(t, err)
		t.Cleanup(func() { _ = server.Stop() })
		held := make(chan struct{})
		require.NoError(t, server.Start("/b", func(request []byte) ([]byte, error) {
			<-held
			return request, nil
		}))
		require.NoError(t, server.Listen("/a"))
		client, err := NewClient(h.Alice, &ClientConfig{AdmitAll: true})
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close() })
		keeper, err := client.Keep(h.Bob.ID(), "/a", nil)
		require.NoError(t, err)
		sent := make(chan error, 2)
		go func() {
			_, err := client.Send(t.Context(), h.Bob.ID(), "/b", []byte("x"))
			sent <- err
		}()
		go func() {
			_, err := (&oldpeer.Client{Host: h.Alice}).Send(t.Context(), h.Bob.ID(), "/b", []byte("x"))
			sent <- err
		}()
		listener, err := Listen(h.Bob, "/c")
		require.NoError(t, err)
		defer func() { _ = listener.Close() }()
		conn, err := Dial(t.Context(), h.Alice, h.Bob.ID(), "/c")
		require.NoError(t, err)
		time.Sleep(time.Second)

		bob := h.Bob.ID().String()
		require.Len(t, client.Sessions(), 2)
		c, s := client.ForDiagnostics(), server.ForDiagnostics()
		require.Len(t, c.Counts(), 2, "/a and /b")
		require.Len(t, s.Counts(), 2)
		c.Counts, c.Observe = nil, nil // functions are not equal
		require.Equal(t, registry.Side{
			Host: h.Alice.ID().String(), Keepers: []registry.Keeper{{Peer: bob, Tag: "/a", Want: 1, Open: 1}}, Closes: []registry.Event{}, Refusals: []registry.Event{},
			Limits: []registry.Limit{{Name: "calls", Max: 1000}, {Name: "memory", Max: 1 << 30}, {Name: "pool", Used: 1, Max: 100},
				{Name: "slots", Peer: bob, Tag: "/c", Used: 1, Max: startSlots}},
		}, c)
		require.Len(t, s.Calls, 1)
		require.Equal(t, []string{h.Alice.ID().String(), "/b"}, []string{s.Calls[0].Peer, s.Calls[0].Tag})
		require.Equal(t, []string{"/a", "/b"}, s.Tags)
		require.Equal(t, registry.Limit{Name: "calls", Used: 2, Max: 1000}, s.Limits[1])

		require.NoError(t, conn.Close())
		close(held)
		require.NoError(t, <-sent)
		require.NoError(t, <-sent)
		require.NoError(t, keeper.Close())
		_, err = client.Connect(t.Context(), h.Bob.ID(), "/none")
		require.ErrorIs(t, err, ErrNotServed)
		time.Sleep(time.Second)
		c, s = client.ForDiagnostics(), server.ForDiagnostics()
		require.Len(t, c.Closes, 1)
		require.Len(t, s.Closes, 1)
		require.Equal(t, "/none", c.Refusals[0].Tag)
		require.ErrorIs(t, c.Refusals[0].Err, ErrNotServed)
		require.ErrorIs(t, c.Closes[0].Err, session.ErrClosed)
		require.Contains(t, c.Closes[0].Path, "direct, ")
		require.Len(t, client.Sessions(), 1)
		require.NoError(t, client.Close())
		require.Empty(t, client.Sessions())
	})
}

// Peers that are not on the list are remembered, those that speak pointsub's wire too.
func TestRefusalsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := peerlanetest.NewHosts(t, nil)
		server, err := NewServer(h.Bob, &ServerConfig{AllowPeers: []peer.ID{h.Bob.ID()}})
		require.NoError(t, err)
		t.Cleanup(func() { _ = server.Stop() })
		require.NoError(t, server.Start("/b", func(request []byte) ([]byte, error) { return request, nil }))
		client, err := NewClient(h.Alice, &ClientConfig{AdmitAll: true})
		require.NoError(t, err)
		t.Cleanup(func() { _ = client.Close() })
		_, err = client.Connect(t.Context(), h.Bob.ID(), "/b")
		require.ErrorIs(t, err, ErrNotAllowed)
		_, err = (&oldpeer.Client{Host: h.Alice}).Send(t.Context(), h.Bob.ID(), "/b", []byte("x"))
		require.Error(t, err)
		synctest.Wait()
		c, s := client.ForDiagnostics(), server.ForDiagnostics()
		require.Len(t, c.Refusals, 1)
		require.Len(t, s.Refusals, 2)
		for _, e := range append(s.Refusals, c.Refusals...) {
			require.ErrorIs(t, e.Err, ErrNotAllowed)
			require.Equal(t, "/b", e.Tag)
			require.Empty(t, e.Session)
			require.Contains(t, e.Path, "direct, ")
		}

		// A cancelled dial is no refusal.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = client.Connect(ctx, h.Bob.ID(), "/b")
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, client.ForDiagnostics().Refusals, 1)
	})
}
