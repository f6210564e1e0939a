package peerlane

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/oldpeer"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// openLegacy opens a conn of pointsub's wire and writes b on it.
func openLegacy(t testing.TB, a, b host.Host, write []byte) *Conn {
	t.Helper()
	d := Dialer{Host: a, Tag: callTag}
	c, err := d.Dial(testContext(t), b.ID())
	require.NoError(t, err)
	t.Cleanup(func() { c.resetWith(codes.Cancelled) })
	_, err = c.Write(write)
	require.NoError(t, err)
	return c
}

// legacyHead is a header that announces n bytes.
func legacyHead(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// inboundPerPeer is how many streams of one protocol libp2p's default resource manager takes from one peer (C1).
func inboundPerPeer() int {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)
	return int(limits.AutoScale().ToPartialLimitConfig().ProtocolPeerDefault.StreamsInbound)
}

// Row: P12, P13, D5
func TestAnOldClientIsServed(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		require.NoError(t, newServer(t, b, nil).Start(callTag, func(request []byte) ([]byte, error) {
			if string(request) == "refuse" {
				return nil, errors.New("denied")
			}
			return append([]byte("re:"), request...), nil
		}))
		old := &oldpeer.Client{Host: a}
		for request, want := range map[string]string{
			"hi": "re:hi", "": "re:", "refuse": "处理请求失败: denied",
			string(noise(300 << 10)): "re:" + string(noise(300<<10)),
		} {
			got, err := old.Send(t.Context(), b.ID(), callTag, []byte(request))
			require.NoError(t, err)
			require.Equal(t, want, string(got))
		}
	})
}

// Row: P12: the bytes.
func TestTheLegacyWireIsTheseBytes(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
		c := openLegacy(t, a, b, []byte("\x00\x00\x00\x02hi"))
		require.Equal(t, "\x00\x00\x00\x02hi", string(readAll(t, c))) // to the end: the server closes, the client has not
		c = openLegacy(t, a, b, []byte("\x00\x00\x00\x00"))
		require.Equal(t, "\x00\x00\x00\x00", string(readAll(t, c)))
	})
}

// Row: P12, D9
func TestAnOldClientMaySendExactlyMaxBlockSize(t *testing.T) {
	const limit = 256 << 10
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		var runs atomic.Int32
		s := newServer(t, b, &ServerConfig{MaxBlockSize: limit})
		require.NoError(t, s.Start(callTag, func(request []byte) ([]byte, error) {
			runs.Add(1)
			if len(request) == 1 {
				return make([]byte, limit+int(request[0])), nil
			}
			return request, nil
		}))
		old := &oldpeer.Client{Host: a}
		got, err := old.Send(t.Context(), b.ID(), callTag, noise(limit))
		require.NoError(t, err)
		require.True(t, bytes.Equal(noise(limit), got))
		got, err = old.Send(t.Context(), b.ID(), callTag, []byte{0})
		require.NoError(t, err)
		require.Len(t, got, limit)
		runs.Store(0)
		_, err = old.Send(t.Context(), b.ID(), callTag, noise(limit+1))
		require.Error(t, err)
		require.Zero(t, runs.Load())
		_, err = old.Send(t.Context(), b.ID(), callTag, []byte{1})
		require.Error(t, err)
		require.EqualValues(t, 1, runs.Load())
	})
}

// Row: D10, C3, C4: a reset with our code reaches a writer on yamux as on QUIC.
func TestAnOldClientThatSendsTooMuchIsResetAtOnce(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, &ServerConfig{MaxBlockSize: 1000})
		require.NoError(t, s.Start(callTag, echoHandler))
		_, err := (&oldpeer.Client{Host: a}).Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err) // both know each other
		c := openLegacy(t, a, b, nil)
		began := time.Now()
		_, _ = c.Write(legacyHead(1001))
		err = within(t, patience, "the write", func() error { return writeUntilError(c) })
		require.Less(t, time.Since(began), patience/2)
		var reset *network.StreamError
		require.ErrorAs(t, err, &reset)
		require.Equal(t, resetCode(codes.TooLarge), reset.ErrorCode)
		require.ErrorIs(t, err, ErrTooLarge)
		require.True(t, reset.Remote)
	})
}

