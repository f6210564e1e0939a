package peerlane

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/backoff"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/resume"
	"github.com/peerlane/peerlane/session"
)

// neverAgain is a Backoff whose waits a test does not survive.
var neverAgain = resume.Backoff{Min: never, Max: never}

// soon is a Backoff that a test does not notice.
var soon = resume.Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond}

// keep returns a keeper of callTag that is closed when the test ends, and its events.
func keep(t *testing.T, c *Client, pid peer.ID, cfg KeeperConfig) (*Keeper, <-chan KeeperEvent) {
	t.Helper()
	events := make(chan KeeperEvent, 4096)
	cfg.OnEvent = func(e KeeperEvent) { events <- e }
	k, err := c.Keep(pid, callTag, &cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = k.Close() })
	return k, events
}

// awaitEvents returns the next n events of one kind. What else comes is left out.
func awaitEvents(t testing.TB, events <-chan KeeperEvent, kind KeeperEventKind, n int) (all []KeeperEvent) {
	t.Helper()
	for len(all) < n {
		if e := await(t, events, string(kind)); e.Kind == kind {
			all = append(all, e)
		}
	}
	return all
}

// keptPair returns a client, the host of a server that listens, and the server.
func keptPair(t *testing.T, cfg ClientConfig) (*Client, host.Host, *Server) {
	t.Helper()
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{AdmitAll: true})
	require.NoError(t, s.Listen(callTag))
	cfg.AdmitAll = true
	return newClient(t, a, &cfg), b, s
}

// Row: G19, G19 (KeeperConfig.Sessions, OnEvent): none of it waits, though the waits are for ever.
// Claim: peerlane.KeeperConfig.OnEvent, peerlane.KeeperConfig.Sessions, peerlane.KeeperEvent.Session
func TestKeeperOpensItsSessionsAndReplacesTheOnesThatEnd(t *testing.T) {
	c, b, s := keptPair(t, ClientConfig{ResumeWindow: -1})
	k, events := keep(t, c, b.ID(), KeeperConfig{Sessions: 4, Backoff: neverAgain})
	for _, e := range awaitEvents(t, events, KeeperOpened, 4) {
		require.NoError(t, e.Session.Err())
		require.Equal(t, 1, e.Attempt)
	}
	require.Len(t, k.Sessions(), 4)
	require.Len(t, c.GetConnectionsInfo(), 4)
	require.Eventually(t, func() bool { return len(s.Sessions()) == 4 }, patience, time.Millisecond)
	before := k.Sessions()
	require.NoError(t, s.Sessions()[0].Close())
	gone := awaitEvents(t, events, KeeperEnded, 1)[0]
	require.ErrorIs(t, gone.Err, session.ErrSessionLost)
	require.Contains(t, before, gone.Session)
	require.Zero(t, gone.Wait)
	require.NotContains(t, before, awaitEvents(t, events, KeeperOpened, 1)[0].Session)
	require.Len(t, k.Sessions(), 4)
	require.NoError(t, k.Sessions()[0].Close()) // the application's own hand
	require.ErrorIs(t, awaitEvents(t, events, KeeperEnded, 1)[0].Err, session.ErrClosed)
	awaitEvents(t, events, KeeperOpened, 1)
	require.NoError(t, k.Err())
}

// Row: G19
func TestKeeperReplacesAllSessionsOfAConnectionThatWasLost(t *testing.T) {
	c, b, _ := keptPair(t, ClientConfig{ResumeWindow: -1})
	k, events := keep(t, c, b.ID(), KeeperConfig{Sessions: 3})
	awaitEvents(t, events, KeeperOpened, 3)
	require.NoError(t, c.pool.host.Network().ClosePeer(b.ID()))
	opened, ended := 0, 0
	for opened < 3 || ended < 3 {
		switch e := await(t, events, "three sessions again"); e.Kind {
		case KeeperOpened:
			opened++
		case KeeperEnded:
			ended++
			require.ErrorIs(t, e.Err, session.ErrSessionLost)
		}
	}
	require.Len(t, k.Sessions(), 3)
}

