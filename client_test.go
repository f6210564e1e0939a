package peerlane

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/psk"
	"github.com/peerlane/peerlane/session"
)

const callTag protocol.ID = "/test/1.0.0"

// cheapPSK keeps Argon2id out of the time of tests.
var cheapPSK = &PSKOptions{Params: psk.Params{Time: 1, MemoryKiB: 64, Threads: 1}}

// newServer returns a server on h that is stopped when the test ends.
func newServer(t *testing.T, h host.Host, cfg *ServerConfig) *Server {
	t.Helper()
	s, err := NewServer(h, cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // cut off what a failed test left
		_ = s.Shutdown(ctx)
	})
	return s
}

// newClient returns a client on h that is closed when the test ends.
func newClient(t *testing.T, h host.Host, cfg *ClientConfig) *Client {
	t.Helper()
	c, err := NewClient(h, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func echoHandler(request []byte) ([]byte, error) { return request, nil }

// muxes are one transport muxed by yamux and one that muxes itself.
var muxes = []testnet.Transport{testnet.TCPTLS, testnet.QUIC}

// never is a wait that a test does not survive: a Send that takes it has retried what it must not.
const never = time.Hour

// patientClient is the default configuration with a retry interval of never.
func patientClient() *ClientConfig {
	c := DefaultClientConfig()
	c.RetryInterval = never
	return c
}

// requireTyped returns the typed error of a Send that is expected to fail, and checks its outcome.
func requireTyped(t testing.TB, err error, outcome session.Outcome) *Error {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, outcome, e.Outcome, "%v", err)
	return e
}

// sendAsync makes a call in a goroutine.
func sendAsync(ctx context.Context, c *Client, h host.Host, request []byte) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := c.Send(ctx, h.ID(), callTag, request)
		done <- err
	}()
	return done
}

// await returns what comes from ch, within the test's patience.
func await[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing came", "%s", what)
		panic("unreachable")
	}
}

// A stuckHandler holds every call until it is released or the caller has gone.
type stuckHandler struct {
	entered chan *Request // one for each call
	ended   chan error    // why a call's ctx ended
	release chan struct{} // closed: calls are answered
	over    chan struct{} // closed: the test is
	runs    atomic.Int32
}

func newStuckHandler(t testing.TB) *stuckHandler {
	s := &stuckHandler{entered: make(chan *Request, 4096), ended: make(chan error, 4096),
		release: make(chan struct{}), over: make(chan struct{})}
	t.Cleanup(func() { close(s.over) })
	return s
}

func (s *stuckHandler) handle(ctx context.Context, req *Request) ([]byte, error) {
	s.runs.Add(1)
	s.entered <- req
	select {
	case <-s.release:
		return req.Value, nil
	case <-ctx.Done():
		err := ctx.Err()
		s.ended <- err
		if errors.Is(err, context.DeadlineExceeded) {
			<-s.over // an answer now would race with the caller's own deadline
		}
		return nil, err
	}
}

