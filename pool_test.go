package peerlane

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// muteSessions makes h take carriers of callTag and say nothing on them.
func muteSessions(t *testing.T, h host.Host) <-chan network.Stream {
	t.Helper()
	streams := make(chan network.Stream, 1024)
	h.SetStreamHandler(sessionTag(callTag), func(s network.Stream) { streams <- s })
	t.Cleanup(func() { h.RemoveStreamHandler(sessionTag(callTag)) })
	return streams
}

// answerHello makes an echo session out of a carrier that muteSessions took.
func answerHello(t *testing.T, h host.Host, s network.Stream) {
	t.Helper()
	mux := session.NewMux()
	mux.SetCall(func(m *session.Message) ([]byte, error) { return m.Value, nil })
	acceptor, err := session.NewAcceptor(&session.AcceptorConfig{Config: session.Config{Mux: mux, Local: h.ID().String()}})
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() {
		served <- acceptor.Serve(newCarrier(newConn(s, sessionTag(callTag), connOptions{}), nil, h), s.Conn().RemotePeer().String())
	}()
	t.Cleanup(func() {
		_ = acceptor.Shutdown(t.Context())
		<-served
	})
}

// sessionIDs returns the ids of the sessions that a server has open.
func sessionIDs(s *Server) []session.ID {
	var ids []session.ID
	for _, c := range s.Sessions() {
		ids = append(ids, c.ID())
	}
	return ids
}

// waitInfo waits until n connections are listed.
func waitInfo(t testing.TB, of interface{ GetConnectionsInfo() []ConnectionInfo }, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(of.GetConnectionsInfo()) == n }, patience, time.Millisecond,
		"%d connections", n)
}

// Row: P21
func TestConcurrentFirstCallsShareOneSession(t *testing.T) {
	const callers = 64
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		var (
			s    = newServer(t, b, nil)
			mu   sync.Mutex
			seen = make(map[session.ID]bool)
		)
		require.NoError(t, s.Start(callTag, func(request []byte) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			for _, id := range sessionIDs(s) {
				seen[id] = true
			}
			return request, nil
		}))
		c := newClient(t, a, nil)
		var calls sync.WaitGroup
		for range callers {
			calls.Go(func() {
				if _, err := c.Send(t.Context(), b.ID(), callTag, nil); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, seen, 1)
		require.Equal(t, 1, streamCount(a, sessionTag(callTag)))
	})
}

// Row: P21: one caller's cancel is its own business.
func TestACallerThatGivesUpOnASharedOpeningLeavesItToTheOthers(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	streams := muteSessions(t, b)
	c := newClient(t, a, nil)
	ctx, cancel := context.WithCancel(t.Context())
	first := sendAsync(ctx, c, b, nil)
	stream := await(t, streams, "the carrier")
	var others []<-chan error
	for range 8 {
		others = append(others, sendAsync(t.Context(), c, b, []byte("x")))
	}
	waitBlocked(t, "(*pool).await", 1+len(others))
	cancel()
	err := await(t, first, "the caller that gave up")
	require.ErrorIs(t, err, context.Canceled)
	requireTyped(t, err, session.NotSent)
	answerHello(t, b, stream)
	for i, other := range others {
		require.NoError(t, await(t, other, "another caller"), "caller %d", i)
	}
	require.Empty(t, streams, "a second carrier was opened")
}

// Row: P21: an opening that nobody waits for is given up.
func TestTheLastCallerThatGivesUpEndsTheOpening(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		streams := muteSessions(t, b)
		cfg := DefaultClientConfig()
		cfg.ConnectTimeout = never
		c := newClient(t, a, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		calls := []<-chan error{sendAsync(ctx, c, b, nil), sendAsync(ctx, c, b, nil)}
		stream := await(t, streams, "the carrier")
		waitBlocked(t, "(*pool).await", len(calls))
		cancel()
		for _, call := range calls {
			require.ErrorIs(t, await(t, call, "a call"), context.Canceled)
		}
		requireNoStreams(t, sessionTag(callTag), a)
		_ = stream.Reset()
	})
}