// Row: G19: a session that is detached resumes by itself.
func TestKeeperLeavesDetachedSessionsAlone(t *testing.T) {
	for _, used := range []bool{false, true} {
		steps := newStepLog()
		c, b, s := keptPair(t, ClientConfig{OnState: steps.note})
		k, events := keep(t, c, b.ID(), KeeperConfig{})
		first := awaitEvents(t, events, KeeperOpened, 1)[0].Session
		s.SetLink("hello", func(m *session.Message) { _ = m.Reply(m.Value) })
		require.NoError(t, c.pool.host.Network().ClosePeer(b.ID()))
		if used {
			steps.await(t, session.StateDetached, 1)
			got, err := k.Get(testContext(t))
			require.NoError(t, err)
			require.Same(t, first, got)
			_, err = got.SendWait(testContext(t), "hello", nil)
			require.NoError(t, err)
		}
		steps.await(t, session.StateResumed, 1)
		require.Equal(t, []*session.Session{first}, k.Sessions())
		require.Empty(t, events)
	}
}

// A detached session is no session to give out, and a Get that waits for it ends with its ctx.
func TestKeeperGetWaitsForADetachedSession(t *testing.T) {
	steps := newStepLog()
	a, b, f := testnet.Proxied(t, testnet.TCPTLS)
	require.NoError(t, newServer(t, b, &ServerConfig{AdmitAll: true}).Listen(callTag))
	c := newClient(t, a, &ClientConfig{AdmitAll: true, OnState: steps.note})
	k, events := keep(t, c, b.ID(), KeeperConfig{})
	first := awaitEvents(t, events, KeeperOpened, 1)[0].Session
	f.(*faultnet.TCP).Refuse(true)
	f.Cut()
	steps.await(t, session.StateDetached, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := k.Get(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, []*session.Session{first}, k.Sessions())
	got := make(chan *session.Session, 1)
	go func() {
		s, _ := k.Get(testContext(t))
		got <- s
	}()
	waitBlocked(t, "awaitOne", 1)
	f.(*faultnet.TCP).Refuse(false)
	require.Same(t, first, await(t, got, "the session"))
}

// Row: G19 (KeeperConfig.MaxAttempts, Backoff)
// Claim: peerlane.KeeperConfig.MaxAttempts, peerlane.KeeperEvent.Attempt, peerlane.KeeperEvent.Err, peerlane.KeeperEvent.Kind
func TestKeeperGivesUpAfterMaxAttempts(t *testing.T) {
	const least = 20 * time.Millisecond
	at, dials, stop := countDials(t)
	_, pid := newIdentity(t)
	a := testHost(t)
	peerlanetest.Teach(a, pid, at)
	var logged strings.Builder
	c := newClient(t, a, &ClientConfig{AdmitAll: true, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	began := time.Now()
	k, events := keep(t, c, pid, KeeperConfig{MaxAttempts: 4, Backoff: resume.Backoff{Min: least, Max: 2 * least}})
	waits := []time.Duration{least, 2 * least, 2 * least, 0}
	for n, wait := range waits {
		e := await(t, events, "a failure")
		require.Equal(t, KeeperFailed, e.Kind)
		require.Equal(t, n+1, e.Attempt)
		require.ErrorIs(t, e.Err, ErrUnreachable)
		require.LessOrEqual(t, e.Wait, wait, "wait %d", n)
		require.Equal(t, wait > 0, e.Wait > 0, "wait %d", n)
	}
	e := await(t, events, "giving up")
	require.Equal(t, KeeperGaveUp, e.Kind)
	require.Equal(t, 4, e.Attempt)
	await(t, k.Done(), "the end")
	require.GreaterOrEqual(t, time.Since(began), (least+2*least+2*least)/2)
	require.Equal(t, k.Err(), e.Err)
	require.ErrorIs(t, k.Err(), ErrUnreachable)
	requireTyped(t, k.Err(), session.NotSent)
	_, err := k.Get(t.Context())
	require.Equal(t, k.Err(), err)
	require.Contains(t, logged.String(), "keeper gave up")
	require.NoError(t, k.Close())
	require.ErrorIs(t, k.Err(), ErrUnreachable)
	require.Empty(t, c.keepers.all)
	require.Empty(t, events)
	stop()
	require.Len(t, dials, 4)
}

// Side by side counts once: or a keeper of many sessions would give up before it has waited.
func TestKeeperCountsAttemptsThatAreMadeSideBySideOnce(t *testing.T) {
	t.Parallel() // it waits for real
	_, pid := newIdentity(t)
	c := newClient(t, testHost(t), &ClientConfig{AdmitAll: true})
	k, events := keep(t, c, pid, KeeperConfig{Sessions: 8, MaxAttempts: 2, Backoff: resume.Backoff{Min: time.Second, Max: time.Second}})
	for range 8 {
		e := await(t, events, "a failure")
		require.Equal(t, KeeperFailed, e.Kind)
		require.Equal(t, 1, e.Attempt)
		require.Positive(t, e.Wait)
	}
	require.Equal(t, 2, await(t, events, "the second attempt").Attempt)
	require.Equal(t, KeeperGaveUp, await(t, events, "giving up").Kind)
	await(t, k.Done(), "the end")
}

// Row: G19: with the error of Connect.
func TestKeeperGivesUpAtOnceWhereNothingCanGetBetter(t *testing.T) {
	for name, v := range map[string]struct {
		serve func(t *testing.T, c *Client, b host.Host)
		want  error
	}{
		"the key": {func(t *testing.T, c *Client, b host.Host) {
			s := newServer(t, b, nil)
			require.NoError(t, UseModernPSKServer(s, []byte("correct horse"), cheapPSK))
			require.NoError(t, UseModernPSKClient(c, []byte("wrong horse!!"), cheapPSK))
			require.NoError(t, s.Listen(callTag))
		}, ErrPSKMismatch},
		"no key": {func(t *testing.T, _ *Client, b host.Host) {
			s := newServer(t, b, nil)
			require.NoError(t, UseModernPSKServer(s, []byte("correct horse"), cheapPSK))
			require.NoError(t, s.Listen(callTag))
		}, ErrPSKRequired},
		"admission": {func(t *testing.T, _ *Client, b host.Host) {
			require.NoError(t, newServer(t, b, &ServerConfig{AllowPeers: nonePeers()}).Listen(callTag))
		}, ErrNotAllowed},
		"pointsub": {func(t *testing.T, c *Client, b host.Host) {
			b.SetStreamHandler(callTag, func(s network.Stream) { _ = s.Reset() })
			a := c.pool.host
			require.NoError(t, a.Connect(testContext(t), a.Peerstore().PeerInfo(b.ID())))
			require.Eventually(t, func() bool { // identify tells it, the first time or the next
				known, err := a.Peerstore().SupportsProtocols(b.ID(), callTag)
				return err == nil && len(known) == 1
			}, patience, time.Millisecond)
		}, ErrLegacyPeer},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := testnet.Pair(t, testnet.TCPTLS)
			c := newClient(t, a, &ClientConfig{AdmitAll: true})
			v.serve(t, c, b)
			k, events := keep(t, c, b.ID(), KeeperConfig{Backoff: neverAgain})
			e := await(t, events, "the failure")
			require.Equal(t, KeeperFailed, e.Kind)
			require.ErrorIs(t, e.Err, v.want)
			require.Equal(t, KeeperGaveUp, await(t, events, "giving up").Kind)
			await(t, k.Done(), "the end")
			require.ErrorIs(t, k.Err(), v.want)
			_, err := k.Get(t.Context())
			require.ErrorIs(t, err, v.want)
		})
	}
}

// The sessions of a keeper that has given up are still good, and still its own.
func TestKeeperThatHasGivenUpKeepsWhatIsLeft(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{AdmitAll: true})
	require.NoError(t, s.Listen(callTag))
	c := newClient(t, a, &ClientConfig{AdmitAll: true})
	k, events := keep(t, c, b.ID(), KeeperConfig{Sessions: 2, MaxAttempts: 1})
	awaitEvents(t, events, KeeperOpened, 2)
	left := k.Sessions()[1]
	b.RemoveStreamHandler(sessionTag(callTag))
	require.NoError(t, k.Sessions()[0].Close())
	awaitEvents(t, events, KeeperGaveUp, 1)
	await(t, k.Done(), "the end")
	got, err := k.Get(t.Context())
	require.NoError(t, err)
	require.Same(t, left, got)
	require.NoError(t, k.Close())
	require.ErrorIs(t, left.Err(), session.ErrClosed)
	_, err = k.Get(t.Context())
	require.ErrorIs(t, err, ErrNotServed)
}