// Row: P18, P20, D1, D28, C1
func TestManyCallsUnderTheDefaultResourceManagerShareOneStream(t *testing.T) {
	for _, tr := range []testnet.Transport{testnet.TCPTLS, testnet.QUIC} {
		t.Run(string(tr), func(t *testing.T) {
			a, b := testnet.Pair(t, tr)
			s := newServer(t, b, nil)
			require.NoError(t, s.Start(callTag, echoHandler))
			c := newClient(t, a, nil)
			for i := range 2000 {
				got, err := c.Send(t.Context(), b.ID(), callTag, []byte{byte(i)})
				require.NoError(t, err, "call %d", i)
				require.Equal(t, []byte{byte(i)}, got)
			}
			var wg sync.WaitGroup
			for i := range 140 {
				wg.Go(func() {
					body := bytes.Repeat([]byte{byte(i)}, 1000)
					got, err := c.Send(t.Context(), b.ID(), callTag, body)
					if err != nil || !bytes.Equal(got, body) {
						t.Errorf("call %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			require.Len(t, s.GetConnectionsInfo(), 1)
			require.NoError(t, c.Close())
		})
	}
}

// Row: P13, D5
func TestAHandlersErrorReachesTheCallerTyped(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, nil)
	require.NoError(t, s.Start(callTag, func([]byte) ([]byte, error) { return nil, errors.New("denied") }))
	_, err := newClient(t, a, nil).Send(t.Context(), b.ID(), callTag, nil)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "denied", e.Text)
	require.Equal(t, session.Delivered, e.Outcome)
	require.True(t, e.Remote)
}

// Row: N1, N2
func TestCallsAndMessagesRunUnderAPreSharedKey(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s, c := newServer(t, b, nil), newClient(t, a, nil)
	require.ErrorIs(t, s.Listen(callTag), ErrModernPSKRequired)
	_, err := c.Connect(t.Context(), b.ID(), callTag)
	require.ErrorIs(t, err, ErrModernPSKRequired)
	require.NoError(t, UseModernPSKServer(s, []byte("correct horse"), cheapPSK))
	require.NoError(t, UseModernPSKClient(c, []byte("correct horse"), cheapPSK))
	require.NoError(t, s.Start(callTag, echoHandler))
	s.SetLink("hello", func(m *session.Message) { _ = m.Reply(append([]byte("hello "), m.Value...)) })
	got, err := c.Send(t.Context(), b.ID(), callTag, []byte("x"))
	require.NoError(t, err)
	require.Equal(t, "x", string(got))
	own, err := c.Connect(t.Context(), b.ID(), callTag)
	require.NoError(t, err)
	reply, err := own.SendWait(t.Context(), "hello", []byte("bob"))
	require.NoError(t, err)
	require.Equal(t, "hello bob", string(reply.Value))
	wrong := newClient(t, a, nil)
	require.NoError(t, UseModernPSKClient(wrong, []byte("wrong horse"), cheapPSK))
	_, err = wrong.Send(t.Context(), b.ID(), callTag, nil)
	require.ErrorIs(t, err, ErrPSKMismatch)
	_, err = newClient(t, a, nil).Send(t.Context(), b.ID(), callTag, nil)
	require.ErrorIs(t, err, ErrPSKRequired)
}

// Row: D6, P18
func TestAHandlerSlowerThanReadTimeoutRunsOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		stuck := newStuckHandler(t)
		require.NoError(t, newServer(t, b, nil).Handle(callTag, stuck.handle))
		cfg := patientClient()
		cfg.ReadTimeout = 100 * time.Millisecond
		began := time.Now()
		_, err := newClient(t, a, cfg).Send(t.Context(), b.ID(), callTag, nil)
		require.Less(t, time.Since(began), 5*time.Second)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.True(t, requireTyped(t, err, session.Unknown).Timeout())
		require.EqualValues(t, 1, stuck.runs.Load())
		await(t, stuck.ended, "the end of the handler's ctx")
	})
}

// Row: D7, P11, P18
func TestACtxThatEndsEndsTheCallAndTheHandlersCtx(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		stuck := newStuckHandler(t)
		require.NoError(t, newServer(t, b, nil).Handle(callTag, stuck.handle))
		c := newClient(t, a, nil)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := c.Send(ctx, b.ID(), callTag, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		took := time.Since(began)
		require.GreaterOrEqual(t, took, 200*time.Millisecond)
		require.Less(t, took, DefaultClientConfig().ConnectTimeout, "the bound is not the default one")
		await(t, stuck.ended, "the end of the handler's ctx by its deadline")

		ctx, cancel = context.WithCancel(t.Context())
		done := sendAsync(ctx, c, b, nil)
		await(t, stuck.entered, "the first call")
		await(t, stuck.entered, "the second call")
		cancel()
		err = await(t, done, "the cancelled call")
		require.ErrorIs(t, err, context.Canceled)
		requireTyped(t, err, session.Unknown)
		require.ErrorIs(t, await(t, stuck.ended, "the end of the handler's ctx by a cancel"), context.Canceled)
	})
}

// Row: D8, D9, D10, P18: the limit is the configured one, to the byte, each way.
func TestRequestsAndResponsesMayHaveExactlyMaxBlockSize(t *testing.T) {
	const limit = 1 << 20
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
		cfg := patientClient()
		cfg.MaxBlockSize = limit
		c := newClient(t, a, cfg)
		full := noise(limit)
		got, err := c.Send(t.Context(), b.ID(), callTag, full)
		require.NoError(t, err)
		require.True(t, bytes.Equal(full, got))
		got, err = c.Send(t.Context(), b.ID(), callTag, []byte{0})
		require.NoError(t, err)
		require.Len(t, got, limit)

		runs.Store(0)
		_, err = c.Send(t.Context(), b.ID(), callTag, make([]byte, limit+1))
		require.ErrorIs(t, err, ErrTooLarge)
		requireTyped(t, err, session.NotSent)
		require.Zero(t, runs.Load())
		_, err = c.Send(t.Context(), b.ID(), callTag, []byte{1})
		require.ErrorIs(t, err, ErrTooLarge)
		require.True(t, requireTyped(t, err, session.Delivered).Remote)
		require.EqualValues(t, 1, runs.Load())
	})
}