// Row: D13: pointsub's ConnectTimeout of 200 ms took 5 s against a silent peer.
// Claim: peerlane.ClientConfig.ConnectTimeout
func TestConnectTimeoutBoundsTheOpeningAtASilentPeer(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		streams := muteSessions(t, b)
		const bound = 2 * time.Second // long enough for the carrier to come on a busy machine
		c := newClient(t, a, &ClientConfig{ConnectTimeout: bound})
		began := time.Now()
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		took := time.Since(began)
		require.GreaterOrEqual(t, took, bound)
		require.Less(t, took, DefaultClientConfig().ConnectTimeout, "the bound is not the default one")
		require.True(t, requireTyped(t, err, session.NotSent).Timeout(), "%v", err)
		requireNoStreams(t, sessionTag(callTag), a)
		_ = await(t, streams, "the carrier").Reset()
	})
}

// Row: P19, D22
func TestCloseEndsAnOpening(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	streams := muteSessions(t, b)
	cfg := patientClient()
	cfg.ConnectTimeout, cfg.AdmitAll = never, true
	c := newClient(t, a, cfg)
	call := sendAsync(t.Context(), c, b, nil)
	connect := make(chan error, 1)
	go func() {
		_, err := c.Connect(t.Context(), b.ID(), callTag)
		connect <- err
	}()
	for range 2 {
		stream := await(t, streams, "a carrier")
		defer func() { _ = stream.Reset() }()
	}
	require.NoError(t, c.Close())
	require.ErrorIs(t, await(t, call, "the call"), ErrStopped)
	require.ErrorIs(t, await(t, connect, "the Connect"), ErrStopped)
	requireNoStreams(t, sessionTag(callTag), a)
}

// Row: P18: a kept session that has ended costs the next call nothing.
func TestACallAfterTheKeptSessionWasLostWorksAtOnce(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
		cfg := patientClient()
		cfg.MaxRetries, cfg.ResumeWindow = 0, -1
		c := newClient(t, a, cfg)
		for range 5 {
			_, err := c.Send(t.Context(), b.ID(), callTag, nil)
			require.NoError(t, err)
			require.NoError(t, b.Network().ClosePeer(a.ID()))
			waitInfo(t, c, 0)
		}
	})
}

// Row: P18, D13 (MaxRequestsPerConn): a drained session refuses what it has not begun, and that costs no retry.
// Claim: peerlane.ServerConfig.MaxRequestsPerConn
func TestCallsGoOnOverSessionsThatDrain(t *testing.T) {
	t.Parallel() // it waits for real
	const calls, each = 100, 10
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		var runs atomic.Int32
		s := newServer(t, b, &ServerConfig{MaxRequestsPerConn: each})
		require.NoError(t, s.Start(callTag, func(request []byte) ([]byte, error) {
			runs.Add(1)
			return request, nil
		}))
		for _, retries := range []int{0, 3} {
			runs.Store(0)
			cfg := patientClient()
			cfg.MaxRetries = retries
			c := newClient(t, a, cfg)
			for i := range calls {
				_, err := c.Send(t.Context(), b.ID(), callTag, nil)
				require.NoError(t, err, "call %d", i)
			}
			var parallel []<-chan error
			for range calls {
				parallel = append(parallel, sendAsync(t.Context(), c, b, nil))
			}
			for i, call := range parallel {
				require.NoError(t, await(t, call, "a call"), "parallel call %d", i)
			}
			require.EqualValues(t, 2*calls, runs.Load())
			require.NoError(t, c.Close())
		}
		for _, v := range s.GetConnectionsInfo() {
			require.LessOrEqual(t, v.Requests, uint64(each))
		}
	})
}