// Row: G19: a tag that nobody serves may be served later; after that success there is nothing to wait for.
func TestKeeperWaitsForAPeerToServeTheTag(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	c := newClient(t, a, &ClientConfig{AdmitAll: true})
	k, events := keep(t, c, b.ID(), KeeperConfig{Sessions: 3, Backoff: soon})
	require.ErrorIs(t, awaitEvents(t, events, KeeperFailed, 4)[3].Err, ErrNotServed)
	require.NoError(t, newServer(t, b, &ServerConfig{AdmitAll: true}).Listen(callTag))
	opened := awaitEvents(t, events, KeeperOpened, 3)
	require.Greater(t, opened[0].Attempt, 1)
	require.Equal(t, 1, opened[2].Attempt)
	require.Len(t, k.Sessions(), 3)
}

// Row: G19: a connection that comes ends the wait.
func TestKeeperReopensAtOnceWhenThePeerIsBack(t *testing.T) {
	key, pid := newIdentity(t)
	a := testHost(t)
	c := newClient(t, a, &ClientConfig{AdmitAll: true, ResumeWindow: -1})
	up := func() host.Host {
		b := testnet.Host(t, testnet.TCPTLS, libp2p.Identity(key))
		require.NoError(t, newServer(t, b, &ServerConfig{AdmitAll: true}).Listen(callTag))
		require.NoError(t, b.Connect(t.Context(), peer.AddrInfo{ID: a.ID(), Addrs: a.Addrs()}))
		return b
	}
	b := up()
	k, events := keep(t, c, pid, KeeperConfig{Sessions: 2, Backoff: neverAgain})
	awaitEvents(t, events, KeeperOpened, 2)
	require.NoError(t, b.Close())
	for { // those that are lost first may be tried before it is seen that the peer is down
		if e := awaitEvents(t, events, KeeperFailed, 1)[0]; e.Wait > 0 {
			break
		}
	}
	began := time.Now()
	up()
	awaitEvents(t, events, KeeperOpened, 2)
	require.Less(t, time.Since(began), 5*time.Second)
	require.Len(t, k.Sessions(), 2)
}