// Row: D10
func TestARequestTooLargeForTheServerIsRefusedAtOnce(t *testing.T) {
	const limit = 1 << 20
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		var runs atomic.Int32
		s := newServer(t, b, &ServerConfig{MaxBlockSize: limit})
		require.NoError(t, s.Start(callTag, func(request []byte) ([]byte, error) {
			runs.Add(1)
			return request, nil
		}))
		c := newClient(t, a, patientClient())
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err)
		began := time.Now()
		_, err = c.Send(t.Context(), b.ID(), callTag, noise(limit+1))
		require.Less(t, time.Since(began), patience/2, "before it is sent")
		require.ErrorIs(t, err, ErrTooLarge)
		requireTyped(t, err, session.NotSent)
		got, err := c.Send(t.Context(), b.ID(), callTag, noise(limit))
		require.NoError(t, err)
		require.Len(t, got, limit)
		require.EqualValues(t, 2, runs.Load())
	})
}

// Row: D8: pointsub's client stopped at 8 MiB whatever it was told. HEAD v1.2.4 (a): 65536..65791 did not survive.
func TestMessagesOfEverySizeArriveWhole(t *testing.T) {
	a, b := testnet.Pair(t, testnet.QUIC)
	require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
	c := newClient(t, a, nil)
	sizes := []int{0, 1, 32<<10 - 1, 32 << 10, 8<<20 - 1, 8 << 20, 8<<20 + 1}
	for n := 65536 - 4; n < 65536+256; n += 3 {
		sizes = append(sizes, n)
	}
	all := noise(8<<20 + 1)
	for _, n := range sizes {
		got, err := c.Send(t.Context(), b.ID(), callTag, all[:n])
		require.NoError(t, err, "%d bytes", n)
		require.True(t, bytes.Equal(all[:n], got), "%d bytes", n)
	}
}

// Row: D16: the request belongs to the handler.
func TestRequestsThatAHandlerKeepsStayAsTheyWere(t *testing.T) {
	const kept = 50
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		have := make(chan []byte, kept)
		s := newServer(t, b, nil)
		require.NoError(t, s.Start(callTag, func(request []byte) ([]byte, error) {
			have <- request
			return nil, nil
		}))
		c := newClient(t, a, nil)
		for _, size := range []int{100, 100 << 10} {
			for i := range kept {
				body := bytes.Repeat([]byte{byte(i)}, size)
				_, err := c.Send(t.Context(), b.ID(), callTag, body)
				require.NoError(t, err)
				clear(body) // Send has returned: it is the caller's again
			}
			for i := range kept {
				require.Equal(t, bytes.Repeat([]byte{byte(i)}, size), <-have, "request %d", i)
			}
		}
	})
}

// Row: D21, C7, P18: what cannot get better is told at once, with its cause.
func TestPermanentErrorsAreNotRetried(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, nil)
	require.NoError(t, s.Start(callTag, echoHandler))
	require.NoError(t, s.Start("/failing", func([]byte) ([]byte, error) { return nil, errors.New("no") }))
	require.NoError(t, newServer(t, b, &ServerConfig{AllowPeers: nonePeers()}).Start("/closed", echoHandler))
	sealed := newServer(t, b, nil)
	require.NoError(t, UseModernPSKServer(sealed, []byte("correct horse"), cheapPSK))
	require.NoError(t, sealed.Start("/sealed", echoHandler))
	c := newClient(t, a, patientClient())
	for _, v := range []struct {
		tag     protocol.ID
		want    error
		outcome session.Outcome
	}{
		{"/nobody", ErrNotServed, session.Rejected},
		{"/closed", ErrNotAllowed, session.NotSent},
		{"/sealed", ErrPSKRequired, session.NotSent},
		{"/failing", nil, session.Delivered},
		{"", ErrInvalid, session.Unknown},
	} {
		err := within(t, patience, string(v.tag), func() error {
			_, err := c.Send(WithIdempotent(t.Context()), b.ID(), v.tag, nil)
			return err
		})
		require.Error(t, err)
		if v.want != nil {
			require.ErrorIs(t, err, v.want, "tag %q", v.tag)
		}
		if v.want != ErrInvalid {
			requireTyped(t, err, v.outcome)
		}
	}
	_, err := c.Send(t.Context(), "", callTag, nil)
	require.ErrorIs(t, err, ErrInvalid)
}

// Row: C7, D14: the peerstore still lists the tag when nobody serves it any more.
func TestATagThatIsServedNoMoreIsRefusedAtOnce(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, nil)
		require.NoError(t, s.Start(callTag, echoHandler))
		c := newClient(t, a, patientClient())
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err)
		require.NoError(t, s.Stop())
		_, err = c.Send(t.Context(), b.ID(), callTag, nil)
		require.ErrorIs(t, err, ErrNotServed)
	})
}

// Row: D22, P19
func TestAClosedClientSaysSo(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
		c := newClient(t, a, &ClientConfig{AdmitAll: true, RetryInterval: never, MaxRetries: 3})
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err)
		own, err := c.Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, c.Close())
		_, err = c.Send(t.Context(), b.ID(), callTag, nil)
		require.ErrorIs(t, err, ErrStopped)
		require.ErrorIs(t, err, net.ErrClosed)
		requireTyped(t, err, session.NotSent)
		_, err = c.Connect(t.Context(), b.ID(), callTag)
		require.ErrorIs(t, err, ErrStopped)
		require.ErrorIs(t, own.Err(), net.ErrClosed)
		require.Empty(t, c.GetConnectionsInfo())
		requireNoStreams(t, sessionTag(callTag), a, b)
	})
}

