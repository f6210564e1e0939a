package peerlane

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

// requireHostClosed checks the error of what has ended with its host.
func requireHostClosed(t testing.TB, err error) {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, ErrStopped)
	require.ErrorIs(t, err, net.ErrClosed)
	require.NotErrorIs(t, err, session.ErrSessionLost)
	require.ErrorContains(t, err, "the host is closed")
}

// hostEnd is a session with a call in flight, between a client and a server that would both wait for ever.
type hostEnd struct {
	a, b    host.Host
	client  *Client
	server  *Server
	session *session.Session // the client's
	call    chan error
}

// newHostEnd takes the session's ResumeWindow, and a pre-shared key or "".
func newHostEnd(t *testing.T, tr testnet.Transport, window time.Duration, key string) *hostEnd {
	t.Helper()
	h := &hostEnd{call: make(chan error, 1)}
	h.a, h.b = testnet.Pair(t, tr)
	h.server = newServer(t, h.b, &ServerConfig{AdmitAll: true, ResumeWindow: window, ReadTimeout: never})
	h.client = newClient(t, h.a, &ClientConfig{AdmitAll: true, ResumeWindow: window, ReadTimeout: never, CloseTimeout: 10 * time.Millisecond})
	if key != "" {
		require.NoError(t, UseModernPSKServer(h.server, []byte(key), cheapPSK))
		require.NoError(t, UseModernPSKClient(h.client, []byte(key), cheapPSK))
	}
	entered := make(chan struct{})
	h.server.SetLink("stuck", func(m *session.Message) {
		close(entered)
		<-m.Context().Done()
	})
	require.NoError(t, h.server.Listen(callTag))
	var err error
	h.session, err = h.client.Connect(t.Context(), h.b.ID(), callTag)
	require.NoError(t, err)
	go func() {
		_, err := h.session.SendWait(t.Context(), "stuck", nil)
		h.call <- err
	}()
	await(t, entered, "the call")
	return h
}

// A host that is closed ends its client's sessions at once, whatever their window, and the calls on them.
func TestAClosedHostEndsItsClientsSessions(t *testing.T) {
	for _, tr := range muxes {
		for name, window := range map[string]time.Duration{"resumable": never, "with its connection": -1} {
			for _, key := range []string{"", "a long enough key"} {
				t.Run(string(tr)+" "+name+" "+key, func(t *testing.T) {
					h := newHostEnd(t, tr, window, key)
					require.NoError(t, h.a.Close())
					await(t, h.session.Done(), "the end")
					requireHostClosed(t, h.session.Err())
					err := await(t, h.call, "the call")
					require.ErrorIs(t, err, ErrStopped)
					requireTyped(t, err, session.Unknown)

					_, err = h.client.Send(t.Context(), h.b.ID(), callTag, nil)
					requireHostClosed(t, err)
					requireTyped(t, err, session.NotSent)
					_, err = h.client.Connect(t.Context(), h.b.ID(), callTag)
					requireHostClosed(t, err)
					_, err = Dial(t.Context(), h.a, h.b.ID(), testTag)
					requireHostClosed(t, err)
					_, err = Dial(t.Context(), h.a, h.a.ID(), testTag)
					requireHostClosed(t, err)
				})
			}
		}
	}
}

// One that has no carrier when its host is closed does not look for one any more.
func TestAClosedHostEndsSessionsThatAreDetached(t *testing.T) {
	h := newHostEnd(t, testnet.TCPTLS, never, "")
	served := h.server.Sessions()
	require.Len(t, served, 1)
	detached := func(s *session.Session) func() bool {
		return func() bool { return s.State() == session.StateDetached }
	}
	h.a.Peerstore().ClearAddrs(h.b.ID())
	gate := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) { _ = c.Close() }}
	h.a.Network().Notify(gate)
	closeConns(h.a)
	require.Eventually(t, detached(h.session), patience, time.Millisecond)
	require.Eventually(t, detached(served[0]), patience, time.Millisecond)
	require.NoError(t, h.a.Close())
	await(t, h.session.Done(), "the client's session")
	requireHostClosed(t, h.session.Err())
	require.NoError(t, h.b.Close())
	await(t, served[0].Done(), "the server's session")
	requireHostClosed(t, served[0].Err())
}

// A server on a host that is closed has been stopped.
func TestAClosedHostStopsItsServer(t *testing.T) {
	for _, tr := range muxes {
		for name, window := range map[string]time.Duration{"resumable": never, "with its connection": -1} {
			t.Run(string(tr)+" "+name, func(t *testing.T) {
				h := newHostEnd(t, tr, window, "")
				served := h.server.Sessions()
				require.Len(t, served, 1)
				require.NoError(t, h.b.Close())
				await(t, served[0].Done(), "the end")
				requireHostClosed(t, served[0].Err())
				require.NoError(t, h.server.Stop())
				require.ErrorIs(t, h.server.Start("/other/1.0.0", echoHandler), ErrStopped)
				require.Empty(t, h.server.Sessions())
				require.NoError(t, h.client.Close())
			})
		}
	}
	t.Run("closed before", func(t *testing.T) {
		b := testHost(t)
		s := newServer(t, b, nil)
		require.NoError(t, b.Close())
		requireHostClosed(t, s.Start(callTag, echoHandler))
		require.NoError(t, s.Stop())
	})
}

// A Stop that waits for a peer to come back does not wait on a host that is closed.
func TestAClosedHostEndsAStop(t *testing.T) {
	h := newHostEnd(t, testnet.TCPTLS, never, "")
	require.NoError(t, h.a.Close())
	require.Eventually(t, func() bool { return h.server.Sessions()[0].State() == session.StateDetached }, patience, time.Millisecond)
	stopped := make(chan error, 1)
	go func() { stopped <- h.server.Stop() }()
	require.Eventually(t, func() bool { return errors.Is(h.server.Start(callTag, echoHandler), ErrStopped) }, patience, time.Millisecond)
	require.NoError(t, h.b.Close())
	require.NoError(t, await(t, stopped, "Stop"))
}

// A keeper gives up with its host: one that has a session, one that waits after a failure, and one that is opening.
func TestAClosedHostEndsItsKeepers(t *testing.T) {
	h := newHostEnd(t, testnet.TCPTLS, never, "")
	_, absent := newIdentity(t)
	_, silent := newIdentity(t)
	h.a.Peerstore().AddAddr(silent, listenSilently(t), never)
	var keepers []*Keeper
	var told []<-chan KeeperEvent
	for _, pid := range []peer.ID{h.b.ID(), absent, silent} {
		k, events := keep(t, h.client, pid, KeeperConfig{Backoff: neverAgain})
		keepers, told = append(keepers, k), append(told, events)
	}
	awaitEvents(t, told[0], KeeperOpened, 1)
	awaitEvents(t, told[1], KeeperFailed, 1)
	require.NoError(t, h.a.Close())
	for i, k := range keepers {
		await(t, k.Done(), "the end")
		requireHostClosed(t, k.Err())
		gave := awaitEvents(t, told[i], KeeperGaveUp, 1)
		require.Equal(t, k.Err(), gave[0].Err)
		for _, s := range k.Sessions() { // one ends with its carrier, a moment later
			await(t, s.Done(), "its session")
		}
		_, err := k.Get(t.Context())
		requireHostClosed(t, err)
		require.NoError(t, k.Close())
	}
	k, err := h.client.Keep(h.b.ID(), callTag, nil)
	require.NoError(t, err)
	await(t, k.Done(), "the end of one on a closed host")
	requireHostClosed(t, k.Err())
	require.NoError(t, k.Close())
}