// A peer that takes sessions and ends them does not keep this side busy; and it is no peer that fails.
// Claim: peerlane.KeeperEvent.Wait
func TestKeeperIsCautiousWithAPeerThatEndsItsSessions(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{AdmitAll: true, OnState: func(s *session.Session, c session.StateChange) {
		if c.State == session.StateConnected {
			_ = s.Close()
		}
	}})
	require.NoError(t, s.Listen(callTag))
	c := newClient(t, a, &ClientConfig{AdmitAll: true})
	k, events := keep(t, c, b.ID(), KeeperConfig{Sessions: 2, MaxAttempts: 1, Backoff: resume.Backoff{Min: 100 * time.Millisecond}})
	ended := awaitEvents(t, events, KeeperEnded, 5)
	require.Zero(t, ended[0].Wait)
	require.Zero(t, ended[1].Wait)
	for _, e := range ended[2:] {
		require.Positive(t, e.Wait)
	}
	require.NoError(t, k.Err())
}

// Row: G19
func TestKeeperGetReturnsTheLeastLoaded(t *testing.T) {
	c, b, s := keptPair(t, ClientConfig{CloseTimeout: 50 * time.Millisecond}) // for which a session waits for its calls
	stuck := newStuckHandler(t)
	s.SetLink("stuck", func(m *session.Message) {
		stuck.entered <- nil
		<-stuck.over
	})
	k, events := keep(t, c, b.ID(), KeeperConfig{Sessions: 3})
	awaitEvents(t, events, KeeperOpened, 3)
	seen := map[*session.Session]int{}
	for range 6 {
		got, err := k.Get(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = got.SendWait(ctx, "stuck", nil)
		}()
		t.Cleanup(func() { <-done })
		await(t, stuck.entered, "the call")
		seen[got]++
	}
	for got, n := range seen {
		require.Equal(t, 2, n, "%v", got)
	}
	require.Len(t, seen, 3)
	require.NoError(t, k.Sessions()[0].Close())
	got, err := k.Get(testContext(t))
	require.NoError(t, err)
	require.NoError(t, got.Err())
}

