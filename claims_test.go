package peerlane

import (
	"context"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/resume"
	"github.com/peerlane/peerlane/session"
)

// Claim: peerlane.ClientConfig.ReadTimeout
func TestReadTimeoutBoundsConnectingAndRetriesToo(t *testing.T) {
	t.Parallel() // it waits for real
	a, b := testnet.Pair(t, testnet.TCPTLS)
	at, dials, stop := countDials(t)
	defer stop()
	_, absent := newIdentity(t)
	peerlanetest.Teach(a, absent, at)
	muteSessions(t, b)
	for name, pid := range map[string]peer.ID{"cannot be reached": absent, "says nothing": b.ID()} {
		bound := 100 * time.Millisecond
		if pid == absent {
			bound = 2 * time.Second // long enough for a dial to fail on a busy machine
		}
		c := newClient(t, a, &ClientConfig{ReadTimeout: bound, ConnectTimeout: never, RetryInterval: never, MaxRetries: 3})
		for what, ctx := range map[string]context.Context{"once": t.Context(), "idempotent": WithIdempotent(t.Context())} {
			began := time.Now()
			_, err := c.Send(ctx, pid, callTag, nil)
			require.GreaterOrEqual(t, time.Since(began), bound, "%s, %s", name, what)
			require.Less(t, time.Since(began), patience, "%s, %s", name, what)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded, "%s, %s", name, what)
			require.True(t, requireTyped(t, err, session.NotSent).Timeout(), "%s, %s: %v", name, what, err)
			if pid == absent {
				require.ErrorIs(t, err, ErrUnreachable, "the last failure is told too")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), bound/4)
		_, err := c.Send(ctx, pid, callTag, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded, "a ctx that ends earlier comes first")
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		cancel()
		require.NoError(t, c.Close())
	}
	require.NotEmpty(t, dials)
}

// Claim: peerlane.ClientConfig.MaxBlockSize
// Claim: peerlane.ServerConfig.MaxBlockSize
// Claim: peerlane.ErrTooLarge
func TestMaxBlockSizeHoldsInEachDirectionOnBothSides(t *testing.T) {
	const small, large = 100, 1 << 20
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		for _, v := range []struct{ client, server int }{{small, large}, {large, small}} {
			s := newServer(t, b, &ServerConfig{MaxBlockSize: v.server, AdmitAll: true})
			ran := make(chan int, 16)
			answer := func(request []byte) ([]byte, error) {
				ran <- len(request)
				if len(request) == 1 {
					return make([]byte, small+int(request[0])), nil
				}
				return request, nil
			}
			require.NoError(t, s.Start(callTag, answer))
			s.SetLink("link", func(m *session.Message) { response, _ := answer(m.Value); _ = m.Reply(response) })
			c := newClient(t, a, &ClientConfig{MaxBlockSize: v.client, AdmitAll: true})
			own, err := c.Connect(t.Context(), b.ID(), callTag)
			require.NoError(t, err)
			send := map[string]func([]byte) (int, error){
				"Send": func(p []byte) (int, error) { r, err := c.Send(t.Context(), b.ID(), callTag, p); return len(r), err },
				"Call": func(p []byte) (int, error) { r, err := own.Call(t.Context(), "", p); return len(r), err },
				"SendWait": func(p []byte) (int, error) {
					m, err := own.SendWait(t.Context(), "link", p)
					if err != nil {
						return 0, err
					}
					return len(m.Value), nil
				},
			}
			for name, send := range send {
				for _, request := range [][]byte{noise(small), {0}} {
					n, err := send(request)
					require.NoError(t, err, "%s %+v", name, v)
					require.Equal(t, small, n, "%s %+v", name, v)
					<-ran
				}
				_, err := send(noise(small + 1))
				require.ErrorIs(t, err, ErrTooLarge, "%s %+v", name, v)
				requireTyped(t, err, session.NotSent)
				require.Empty(t, ran, "%s %+v", name, v)
				_, err = send([]byte{1})
				require.ErrorIs(t, err, ErrTooLarge, "%s %+v", name, v)
				requireTyped(t, err, session.Delivered)
				<-ran
			}
			require.NoError(t, c.Close())
			require.NoError(t, s.Stop())
		}
	})
}