// Row: C1, D28, P12
func TestAsManyOldCallsAsTheResourceManagerAllowsRunAtOnce(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		n := inboundPerPeer()
		require.GreaterOrEqual(t, n, 64)
		stuck := newStuckHandler(t)
		s := newServer(t, b, nil)
		require.NoError(t, s.Handle(callTag, stuck.handle))
		old := &oldpeer.Client{Host: a, Close: true}
		var calls sync.WaitGroup
		for i := range n {
			calls.Go(func() {
				got, err := old.Send(t.Context(), b.ID(), callTag, []byte{byte(i)})
				if err != nil || got[0] != byte(i) {
					t.Errorf("call %d: %v %v", i, got, err)
				}
			})
		}
		for range n {
			await(t, stuck.entered, "a call")
		}
		require.Len(t, s.GetConnectionsInfo(), n)
		close(stuck.release)
		calls.Wait()
		waitInfo(t, s, 0)
		requireNoStreams(t, callTag, a, b)
	})
}

// Row: D1, P12: the old client leaks its streams; the server must not hold its own ends open for that.
func TestAnOldClientThatNeverClosesIsServedOnAndOn(t *testing.T) {
	onEachWith(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
		old := &oldpeer.Client{Host: a}
		for i := range 400 {
			_, err := old.Send(t.Context(), b.ID(), callTag, nil)
			require.NoError(t, err, "call %d", i)
		}
		requireNoStreams(t, callTag, b)
	})
}

// onEachWith is onEach where a has no resource manager: an old client is stopped by its own before ours is asked.
func onEachWith(t *testing.T, trs []testnet.Transport, test func(t *testing.T, a, b host.Host, tr testnet.Transport)) {
	for _, tr := range trs {
		t.Run(string(tr), func(t *testing.T) {
			a, b := testnet.Host(t, tr, libp2p.ResourceManager(&network.NullResourceManager{})), testnet.Host(t, tr)
			peerlanetest.Teach(a, b.ID(), b.Addrs()...)
			test(t, a, b, tr)
		})
	}
}

// Row: P8 (ReadTimeout): progress is what counts, not the whole.
func TestASlowOldRequestIsServedAsLongAsItMakesProgress(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		s := newServer(t, b, &ServerConfig{ReadTimeout: 400 * time.Millisecond})
		require.NoError(t, s.Start(callTag, echoHandler))
		const parts = 8
		c := openLegacy(t, a, b, legacyHead(parts))
		tick := time.NewTicker(75 * time.Millisecond)
		defer tick.Stop()
		for range parts {
			<-tick.C
			_, err := c.Write([]byte{'x'})
			require.NoError(t, err)
		}
		require.Equal(t, string(legacyHead(parts))+"xxxxxxxx", string(readAll(t, c)))
	})
}

// Row: D11, P8 (ReadTimeout, ConnectTimeout)
func TestAnOldRequestThatStallsIsReset(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, &ServerConfig{ReadTimeout: 50 * time.Millisecond, ConnectTimeout: 100 * time.Millisecond})
		require.NoError(t, s.Start(callTag, echoHandler))
		for _, sent := range [][]byte{nil, {0}, legacyHead(1000), append(legacyHead(1000), 'x')} {
			c := openLegacy(t, a, b, sent)
			require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
			_, err := c.Read(make([]byte, 1))
			e := requireTyped(t, err, session.Unknown)
			require.Equal(t, codes.Timeout, e.Code, "after %d bytes", len(sent))
			require.True(t, e.Remote)
		}
		waitInfo(t, s, 0)
		require.Zero(t, s.quota.Snapshot().Bytes)
		requireNoStreams(t, callTag, b)
	})
}

// Row: P11, D7: the handler's ctx ends with an old caller too.
func TestAnOldCallerThatLeavesEndsTheHandlersCtx(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		s := newServer(t, b, nil)
		require.NoError(t, s.Handle(callTag, stuck.handle))
		c := openLegacy(t, a, b, legacyHead(0))
		await(t, stuck.entered, "the call")
		c.resetWith(codes.Cancelled)
		require.ErrorIs(t, await(t, stuck.ended, "the end of the handler's ctx"), context.Canceled)

		c = openLegacy(t, a, b, legacyHead(0))
		await(t, stuck.entered, "the call of a caller that half-closes")
		require.NoError(t, c.CloseWrite()) // a client in another language may
		close(stuck.release)
		require.Equal(t, legacyHead(0), readAll(t, c))
		waitInfo(t, s, 0)
	})
}

