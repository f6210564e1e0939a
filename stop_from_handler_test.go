package peerlane

import (
	"context"
	"io"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

// Handlers of calls of two tags and of an old peer's call stop their server at the same time. Stop waits for none of them, and for a
// handler that does something else. Claim: peerlane.Server.Stop, peerlane.Server.Shutdown
func TestHandlersMayStopTheirServer(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{ReadTimeout: never, CloseTimeout: never})
	var entered sync.WaitGroup
	entered.Add(4)
	release, stopping := make(chan struct{}), make(chan error, 3)
	handle := func(request []byte) ([]byte, error) {
		entered.Done()
		entered.Wait()
		if string(request) == "slow" {
			<-release
			return request, nil
		}
		err := s.Stop()
		stopping <- err
		return nil, err
	}
	require.NoError(t, s.Start(callTag, handle))
	require.NoError(t, s.Start("/second", handle))
	c := newClient(t, a, patientClient())
	slow := make(chan error, 1)
	go func() { _, err := c.Send(t.Context(), b.ID(), callTag, []byte("slow")); slow <- err }()
	for _, tag := range []protocol.ID{callTag, "/second"} {
		go func() { _, _ = c.Send(t.Context(), b.ID(), tag, []byte("stop")) }() // the session ends before it is answered
	}
	openLegacy(t, a, b, append(legacyHead(4), "stop"...))
	entered.Wait()
	waitBlocked(t, "(*Server).Stop", 3)
	require.Empty(t, stopping, "Stop waits for the other handler")
	close(release)
	require.NoError(t, await(t, slow, "the other handler's answer"))
	for range 3 {
		require.NoError(t, await(t, stopping, "Stop"))
	}
}

// Claim: peerlane.Client.Close, peerlane.Keeper.Close
func TestAHandlerMayCloseItsClientOrKeeper(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		for _, keeper := range []bool{false, true} {
			s := newServer(t, b, &ServerConfig{AdmitAll: true})
			require.NoError(t, s.Listen(callTag))
			s.SetLink("hello", func(m *session.Message) { _, _ = m.Session().SendWait(t.Context(), "close", nil) })
			config := patientClient()
			config.CloseTimeout, config.AdmitAll = never, true
			c := newClient(t, a, config)
			closed := make(chan error, 1)
			closeIt := c.Close
			c.SetLink("close", func(*session.Message) { closed <- closeIt() })
			k, err := c.Keep(b.ID(), callTag, nil)
			require.NoError(t, err)
			if keeper {
				closeIt = k.Close
			}
			kept, err := k.Get(testContext(t))
			require.NoError(t, err)
			require.NoError(t, kept.Send(t.Context(), "hello", nil))
			require.NoError(t, await(t, closed, "Close"))
			require.NoError(t, s.Stop())
		}
	})
}

func TestHandlersMayShutTheirListenerDown(t *testing.T) {
	h := testHost(t)
	var entered sync.WaitGroup
	entered.Add(3)
	stopping := make(chan error, 2)
	var l *Listener
	ready := make(chan struct{})
	l = mustServe(t, h, ListenConfig{}, func(c *Conn) {
		<-ready
		b := make([]byte, 1)
		_, err := io.ReadFull(c, b)
		entered.Done()
		entered.Wait()
		if err != nil || b[0] == 'x' {
			stopping <- l.Shutdown(context.Background())
			return
		}
		_, _ = io.Copy(c, c)
	})
	close(ready)
	conns := []*Conn{mustDial(t, h, h), mustDial(t, h, h), mustDial(t, h, h)}
	for i, first := range "xx-" {
		_, err := conns[i].Write([]byte(string(first)))
		require.NoError(t, err)
	}
	entered.Wait()
	waitBlocked(t, "(*Listener).Shutdown", 2)
	_, err := conns[2].Write([]byte("last words"))
	require.NoError(t, err)
	require.NoError(t, conns[2].CloseWrite())
	require.Equal(t, "last words", string(readAll(t, conns[2])))
	for range 2 {
		require.NoError(t, await(t, stopping, "Shutdown"))
	}
}