// Row: G19
func TestKeeperGetWaitsUntilItsCtxEnds(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	c := newClient(t, a, &ClientConfig{AdmitAll: true})
	k, events := keep(t, c, b.ID(), KeeperConfig{Backoff: soon})
	awaitEvents(t, events, KeeperFailed, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := k.Get(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, ErrNotServed)
	require.True(t, requireTyped(t, err, session.NotSent).Timeout())
	done := make(chan error, 1)
	go func() {
		_, err := k.Get(t.Context())
		done <- err
	}()
	waitBlocked(t, "awaitOne", 1)
	require.NoError(t, newServer(t, b, &ServerConfig{AdmitAll: true}).Listen(callTag))
	require.NoError(t, await(t, done, "the session"))
}

// Row: G19
func TestKeeperCloseEndsItsSessionsOnly(t *testing.T) {
	c, b, s := keptPair(t, ClientConfig{})
	k, events := keep(t, c, b.ID(), KeeperConfig{Sessions: 2})
	other, others := keep(t, c, b.ID(), KeeperConfig{})
	awaitEvents(t, events, KeeperOpened, 2)
	awaitEvents(t, others, KeeperOpened, 1)
	require.Len(t, c.GetConnectionsInfo(), 3)
	sessions := k.Sessions()
	require.NoError(t, k.Close())
	require.NoError(t, k.Close())
	await(t, k.Done(), "the end")
	for _, s := range sessions {
		require.ErrorIs(t, s.Err(), session.ErrClosed)
	}
	require.Empty(t, k.Sessions())
	_, err := k.Get(t.Context())
	require.ErrorIs(t, err, ErrStopped)
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, k.Err(), ErrStopped)
	require.Empty(t, events, "what Close does is no event")
	require.Eventually(t, func() bool { return len(s.Sessions()) == 1 }, patience, time.Millisecond)
	got, err := other.Get(t.Context())
	require.NoError(t, err)
	require.NoError(t, got.Err())
	require.NoError(t, other.Err())

	require.NoError(t, c.Close())
	require.ErrorIs(t, other.Err(), ErrStopped)
	await(t, other.Done(), "the end of the other")
	require.ErrorIs(t, got.Err(), session.ErrClosed)
	require.Empty(t, others)
	_, err = c.Keep(b.ID(), callTag, nil)
	require.ErrorIs(t, err, ErrStopped)
	requireNoStreams(t, sessionTag(callTag), c.pool.host, b)
}

// Invariant 4: nothing waits for ever, Close included.
func TestKeeperCloseEndsTheAttemptsTheWaitAndTheGets(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	c := newClient(t, a, &ClientConfig{AdmitAll: true, ConnectTimeout: never})
	silent := muteSessions(t, b)
	_, absent := newIdentity(t)
	opening, _ := keep(t, c, b.ID(), KeeperConfig{Sessions: 3})
	waiting, events := keep(t, c, absent, KeeperConfig{Backoff: neverAgain})
	for range 3 {
		await(t, silent, "a hello")
	}
	awaitEvents(t, events, KeeperFailed, 1)
	gets := make(chan error, 2)
	for _, k := range []*Keeper{opening, waiting} {
		go func() {
			_, err := k.Get(t.Context())
			gets <- err
		}()
	}
	waitBlocked(t, "awaitOne", 2)
	require.NoError(t, opening.Close())
	require.ErrorIs(t, await(t, gets, "the first Get"), ErrStopped)
	require.NoError(t, c.Close())
	require.ErrorIs(t, await(t, gets, "the second Get"), ErrStopped)
	require.ErrorIs(t, waiting.Err(), ErrStopped)
	requireNoStreams(t, sessionTag(callTag), a)
}