// Row: D18, P15
func TestAPanicOrAStopEndsAnOldCallInOrder(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	stuck := newStuckHandler(t)
	s := newServer(t, b, nil)
	require.NoError(t, s.Start("/panic", func([]byte) ([]byte, error) { panic("boom") }))
	require.NoError(t, s.Handle(callTag, stuck.handle))
	old := &oldpeer.Client{Host: a}
	got, err := old.Send(t.Context(), b.ID(), "/panic", nil)
	require.NoError(t, err)
	require.Equal(t, "处理请求失败: handler panicked: boom", string(got))
	require.NoError(t, s.Start("/exit", func([]byte) ([]byte, error) {
		runtime.Goexit()
		return []byte("half"), nil
	}))
	for range 3 {
		got, err = old.Send(t.Context(), b.ID(), "/exit", nil)
		require.NoError(t, err)
		require.Equal(t, "处理请求失败: handler ended its goroutine", string(got))
	}
	waitInfo(t, s, 0) // its places are given back

	answered := make(chan error, 1)
	go func() {
		_, err := old.Send(t.Context(), b.ID(), callTag, nil)
		answered <- err
	}()
	await(t, stuck.entered, "the call")
	stopping := make(chan error, 1)
	go func() { stopping <- s.Stop() }()
	waitBlocked(t, "(*servedTag).shutdown", 1)
	close(stuck.release)
	require.NoError(t, await(t, stopping, "Stop"))
	require.NoError(t, await(t, answered, "the call in flight"))

	cut := newServer(t, b, nil)
	hung := newStuckHandler(t)
	require.NoError(t, cut.Handle(callTag, hung.handle))
	go func() {
		_, err := old.Send(t.Context(), b.ID(), callTag, nil)
		answered <- err
	}()
	await(t, hung.entered, "the call")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, cut.Shutdown(ctx), context.Canceled)
	await(t, hung.ended, "the end of the handler's ctx")
	require.Error(t, await(t, answered, "the call that was cut off"))
}

// Row: P8 (AllowPeers)
func TestAnOldPeerThatIsNotOnTheListIsReset(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	require.NoError(t, newServer(t, b, &ServerConfig{AllowPeers: nonePeers()}).Start(callTag, echoHandler))
	c, err := (&Dialer{Host: a, Tag: callTag}).Dial(testContext(t), b.ID())
	if err == nil { // the reset may come before the answer of the negotiation has been read
		_, err = c.Read(make([]byte, 1))
	}
	require.ErrorIs(t, err, ErrNotAllowed)
	_, err = (&oldpeer.Client{Host: a}).Send(t.Context(), b.ID(), callTag, nil)
	require.Error(t, err)
}

// Row: P14
func TestOldCallsOverTheLimitAreResetAsUnavailable(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	stuck := newStuckHandler(t)
	require.NoError(t, newServer(t, b, &ServerConfig{MaxConcurrentConns: 1}).Handle(callTag, stuck.handle))
	first := openLegacy(t, a, b, legacyHead(0))
	await(t, stuck.entered, "the first call")
	_, err := openLegacy(t, a, b, legacyHead(0)).Read(make([]byte, 1))
	require.ErrorIs(t, err, ErrUnavailable)
	close(stuck.release)
	require.Equal(t, legacyHead(0), readAll(t, first))
	require.Equal(t, legacyHead(0), readAll(t, openLegacy(t, a, b, legacyHead(0))))
}

// Row: P12, P13, D1, D28
func TestAnOldServerIsCalled(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		old := oldpeer.Serve(b, callTag, func(request []byte) ([]byte, error) {
			if string(request) == "refuse" {
				return nil, errors.New("denied")
			}
			return request, nil
		})
		defer old.Close()
		c := newClient(t, a, patientClient())
		for request, want := range map[string]string{
			"": "", "refuse": "处理请求失败: denied", string(noise(9 << 20)): string(noise(9 << 20)),
		} {
			got, err := c.Send(t.Context(), b.ID(), callTag, []byte(request))
			require.NoError(t, err)
			require.True(t, want == string(got), "%d bytes for %d", len(got), len(request))
		}
		for i := range 2000 {
			_, err := c.Send(t.Context(), b.ID(), callTag, []byte{byte(i)})
			require.NoError(t, err, "call %d", i)
		}
		require.Eventually(t, func() bool { return streamCount(a, callTag) <= 1 }, patience, time.Millisecond)
		requireNoStreams(t, callTag, a, b)
		require.Empty(t, c.GetConnectionsInfo())
	})
}