// Row: P19, D22
func TestCloseEndsTheCallsInFlight(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		require.NoError(t, newServer(t, b, nil).Handle(callTag, stuck.handle))
		cfg := patientClient()
		cfg.CloseTimeout = 50 * time.Millisecond // for which the call is waited for
		c := newClient(t, a, cfg)
		done := sendAsync(t.Context(), c, b, nil)
		await(t, stuck.entered, "the call")
		require.NoError(t, c.Close())
		err := await(t, done, "the call's end")
		require.ErrorIs(t, err, net.ErrClosed)
		requireTyped(t, err, session.Unknown)
		await(t, stuck.ended, "the end of the handler's ctx")
	})
}

// Invariant 4: nothing waits for ever, Close included.
func TestCloseEndsTheWaitBeforeARetry(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	require.NoError(t, b.Close())
	c := newClient(t, a, patientClient())
	done := sendAsync(t.Context(), c, b, nil)
	waitBlocked(t, "(*pool).sleep", 1)
	require.NoError(t, c.Close())
	require.ErrorIs(t, await(t, done, "the call's end"), ErrStopped)
}

// Row: C5, P5
func TestAClientCallsItsOwnHost(t *testing.T) {
	h := testHost(t)
	require.NoError(t, newServer(t, h, nil).Start(callTag, echoHandler))
	c := newClient(t, h, patientClient())
	got, err := c.Send(t.Context(), h.ID(), callTag, noise(1<<20))
	require.NoError(t, err)
	require.Equal(t, noise(1<<20), got)
	require.Equal(t, "loopback", c.GetConnectionsInfo()[0].Path.Transport)
	_, err = c.Send(t.Context(), h.ID(), "/nobody", nil)
	require.ErrorIs(t, err, ErrNotServed)
}

// Where sessions do not outlive their connection, in-flight calls learn from it that the peer is gone, long before the
// heartbeat.
func TestCallsEndAtOnceWhenThePeersHostCloses(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		require.NoError(t, newServer(t, b, nil).Handle(callTag, stuck.handle))
		cfg := patientClient()
		cfg.ResumeWindow = -1
		c := newClient(t, a, cfg)
		done := sendAsync(t.Context(), c, b, nil)
		await(t, stuck.entered, "the call")
		began := time.Now()
		require.NoError(t, b.Close())
		err := await(t, done, "the call's end")
		require.Less(t, time.Since(began), DefaultClientConfig().Heartbeat, "the loss is heard, and not found by silence")
		require.ErrorIs(t, err, session.ErrSessionLost)
		requireTyped(t, err, session.Unknown)
		require.Empty(t, c.GetConnectionsInfo())
	})
}

// The peer learns that a client has closed its sessions also when its host closes at once: libp2p drops what its streams have not
// sent, and the peer would keep them for the ResumeWindow.
func TestAHostMayBeClosedRightAfterItsClient(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, nil)
		require.NoError(t, s.Handle(callTag, func(_ context.Context, req *Request) ([]byte, error) { return req.Value, nil }))
		c := newClient(t, a, patientClient())
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err)
		require.Len(t, s.GetConnectionsInfo(), 1)
		require.NoError(t, c.Close())
		require.NoError(t, a.Close())
		require.Eventually(t, func() bool { return len(s.GetConnectionsInfo()) == 0 }, 5*time.Second, time.Millisecond)
	})
}

// Row: P11: the caller is known, and an error keeps its code, text and hint.
// Claim: peerlane.Request.Peer, peerlane.Request.Tag
func TestAHandlerKnowsItsCallerAndChoosesTheCode(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, nil)
	require.NoError(t, s.Handle(callTag, func(_ context.Context, req *Request) ([]byte, error) {
		require.Equal(t, a.ID(), req.Peer)
		require.Equal(t, callTag, req.Tag)
		return nil, &Error{Code: codes.Unavailable, Text: "later", RetryAfter: 7 * time.Second}
	}))
	_, err := newClient(t, a, patientClient()).Send(t.Context(), b.ID(), callTag, []byte("x"))
	require.ErrorIs(t, err, ErrUnavailable)
	e := requireTyped(t, err, session.Rejected)
	require.Equal(t, "later", e.Text)
	require.Equal(t, 7*time.Second, e.RetryAfter)
	require.Equal(t, "send", e.Op)
	require.Equal(t, string(callTag), e.Link)
	require.Equal(t, b.ID().String(), e.Peer)
}