// Row: P18: what may have run is retried only for a caller who says that it may run twice.
func TestOnlyIdempotentCallsAreRetriedWhenTheOutcomeIsUnknown(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		require.NoError(t, newServer(t, b, nil).Handle(callTag, stuck.handle))
		cfg := DefaultClientConfig()
		cfg.RetryInterval, cfg.ResumeWindow = time.Millisecond, -1
		c := newClient(t, a, cfg)

		done := sendAsync(t.Context(), c, b, nil)
		await(t, stuck.entered, "the call")
		require.NoError(t, b.Network().ClosePeer(a.ID()))
		err := await(t, done, "the call's end")
		require.ErrorIs(t, err, session.ErrSessionLost)
		requireTyped(t, err, session.Unknown)
		require.EqualValues(t, 1, stuck.runs.Load())

		done = sendAsync(WithIdempotent(t.Context()), c, b, nil)
		select {
		case <-stuck.entered:
		case err := <-done:
			require.FailNow(t, "the idempotent call did not come", "%v", err)
		}
		require.NoError(t, b.Network().ClosePeer(a.ID()))
		await(t, stuck.entered, "the idempotent call's second run")
		close(stuck.release)
		require.NoError(t, await(t, done, "the idempotent call"))
		require.EqualValues(t, 3, stuck.runs.Load())
	})
}

// countDials listens at an address where no libp2p host is, and tells of each connection that comes and is dropped.
func countDials(t *testing.T) (at ma.Multiaddr, dials <-chan time.Time, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	seen := make(chan time.Time, 64)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			seen <- time.Now()
			_ = c.Close()
		}
	})
	stop = sync.OnceFunc(func() { _ = l.Close(); accepting.Wait() })
	t.Cleanup(stop)
	at, err = manet.FromNetAddr(l.Addr())
	require.NoError(t, err)
	return at, seen, stop
}

// newIdentity returns the key of a host that is not there yet.
func newIdentity(t *testing.T) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(nil)
	require.NoError(t, err)
	pid, err := peer.IDFromPrivateKey(key)
	require.NoError(t, err)
	return key, pid
}

// Row: P17 (MaxRetries, RetryInterval), P18
// Claim: peerlane.ClientConfig.MaxRetries, peerlane.ClientConfig.RetryInterval
func TestRetriesAreCountedAndBackOff(t *testing.T) {
	t.Parallel() // it waits for real
	const interval = 40 * time.Millisecond
	at, dials, stop := countDials(t)
	_, pid := newIdentity(t)
	a := testHost(t)
	peerlanetest.Teach(a, pid, at)
	c := newClient(t, a, &ClientConfig{MaxRetries: 3, RetryInterval: interval})
	_, err := c.Send(t.Context(), pid, callTag, nil)
	require.ErrorIs(t, err, ErrUnreachable)
	requireTyped(t, err, session.NotSent)
	stop()
	require.Len(t, dials, 4)
	last := <-dials
	for n := range 3 {
		at := <-dials
		require.GreaterOrEqual(t, at.Sub(last), (interval<<n)/2-2*time.Millisecond, "wait %d", n)
		last = at
	}
}

func TestBackoffDoublesUpToTenfoldAndIsShortenedByAHalf(t *testing.T) {
	const interval = 100 * time.Millisecond
	want := []time.Duration{1, 2, 4, 8, 10, 10, 10}
	for n, times := range want {
		for range 200 {
			d := retryWait(interval, n)
			require.GreaterOrEqual(t, d, times*interval/2, "retry %d", n)
			require.LessOrEqual(t, d, times*interval, "retry %d", n)
		}
	}
	require.Positive(t, retryWait(never, 1<<20))
}