// Row: C1, D28: as many streams as an old server's resource manager takes, and the other calls wait for a place.
func TestManyCallsToAnOldServerAreAllAnswered(t *testing.T) {
	const many = 140
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		entered, release := make(chan struct{}, many), make(chan struct{})
		old := oldpeer.Serve(b, callTag, func(request []byte) ([]byte, error) {
			entered <- struct{}{}
			<-release
			return request, nil
		})
		defer old.Close()
		c := newClient(t, a, patientClient())
		var calls sync.WaitGroup
		for i := range many {
			calls.Go(func() {
				got, err := c.Send(t.Context(), b.ID(), callTag, []byte{byte(i)})
				if err != nil || got[0] != byte(i) {
					t.Errorf("call %d: %v %v", i, got, err)
				}
			})
		}
		for range maxLegacyCalls {
			await(t, entered, "a call")
		}
		waitBlocked(t, "(*pool).getLegacy", many-maxLegacyCalls)
		close(release)
		calls.Wait()
		requireNoStreams(t, callTag, a, b)
	})
}

// Row: D6, D7, P18: an old server's call that may have run is not repeated.
func TestCallsToAnOldServerEndInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		var runs atomic.Int32
		release := make(chan struct{})
		old := oldpeer.Serve(b, callTag, func(request []byte) ([]byte, error) {
			runs.Add(1)
			<-release
			return nil, nil
		})
		defer old.Close()
		defer close(release)
		cfg := patientClient()
		cfg.ReadTimeout = 300 * time.Millisecond
		c := newClient(t, a, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := c.Send(ctx, b.ID(), callTag, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireTyped(t, err, session.Unknown)
		_, err = c.Send(t.Context(), b.ID(), callTag, nil)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		requireTyped(t, err, session.Unknown)
		require.EqualValues(t, 2, runs.Load())

		slow := newClient(t, a, patientClient())
		done := sendAsync(t.Context(), slow, b, nil)
		require.Eventually(t, func() bool { return runs.Load() == 3 }, patience, time.Millisecond)
		require.NoError(t, slow.Close())
		err = await(t, done, "the call of a client that is closed")
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, err, ErrStopped)
		requireTyped(t, err, session.Unknown)
		requireNoStreams(t, callTag, a)
	})
}

// Row: P18 (WriteTimeout, ReadTimeout): ReadTimeout bounds the call to an old server that takes nothing as well.
func TestACallToAnOldServerThatReadsNothingEnds(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		streams := make(chan network.Stream, 8)
		b.SetStreamHandler(callTag, func(s network.Stream) { streams <- s })
		for _, cfg := range []*ClientConfig{
			{WriteTimeout: 100 * time.Millisecond}, {ReadTimeout: 100 * time.Millisecond},
		} {
			c := newClient(t, a, cfg)
			began := time.Now()
			_, err := c.Send(t.Context(), b.ID(), callTag, noise(20<<20))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Less(t, time.Since(began), 5*time.Second)
			for len(streams) > 0 {
				_ = (<-streams).Reset()
			}
		}
	})
}

// Row: D8: the limit of the configuration holds for what an old server answers.
func TestAnOldServersResponseMayHaveExactlyMaxBlockSize(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	old := oldpeer.Serve(b, callTag, func(request []byte) ([]byte, error) { return make([]byte, 1000+len(request)), nil })
	defer old.Close()
	cfg := patientClient()
	cfg.MaxBlockSize = 1000
	c := newClient(t, a, cfg)
	got, err := c.Send(t.Context(), b.ID(), callTag, nil)
	require.NoError(t, err)
	require.Len(t, got, 1000)
	_, err = c.Send(t.Context(), b.ID(), callTag, []byte{1})
	require.ErrorIs(t, err, ErrTooLarge)
	requireTyped(t, err, session.Delivered)
}

