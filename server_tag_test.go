package peerlane

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

// Row: P8 (IdleTimeout, CleanupInterval), D4, D13
func TestIdleTimeoutDrainsOnlyIdleSessionsOfCalls(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		s := newServer(t, b, &ServerConfig{IdleTimeout: 30 * time.Millisecond, CleanupInterval: 10 * time.Millisecond, AdmitAll: true})
		require.NoError(t, s.Handle(callTag, stuck.handle))
		require.NoError(t, s.Start("/quick", echoHandler))
		require.NoError(t, s.Listen("/links"))
		c := newClient(t, a, &ClientConfig{AdmitAll: true})
		done := sendAsync(t.Context(), c, b, nil)
		await(t, stuck.entered, "the long call")
		own, err := c.Connect(t.Context(), b.ID(), "/links")
		require.NoError(t, err)
		_, err = c.Send(t.Context(), b.ID(), "/quick", nil)
		require.NoError(t, err)
		waitInfo(t, s, 2) // the idle one goes
		waitInfo(t, c, 2)
		for _, v := range s.GetConnectionsInfo() {
			require.NotEqual(t, protocolID("/quick"), v.Tag)
		}
		close(stuck.release)
		require.NoError(t, await(t, done, "the long call"))
		waitInfo(t, s, 1)
		require.NoError(t, own.Err(), "IdleTimeout is for the sessions of calls")
		_, err = c.Send(t.Context(), b.ID(), "/quick", nil)
		require.NoError(t, err, "a new session costs no retry")
	})
}

// Row: P8 (CleanupInterval): it is the most between two looks for idle sessions.
// Claim: peerlane.ServerConfig.CleanupInterval
func TestCleanupIntervalIsTheMostBetweenTwoLooksForIdleSessions(t *testing.T) {
	t.Parallel() // it waits for real
	h := testHost(t)
	for want, cfg := range map[time.Duration]ServerConfig{
		15 * time.Second:      {},
		time.Second:           {CleanupInterval: time.Second},
		time.Millisecond:      {CleanupInterval: 1},
		50 * time.Millisecond: {IdleTimeout: 200 * time.Millisecond},
		25 * time.Millisecond: {MaxIdleTime: 100 * time.Millisecond},
		10 * time.Millisecond: {MaxIdleTime: time.Hour, IdleTimeout: time.Hour, CleanupInterval: 10 * time.Millisecond},
	} {
		require.Equal(t, want, newServer(t, h, &cfg).reapInterval(), "%+v", cfg)
	}
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{MaxIdleTime: time.Second, IdleTimeout: time.Second, CleanupInterval: 5 * time.Millisecond})
	require.NoError(t, s.Start(callTag, echoHandler))
	began := time.Now()
	_, err := newClient(t, a, nil).Send(t.Context(), b.ID(), callTag, nil)
	require.NoError(t, err)
	waitInfo(t, s, 0)
	require.GreaterOrEqual(t, time.Since(began), time.Second)
}

// Row: P8 (MaxIdleTime), D13: also with streams open, but not under a call that is being handled.
func TestMaxIdleTimeClosesWhatNothingMovesOn(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		s := newServer(t, b, &ServerConfig{MaxIdleTime: 100 * time.Millisecond, CleanupInterval: 10 * time.Millisecond, AdmitAll: true})
		s.SetStream("open", func(st *session.Stream) { copyBack(st) })
		require.NoError(t, s.Listen("/links"))
		require.NoError(t, s.Handle(callTag, stuck.handle))
		c := newClient(t, a, &ClientConfig{AdmitAll: true})
		done := sendAsync(t.Context(), c, b, nil)
		await(t, stuck.entered, "the long call")
		quiet, err := c.Connect(t.Context(), b.ID(), "/links")
		require.NoError(t, err)
		withStream, err := c.Connect(t.Context(), b.ID(), "/links")
		require.NoError(t, err)
		st, err := withStream.OpenStream(t.Context(), "open", nil)
		require.NoError(t, err)
		waitInfo(t, s, 1)
		await(t, quiet.Done(), "the end of the quiet session")
		await(t, withStream.Done(), "the end of the session with a stream")
		_, err = st.Read(make([]byte, 1))
		require.Error(t, err)
		close(stuck.release)
		require.NoError(t, await(t, done, "the long call"))
		waitInfo(t, s, 0)
	})
}

// A session that MaxIdleTime ends is closed by one goroutine, however often the reaper comes, and given up after CloseTimeout though its
// peer goes on handling what it was sent. Nothing begins once the tag is being shut down.
func TestMaxIdleTimeClosesASessionOnceAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{cfg: ServerConfig{}.withDefaults(), log: slog.New(slog.DiscardHandler)}
		acceptor, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Local: "server", Mux: session.NewMux(), ResumeWindow: -1}})
		require.NoError(t, err)
		tag := &servedTag{server: s, acceptor: acceptor, idle: make(map[*session.Session]struct{})}
		here, there := faultnet.NewLink(faultnet.LinkOptions{}).Ends()
		tag.wg.Go(func() { _ = acceptor.Serve(here, "client") })
		mux := session.NewMux()
		over := make(chan struct{})
		mux.SetLink("slow", func(*session.Message) {
			select {
			case <-time.After(time.Second):
			case <-over:
			}
		})
		c, err := session.Dial(t.Context(), there, "server", nil, &session.Config{Local: "client", Mux: mux, ResumeWindow: -1})
		require.NoError(t, err)
		synctest.Wait() // the acceptor may have it a moment later
		idle := acceptor.Sessions()[0]
		for range 100 {
			require.NoError(t, idle.Send(t.Context(), "slow", nil))
		}
		synctest.Wait()

		began := time.Now()
		for range 3 {
			s.reapSession(tag, idle, began.Add(s.cfg.MaxIdleTime))
			synctest.Wait()
			require.Len(t, goroutinesIn("session.(*Session).Close("), 1)
			time.Sleep(time.Second)
		}
		<-idle.Done()
		require.InDelta(t, s.cfg.CloseTimeout.Seconds(), time.Since(began).Seconds(), 2)
		synctest.Wait()
		require.Empty(t, tag.idle)
		tag.down = true
		require.False(t, tag.enterIdle(idle))
		c.Abort()
		tag.wg.Wait()
		close(over)
	})
}

// The peers that may have a session may all come back at the same moment, as those of a restarted server do.
func TestABurstOfAllPeersWaitsForTheAcceptLoop(t *testing.T) {
	for limit, room := range map[int]int{1: defaultBacklog, 1000: 1000, 5000: 5000} {
		server, err := NewServer(testnet.Host(t, testnet.TCPTLS), &ServerConfig{MaxConcurrentConns: limit})
		require.NoError(t, err)
		require.NoError(t, server.Start(testTag, func(b []byte) ([]byte, error) { return b, nil }))
		for _, tag := range server.servedTags() {
			require.Equal(t, room, cap(tag.sessions.queue))
			require.Equal(t, room, cap(tag.legacy.queue))
		}
		require.NoError(t, server.Stop())
	}
}