// Row: P18: nothing has been sent while the server is down, so the call is retried and runs once.
func TestACallWaitsForAServerThatComesUpDuringTheRetries(t *testing.T) {
	at, dials, stop := countDials(t)
	key, pid := newIdentity(t)
	a := testHost(t)
	peerlanetest.Teach(a, pid, at)
	c := newClient(t, a, &ClientConfig{MaxRetries: 100, RetryInterval: 20 * time.Millisecond})
	done := make(chan error, 1)
	go func() {
		_, err := c.Send(t.Context(), pid, callTag, nil)
		done <- err
	}()
	await(t, dials, "the first try")
	await(t, dials, "the second try")
	stop()
	b := testnet.Host(t, testnet.TCPTLS, libp2p.Identity(key), libp2p.NoListenAddrs)
	var runs atomic.Int32
	require.NoError(t, newServer(t, b, nil).Start(callTag, func([]byte) ([]byte, error) {
		runs.Add(1)
		return nil, nil
	}))
	require.NoError(t, b.Network().Listen(at)) // not before: the peer would say that it does not serve the tag
	require.NoError(t, await(t, done, "the call"))
	require.EqualValues(t, 1, runs.Load())
}

// Row: P17 (IdleConnTimeout), D13
// Claim: peerlane.ClientConfig.IdleConnTimeout
func TestIdleConnTimeoutClosesOnlyWhatIsIdle(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		s := newServer(t, b, nil)
		require.NoError(t, s.Handle(callTag, stuck.handle))
		require.NoError(t, s.Start("/quick", echoHandler))
		c := newClient(t, a, &ClientConfig{IdleConnTimeout: 50 * time.Millisecond})
		done := sendAsync(t.Context(), c, b, []byte("x"))
		await(t, stuck.entered, "the long call")
		_, err := c.Send(t.Context(), b.ID(), "/quick", nil)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			info := c.GetConnectionsInfo()
			return len(info) == 1 && info[0].Tag == callTag
		}, patience, time.Millisecond)
		waitInfo(t, s, 1)
		require.False(t, s.Sessions()[0].Draining())
		close(stuck.release)
		require.NoError(t, await(t, done, "the long call"))
		waitInfo(t, c, 0)
		waitInfo(t, s, 0)
		requireNoStreams(t, sessionTag(callTag), a, b)
	})
}

// Row: P17 (MaxIdleConns), D13: the longest idle goes first, and at once.
// Claim: peerlane.ClientConfig.MaxIdleConns
func TestMaxIdleConnsKeepsTheLastUsed(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, nil)
	c := newClient(t, a, &ClientConfig{MaxIdleConns: 2})
	tags := []string{"/0", "/1", "/2", "/3", "/4"}
	for _, tag := range tags {
		require.NoError(t, s.Start(protocolID(tag), echoHandler))
		_, err := c.Send(t.Context(), b.ID(), protocolID(tag), nil)
		require.NoError(t, err)
	}
	waitInfo(t, c, 2)
	waitInfo(t, s, 2)
	for _, v := range c.GetConnectionsInfo() {
		require.Contains(t, []string{"/3", "/4"}, string(v.Tag))
	}
}

// Row: P19: what drains is not forgotten.
func TestCloseEndsTheCallsOfASessionThatDrains(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		stuck := newStuckHandler(t)
		s := newServer(t, b, nil)
		require.NoError(t, s.Handle(callTag, stuck.handle))
		cfg := DefaultClientConfig()
		cfg.CloseTimeout = 50 * time.Millisecond // for which the calls are waited for
		c := newClient(t, a, cfg)
		first := sendAsync(t.Context(), c, b, nil)
		await(t, stuck.entered, "the first call")
		s.Sessions()[0].Drain("test")
		time.Sleep(time.Second)
		second := sendAsync(t.Context(), c, b, nil) // finds that the kept session drains, and opens another
		await(t, stuck.entered, "the second call")
		require.Len(t, c.GetConnectionsInfo(), 2)
		require.NoError(t, c.Close())
		require.ErrorIs(t, await(t, first, "the call on the session that drains"), net.ErrClosed)
		require.ErrorIs(t, await(t, second, "the call on the other session"), net.ErrClosed)
		require.Empty(t, c.GetConnectionsInfo())
	})
}