// Claim: peerlane.ErrStopped
func TestAStoppedClientOrServerSaysSoWhateverItIsAsked(t *testing.T) {
	h := testHost(t)
	c := newClient(t, h, &ClientConfig{MaxBlockSize: 10})
	require.NoError(t, c.Close())
	_, err := c.Send(t.Context(), h.ID(), callTag, noise(11))
	require.ErrorIs(t, err, ErrStopped)
	requireTyped(t, err, session.NotSent)
	_, err = c.Send(t.Context(), "", "", nil)
	require.ErrorIs(t, err, ErrStopped)
	_, err = c.Connect(t.Context(), h.ID(), callTag)
	require.ErrorIs(t, err, ErrStopped, "and not that a key is missing")
	_, err = c.Keep(h.ID(), callTag, nil)
	require.ErrorIs(t, err, ErrStopped, "and not that a key is missing")
	s := newServer(t, h, nil)
	require.NoError(t, s.Stop())
	require.ErrorIs(t, s.Start(callTag, echoHandler), ErrStopped)
	require.ErrorIs(t, s.Listen(callTag), ErrStopped, "and not that a key is missing")
}

// A key that is retired opens nothing more, no further carrier either: the session that needs one ends.
func TestASessionUnderARetiredKeyKeepsItsCarrierAndGetsNoOther(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := sealedServer(t, b, secretA, cheapPSK)
		require.NoError(t, s.Start(callTag, echoHandler))
		own, err := sealedClient(t, a, secretA).Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		require.NoError(t, s.RotateModernPSK(secretB, cheapPSK))
		require.NoError(t, s.RetireModernPSK())
		_, err = own.Call(t.Context(), "", nil)
		require.NoError(t, err, "it keeps its carrier")
		require.NoError(t, b.Network().ClosePeer(a.ID()))
		await(t, own.Done(), "the end")
		require.ErrorIs(t, own.Err(), ErrPSKMismatch)
		require.ErrorIs(t, own.Err(), session.ErrSessionLost)
	})
}

// Claim: peerlane.ServerConfig.IdleTimeout
// Claim: peerlane.ServerConfig.MaxIdleTime
func TestIdleTimesActOnTimeWithoutACleanupInterval(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		for name, cfg := range map[string]*ServerConfig{
			"IdleTimeout": {IdleTimeout: 200 * time.Millisecond}, "MaxIdleTime": {MaxIdleTime: 200 * time.Millisecond},
		} {
			s := newServer(t, b, cfg)
			require.NoError(t, s.Start(callTag, echoHandler))
			began := time.Now()
			_, err := newClient(t, a, nil).Send(t.Context(), b.ID(), callTag, nil)
			require.NoError(t, err)
			waitInfo(t, s, 0)
			require.GreaterOrEqual(t, time.Since(began), 200*time.Millisecond, name)
			require.NoError(t, s.Stop())
		}
	})
}