// Row: G19 (KeeperConfig)
func TestKeeperRefusesWhatIsOutOfRange(t *testing.T) {
	h := testHost(t)
	c := newClient(t, h, &ClientConfig{AdmitAll: true})
	for field, cfg := range map[string]KeeperConfig{
		"KeeperConfig.Sessions:":    {Sessions: -1},
		"KeeperConfig.Sessions: 65": {Sessions: maxKeptSessions + 1},
		"KeeperConfig.MaxAttempts":  {MaxAttempts: -1},
		"KeeperConfig.Backoff.Min":  {Backoff: resume.Backoff{Min: -1}},
		"KeeperConfig.Backoff.Max":  {Backoff: resume.Backoff{Max: -1}},
		"Backoff.Max: 1s is less":   {Backoff: resume.Backoff{Min: time.Minute, Max: time.Second}},
	} {
		_, err := c.Keep(h.ID(), callTag, &cfg)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, field)
	}
	_, err := c.Keep("", callTag, nil)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "peer")
	for _, tag := range []protocol.ID{"", "a\nb", protocol.ID(strings.Repeat("x", maxTagLen))} {
		_, err := c.Keep(h.ID(), tag, nil)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "tag")
	}
	_, err = newClient(t, h, nil).Keep(h.ID(), callTag, nil)
	require.ErrorIs(t, err, ErrModernPSKRequired)
	require.Empty(t, c.keepers.all)
	require.NoError(t, (&KeeperConfig{Sessions: maxKeptSessions, MaxAttempts: maxInt, Backoff: resume.Backoff{Min: time.Hour}}).validate())
	require.Equal(t, KeeperConfig{Sessions: 1, Backoff: resume.Backoff{Min: 50 * time.Millisecond, Max: 5 * time.Second}},
		KeeperConfig{}.withDefaults())
}

// Row: C5: a host may keep sessions with itself; a nil config is the defaults.
func TestKeeperOfTheHostItself(t *testing.T) {
	h := testHost(t)
	require.NoError(t, newServer(t, h, &ServerConfig{AdmitAll: true}).Listen(callTag))
	k, err := newClient(t, h, &ClientConfig{AdmitAll: true}).Keep(h.ID(), callTag, nil)
	require.NoError(t, err)
	_, err = k.Get(testContext(t))
	require.NoError(t, err)
	require.Len(t, k.Sessions(), 1)
}

// Row: G19 (KeeperConfig.Backoff): with jitter, and with the peer's own hint.
// Claim: peerlane.KeeperConfig.Backoff
func TestKeeperWaitsDoubleUpToMaxAndAreShortenedByUpToAHalf(t *testing.T) {
	b := backoff.Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	for n, want := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		want *= time.Millisecond
		shortest := want
		for range 200 {
			d := b.Wait(n + 1)
			require.GreaterOrEqual(t, d, want/2, "failure %d", n+1)
			require.LessOrEqual(t, d, want, "failure %d", n+1)
			shortest = min(shortest, d)
		}
		require.Less(t, shortest, want*3/4)
	}
	require.GreaterOrEqual(t, b.Wait(1<<20), b.Max/2)
	k := newKeeper(newClient(t, testHost(t), nil), "", callTag, KeeperConfig{Backoff: resume.Backoff(b)})
	defer k.stop()
	for hint, want := range map[time.Duration]time.Duration{700 * time.Millisecond: 700 * time.Millisecond, time.Hour: b.Max} {
		k.wait(1, &Error{RetryAfter: hint})
		require.InDelta(t, want.Seconds(), k.left().Seconds(), 0.1)
	}
	k.endWait()
	require.Zero(t, k.left())
}

// A connection ends a wait now and then, not each: a peer that drops it would be dialed without an end.
func TestKeeperWaitsAreEndedByAConnectionOnceInAWhile(t *testing.T) {
	k := newKeeper(newClient(t, testHost(t), nil), "", callTag, KeeperConfig{Backoff: neverAgain})
	defer k.stop()
	k.wait(1, nil)
	k.onKick()
	require.False(t, k.waiting)
	k.wait(2, nil)
	k.onKick()
	require.True(t, k.waiting)
	k.kicked = k.kicked.Add(-kickEvery)
	k.onKick()
	require.False(t, k.waiting)
	k.endWait()
	k.onKick()
	require.True(t, k.came, "an attempt is under way")
}