// An old server that ends in the middle of its answer.
func TestAShortAnswerOfAnOldServerIsAnError(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	answer := make(chan []byte, 1)
	b.SetStreamHandler(callTag, func(s network.Stream) {
		_, _ = s.Write(<-answer)
		_ = s.CloseWrite()
	})
	c := newClient(t, a, patientClient())
	answer <- nil // the carrier that asks what the peer speaks
	for _, short := range []string{"", "\x00\x00", "\x00\x00\x00\x02", "\x00\x00\x00\x02x"} {
		done := sendAsync(t.Context(), c, b, nil)
		answer <- []byte(short)
		err := await(t, done, "the call")
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%q", short)
		requireTyped(t, err, session.Unknown)
	}
}

// Mixed versions, and a peer that is upgraded and taken back.
// Row: P12
func TestAPeersUpgradeAndDowngradeAreNoticed(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c := newClient(t, a, patientClient())
		call := func(want string, sessions int) {
			t.Helper()
			for range 3 {
				got, err := c.Send(t.Context(), b.ID(), callTag, nil)
				require.NoError(t, err)
				require.Equal(t, want, string(got))
				require.Len(t, c.GetConnectionsInfo(), sessions)
			}
		}
		for range 2 {
			old := oldpeer.Serve(b, callTag, func([]byte) ([]byte, error) { return []byte("old"), nil })
			call("old", 0)
			old.Close()
			s := newServer(t, b, nil)
			require.NoError(t, s.Start(callTag, func([]byte) ([]byte, error) { return []byte("new"), nil }))
			call("new", 1)
			got, err := (&oldpeer.Client{Host: a, Close: true}).Send(t.Context(), b.ID(), callTag, nil)
			require.NoError(t, err)
			require.Equal(t, "new", string(got))
			require.NoError(t, s.Stop())
		}
	})
}

// Row: D11, D23: an old peer's calls are bounded though nothing else does it.
func TestOneOldPeersCallsAreBounded(t *testing.T) {
	t.Parallel() // it waits for real
	none := libp2p.ResourceManager(&network.NullResourceManager{})
	a, b := testnet.Host(t, testnet.QUIC, none), testnet.Host(t, testnet.QUIC, none)
	peerlanetest.Teach(a, b.ID(), b.Addrs()...)
	s := newServer(t, b, nil)
	require.NoError(t, s.Start(callTag, echoHandler))
	for range maxLegacyPerPeer {
		openLegacy(t, a, b, []byte{0})
	}
	waitInfo(t, s, maxLegacyPerPeer)
	c, err := (&Dialer{Host: a, Tag: callTag}).Dial(testContext(t), b.ID())
	if err == nil { // the refusal has not overtaken the dial
		t.Cleanup(func() { c.resetWith(codes.Cancelled) })
		_, err = c.Read(make([]byte, 1))
	}
	require.ErrorIs(t, err, ErrUnavailable)
}

// Replies to old peers that do not read them are in MaxMemoryUsage until they are sent. One that there is no room for ends its call.
func TestOldRepliesThatNobodyReadsAreInTheQuota(t *testing.T) {
	const calls, size, limit = 6, 6 << 20, 16 << 20
	none := libp2p.ResourceManager(&network.NullResourceManager{})
	a, b := testnet.Host(t, testnet.TCPNoise, none), testnet.Host(t, testnet.TCPNoise, none) // its streams share no window
	peerlanetest.Teach(a, b.ID(), b.Addrs()...)
	cfg := DefaultServerConfig()
	cfg.MaxMemoryUsage = limit
	s := newServer(t, b, cfg)
	require.NoError(t, s.Start(callTag, func([]byte) ([]byte, error) { return make([]byte, size), nil }))
	var all []*Conn
	for range calls {
		all = append(all, openLegacy(t, a, b, append(legacyHead(1), 'x')))
	}
	const room = limit * 7 / 8 / size
	require.Eventually(t, func() bool { return s.quota.Snapshot().Refused == calls-room }, patience, time.Millisecond)
	waitInfo(t, s, room)
	require.EqualValues(t, room*(size+1), s.quota.Snapshot().Bytes)
	sizes := make(map[int]int)
	for _, c := range all {
		reply, _ := io.ReadAll(c)
		sizes[len(reply)]++
	}
	require.Equal(t, map[int]int{0: calls - room, len(legacyHead(0)) + size: room}, sizes)
	require.Eventually(t, func() bool { return s.quota.Snapshot().Bytes == 0 }, patience, time.Millisecond)
}