// Claim: peerlane.ServerConfig.BufferPoolSize
func TestAMessageCountsItsBytesAnd64InBufferPoolSize(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	for size, taken := range map[int]int{100: 7, 1001: 1} {
		s := newServer(t, b, &ServerConfig{BufferPoolSize: 1000, AdmitAll: true})
		release := make(chan struct{})
		s.SetLink("slow", func(*session.Message) { <-release })
		require.NoError(t, s.Listen(callTag))
		own, err := newClient(t, a, &ClientConfig{AdmitAll: true}).Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		for range taken {
			require.NoError(t, own.Send(t.Context(), "slow", noise(size)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		require.ErrorIs(t, own.Send(ctx, "slow", noise(size)), context.DeadlineExceeded)
		cancel()
		close(release)
		require.NoError(t, own.Flush(t.Context()))
		require.NoError(t, s.Stop())
	}
}

func TestNamesOfLinksAndStreamsHaveAtMost255Bytes(t *testing.T) {
	h := testHost(t)
	c, s := newClient(t, h, nil), newServer(t, h, nil)
	most := strings.Repeat("n", 255)
	for _, set := range []func(string){
		func(name string) { c.SetLink(name, nil) }, func(name string) { c.SetStream(name, nil) },
		func(name string) { s.SetLink(name, nil) }, func(name string) { s.SetStream(name, nil) },
	} {
		require.NotPanics(t, func() { set(most) })
		require.Panics(t, func() { set(most + "n") })
	}
}

func TestArgumentsThatAreNilAreErrors(t *testing.T) {
	h := testHost(t)
	c, s := newClient(t, h, nil), newServer(t, h, nil)
	for name, call := range map[string]func() error{
		"host: nil":        func() error { _, err := NewClient(nil, nil); return err },
		"host: nil ":       func() error { _, err := NewServer(nil, nil); return err },
		"host: nil  ":      func() error { _, err := Listen(nil, callTag); return err },
		"Dialer.Host: nil": func() error { _, err := Dial(t.Context(), nil, h.ID(), callTag); return err },
		"handler: nil":     func() error { return s.Start(callTag, nil) },
		"handler: nil ":    func() error { return s.Handle(callTag, nil) },
		"client: nil":      func() error { return UseModernPSKClient(nil, secretA, cheapPSK) },
		"server: nil":      func() error { return UseModernPSKServer(nil, secretA, cheapPSK) },
	} {
		err := call()
		require.ErrorIs(t, err, ErrInvalid, name)
		require.ErrorContains(t, err, strings.TrimSpace(name))
	}
	require.ErrorContains(t, c.RegisterCodec(nil), "codec is nil")
	require.ErrorContains(t, s.RegisterCodec(nil), "codec is nil")
	require.Zero(t, PathOf(nil))
	require.Panics(t, func() { NewLimitedConn(nil, 10) })
}

// A keeper that has given up says so for good; one that was closed says that.
func TestTheFirstEndOfAKeeperIsItsErr(t *testing.T) {
	at, _, stop := countDials(t)
	defer stop()
	_, pid := newIdentity(t)
	h := testHost(t)
	peerlanetest.Teach(h, pid, at)
	c := newClient(t, h, &ClientConfig{AdmitAll: true})
	k, _ := keep(t, c, pid, KeeperConfig{MaxAttempts: 1})
	await(t, k.Done(), "giving up")
	require.NoError(t, k.Close())
	require.ErrorIs(t, k.Err(), ErrUnreachable)
	require.NotErrorIs(t, k.Err(), ErrStopped)
	k, _ = keep(t, c, pid, KeeperConfig{Backoff: resume.Backoff{Min: never, Max: never}})
	require.NoError(t, k.Close())
	require.ErrorIs(t, k.Err(), ErrStopped)
	require.NotErrorIs(t, k.Err(), ErrUnreachable)
}

// A configuration that is as large as its type is an error or works: nothing overflows on the way.
func TestTheLargestWaitsOfAClientAreNoPanic(t *testing.T) {
	const most = time.Duration(1<<63 - 1)
	at, _, stop := countDials(t)
	defer stop()
	_, pid := newIdentity(t)
	h := testHost(t)
	peerlanetest.Teach(h, pid, at)
	c := newClient(t, h, &ClientConfig{RetryInterval: most, MaxRetries: 1 << 20, Heartbeat: most, ReadTimeout: 50 * time.Millisecond,
		WriteTimeout: most, ConnectTimeout: most, IdleConnTimeout: most, DirectWait: most, ResumeWindow: most})
	_, err := c.Send(t.Context(), pid, callTag, nil)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	for n := range 100 {
		require.Positive(t, retryWait(most, n))
	}
	s := newServer(t, h, &ServerConfig{Heartbeat: most, WriteTimeout: most, ConnectTimeout: most, ReadTimeout: most, IdleTimeout: most,
		MaxIdleTime: most, CleanupInterval: most, ResumeWindow: most})
	require.NoError(t, s.Start(callTag, echoHandler))
	_, err = newClient(t, h, nil).Send(t.Context(), h.ID(), callTag, nil)
	require.NoError(t, err)
	_, err = ListenConfig{Backlog: math.MaxInt}.Listen(h, callTag)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "ListenConfig.Backlog")
	l, err := ListenConfig{Backlog: 1 << 20}.Listen(h, "/other")
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// Claim: peerlane.ClientConfig.AdmitAll, peerlane.ServerConfig.AdmitAll
func TestWithoutAKeyAdmitAllIsWhatAdmits(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	closed, open := newServer(t, b, nil), newServer(t, b, &ServerConfig{AdmitAll: true})
	require.ErrorIs(t, closed.Listen(callTag), ErrModernPSKRequired)
	require.NoError(t, open.Listen(callTag))
	_, err := newClient(t, a, nil).Connect(t.Context(), b.ID(), callTag)
	require.ErrorIs(t, err, ErrModernPSKRequired)
	own, err := newClient(t, a, &ClientConfig{AdmitAll: true}).Connect(t.Context(), b.ID(), callTag)
	require.NoError(t, err)
	_, err = own.Ping(t.Context())
	require.NoError(t, err)
}

// Claim: peerlane.Addr.Port, peerlane.Addr.WithPort, peerlane.Network
func TestAnAddrIsThePeerIDWithAPortIfThatIsWanted(t *testing.T) {
	_, pid := newIdentity(t)
	require.Equal(t, pid.String(), Addr{Peer: pid, Port: 7}.String())
	require.Equal(t, pid.String()+":7", Addr{Peer: pid, Port: 7, WithPort: true}.String())
	require.Equal(t, pid.String()+":0", Addr{Peer: pid, WithPort: true}.String())
	require.Equal(t, "libp2p", Addr{}.Network())
	require.Equal(t, Network, Addr{}.Network())
	require.Contains(t, map[Addr]bool{{Peer: pid}: true}, Addr{Peer: pid}, "comparable")
	var op *net.OpError
	_, err := Dial(t.Context(), testHost(t), pid, callTag)
	require.ErrorAs(t, err, &op)
	require.Equal(t, Network, op.Net)
	require.Equal(t, Addr{Peer: pid}, op.Addr)
}

// Claim: peerlane.Dialer.Timeout, peerlane.Dialer.DirectWait
func TestTheDefaultsOfADialerAreItsConstants(t *testing.T) {
	d := Dialer{}.withDefaults()
	require.Equal(t, 30*time.Second, d.Timeout)
	require.Equal(t, defaultDialTimeout, d.Timeout)
	require.Equal(t, 5*time.Second, d.DirectWait)
	require.Equal(t, defaultDirectWait, d.DirectWait)
	require.Equal(t, time.Duration(-1), Dialer{Timeout: -1}.withDefaults().Timeout)
}

// Claim: peerlane.ErrPSKReplayed
func TestTheSentinelsOfSessionsAreTheSessions(t *testing.T) {
	for ours, theirs := range map[error]error{
		ErrPSKReplayed: session.ErrPSKReplayed, ErrPSKRequired: session.ErrPSKRequired, ErrPSKMismatch: session.ErrPSKMismatch,
		ErrPSKTampered: session.ErrPSKTampered, ErrNotFound: session.ErrNotFound, ErrUnavailable: session.ErrUnavailable,
		ErrTooLarge: session.ErrTooLarge, ErrNotAllowed: session.ErrNotAllowed, ErrGoingAway: session.ErrGoingAway,
	} {
		require.True(t, ours == theirs, "%v", ours)
	}
	require.ErrorIs(t, &Error{Code: codes.PSKReplayed}, ErrPSKReplayed)
}

// Claim: peerlane.Request.Value
func TestARequestHasItsBodyAndItsTagASessionProtocol(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, nil)
	kept := make(chan []byte, 2)
	require.NoError(t, s.Handle(callTag, func(_ context.Context, r *Request) ([]byte, error) {
		r.Value[0]++ // it belongs to the handler
		kept <- r.Value
		return append([]byte("got "), r.Value...), nil
	}))
	require.Contains(t, b.Mux().Protocols(), callTag+"/peerlane/1")
	require.Contains(t, b.Mux().Protocols(), callTag+sessionSuffix)
	request := []byte("abc")
	for range 2 {
		got, err := newClient(t, a, nil).Send(t.Context(), b.ID(), callTag, request)
		require.NoError(t, err)
		require.Equal(t, "got bbc", string(got))
	}
	require.Equal(t, "abc", string(request))
	require.Equal(t, "bbc", string(<-kept))
}

// Claim: peerlane.ClientConfig.CloseTimeout, peerlane.ServerConfig.CloseTimeout
func TestCloseTimeoutBoundsACloseWithoutProgress(t *testing.T) {
	t.Parallel()                         // it waits for real
	const bound = 200 * time.Millisecond // and not the 5 s of the default
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{AdmitAll: true, CloseTimeout: bound})
	c := newClient(t, a, &ClientConfig{AdmitAll: true, CloseTimeout: bound})
	release := make(chan struct{})
	defer close(release)
	s.SetLink("stuck", func(*session.Message) { <-release })
	c.SetLink("stuck", func(*session.Message) { <-release })
	require.NoError(t, s.Listen(callTag))
	for _, side := range []string{"client", "server"} {
		own, err := c.Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		closing := own
		if side == "server" {
			require.Eventually(t, func() bool {
				for _, other := range s.Sessions() {
					if other.ID() == own.ID() {
						closing = other
					}
				}
				return closing != own
			}, patience, time.Millisecond)
		}
		require.NoError(t, closing.Send(t.Context(), "stuck", []byte("x")))
		began := time.Now()
		err = closing.Close()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, side)
		require.GreaterOrEqual(t, time.Since(began), bound, side)
		require.Less(t, time.Since(began), 4*time.Second, side)
	}
}
