package peerlane

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

func TestANilConfigIsValid(t *testing.T) {
	require.NoError(t, (*ClientConfig)(nil).Validate())
	require.NoError(t, (*ServerConfig)(nil).Validate())
}

// Row: P8, P17
func TestDefaultsArePointsubs(t *testing.T) {
	require.Equal(t, &ServerConfig{
		ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, MaxBlockSize: 32 << 20, MaxConcurrentConns: 1000,
		ConnectTimeout: 5 * time.Second, MaxRequestsPerConn: 10000, IdleTimeout: 60 * time.Second, BufferPoolSize: 1 << 20,
		EnableCompression: true, CleanupInterval: 5 * time.Minute, MaxIdleTime: 30 * time.Minute, MaxMemoryUsage: 1 << 30,
		Heartbeat: 5 * time.Second, ResumeWindow: time.Minute, ReplayWindow: 1 << 20, CloseTimeout: 5 * time.Second,
	}, DefaultServerConfig())
	require.Equal(t, &ClientConfig{
		ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, ConnectTimeout: 5 * time.Second, MaxRetries: 3,
		RetryInterval: time.Second, MaxBlockSize: 32 << 20, EnableCompression: true, MaxIdleConns: 100,
		IdleConnTimeout: 5 * time.Minute, DirectWait: 5 * time.Second, Heartbeat: 5 * time.Second,
		ResumeWindow: time.Minute, ReplayWindow: 1 << 20, CloseTimeout: 5 * time.Second,
	}, DefaultClientConfig())
	require.Equal(t, *DefaultServerConfig(), ServerConfig{EnableCompression: true}.withDefaults())
	require.Equal(t, *DefaultClientConfig(), ClientConfig{EnableCompression: true, MaxRetries: 3}.withDefaults())
	require.Equal(t, time.Second, ClientConfig{ConnectTimeout: time.Second}.withDefaults().DirectWait)
}

// badValues returns the values of a field that must be refused.
func badValues(f reflect.StructField) []any {
	switch v := reflect.Zero(f.Type).Interface().(type) {
	case time.Duration:
		if f.Name == "ResumeWindow" { // a negative one says that there is none
			return nil
		}
		return []any{time.Duration(-1), -time.Hour}
	case int:
		bad := []any{-1}
		switch f.Name {
		case "MaxBlockSize", "BufferPoolSize":
			bad = append(bad, 1<<30+1)
		case "ReplayWindow":
			bad = append(bad, 1, 4<<10-1, 64<<20+1)
		case "MaxConcurrentConns", "MaxRetries", "MaxIdleConns":
			bad = append(bad, 1<<20+1)
		}
		return bad
	case PathPolicy:
		return []any{v + 77}
	case *Hooks:
		return []any{&Hooks{Workers: -1}, &Hooks{Workers: 1<<16 + 1}, &Hooks{CronPeriod: -1}}
	case []peer.ID:
		return []any{[]peer.ID{""}}
	}
	return nil
}

// Row: P7, P9, D17: invariant 10.
func TestEachFieldThatIsOutOfRangeIsNamed(t *testing.T) {
	h := testHost(t)
	checks := map[string]func(any) error{
		"ServerConfig": func(v any) error { c := v.(ServerConfig); _, err := NewServer(h, &c); return err },
		"ClientConfig": func(v any) error { c := v.(ClientConfig); _, err := NewClient(h, &c); return err },
	}
	unchecked := []string{"EnableCompression", "MaxMemoryUsage", "AdmitAll", "Logger", "OnUndelivered", "OnState", "OnPath", "ResumeWindow"}
	for _, zero := range []any{ServerConfig{}, ClientConfig{}} {
		typ := reflect.TypeOf(zero)
		require.NoError(t, checks[typ.Name()](zero), "the zero value of %s", typ)
		for i := range typ.NumField() {
			f := typ.Field(i)
			bad := badValues(f)
			require.NotEqual(t, len(bad) > 0, contains(unchecked, f.Name), "%s.%s", typ.Name(), f.Name)
			for _, v := range bad {
				config := reflect.New(typ).Elem()
				config.Field(i).Set(reflect.ValueOf(v))
				err := checks[typ.Name()](config.Interface())
				require.ErrorIs(t, err, ErrInvalid, "%s.%s: %v", typ.Name(), f.Name, v)
				require.ErrorContains(t, err, typ.Name()+"."+f.Name, "%v", v)
			}
		}
	}
	_, err := NewServer(nil, nil)
	require.ErrorContains(t, err, "host")
	_, err = NewClient(nil, nil)
	require.ErrorContains(t, err, "host")
}

func contains(all []string, s string) bool {
	return slices.Contains(all, s)
}

// Row: D17: nothing of what killed pointsub does.
func TestTinyDurationsAreNoPanic(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{CleanupInterval: 1, IdleTimeout: 1, MaxIdleTime: 1})
	require.NoError(t, s.Start(callTag, echoHandler))
	c := newClient(t, a, &ClientConfig{IdleConnTimeout: 1})
	for range 20 {
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err)
	}
}

// A config is the caller's again once NewServer and NewClient have returned.
func TestConfigsAreCopied(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	server, client := DefaultServerConfig(), DefaultClientConfig()
	server.AllowPeers = []peer.ID{a.ID()}
	s, c := newServer(t, b, server), newClient(t, a, client)
	server.AllowPeers[0], server.MaxBlockSize, client.MaxBlockSize = b.ID(), 1, 1
	require.NoError(t, s.Start(callTag, echoHandler))
	_, err := c.Send(t.Context(), b.ID(), callTag, noise(1000))
	require.NoError(t, err)
}

// Row: P8 (ReadTimeout), D25
// Claim: peerlane.ServerConfig.ReadTimeout
func TestServersReadTimeoutRefusesARequestThatStalls(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, &ServerConfig{ReadTimeout: 50 * time.Millisecond})
		require.NoError(t, s.Start(callTag, echoHandler))
		raw := dialRaw(t, a, b)
		raw.write(t, requestHead(1, 1000, []byte("only the beginning")))
		h, p := raw.next(t, frame.TypeError)
		require.EqualValues(t, 1, h.ID)
		f, err := frame.ConsumeFailure(p)
		require.NoError(t, err)
		require.Equal(t, codes.Timeout, f.Code)
		require.Zero(t, s.quota.Snapshot().Bytes)
		require.Zero(t, s.quota.Snapshot().Calls)
	})
}

// Row: D25: a handler's error arrives though the handler took longer than the server's ReadTimeout.
func TestAHandlersErrorArrivesAfterTheServersReadTimeout(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{ReadTimeout: 20 * time.Millisecond})
	stuck := newStuckHandler(t)
	require.NoError(t, s.Handle(callTag, func(ctx context.Context, req *Request) ([]byte, error) {
		_, _ = stuck.handle(ctx, req)
		return nil, os.ErrPermission
	}))
	done := sendAsync(t.Context(), newClient(t, a, patientClient()), b, nil)
	await(t, stuck.entered, "the call")
	time.AfterFunc(100*time.Millisecond, func() { close(stuck.release) })
	err := await(t, done, "the call")
	require.Equal(t, os.ErrPermission.Error(), requireTyped(t, err, session.Delivered).Text)
	require.EqualValues(t, 1, stuck.runs.Load())
}

// Row: P8, P17 (WriteTimeout): a side that takes nothing is dropped by the other.
// Claim: peerlane.ClientConfig.WriteTimeout, peerlane.ServerConfig.WriteTimeout
func TestWriteTimeoutDropsAPeerThatReadsNothing(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, &ServerConfig{WriteTimeout: 100 * time.Millisecond, Heartbeat: never})
		ran := make(chan struct{}, 1)
		require.NoError(t, s.Start(callTag, func([]byte) ([]byte, error) {
			ran <- struct{}{}
			return noise(24 << 20), nil
		}))
		raw := dialRaw(t, a, b)
		raw.write(t, requestHead(1, 0, nil))
		await(t, ran, "the handler")
		waitInfo(t, s, 0)
		require.Eventually(t, func() bool { return s.quota.Snapshot().Bytes == 0 }, patience, time.Millisecond)

		streams := muteSessionsOn(t, b, "/mute")
		c := newClient(t, a, &ClientConfig{WriteTimeout: 100 * time.Millisecond, Heartbeat: never})
		done := make(chan error, 1)
		go func() {
			_, err := c.Send(t.Context(), b.ID(), "/mute", noise(24<<20))
			done <- err
		}()
		ackHello(t, await(t, streams, "the carrier"))
		err := await(t, done, "the call")
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.ErrorIs(t, err, session.ErrSessionLost)
		requireTyped(t, err, session.NotSent)
	})
}

// Row: P8, P17 (Heartbeat): a peer that is silent for twice as long is lost, and so are the calls to it.
// Claim: peerlane.ClientConfig.Heartbeat, peerlane.ServerConfig.Heartbeat
func TestHeartbeatFindsASilentPeer(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		const beat = 50 * time.Millisecond
		s := newServer(t, b, &ServerConfig{Heartbeat: beat})
		require.NoError(t, s.Start(callTag, echoHandler))
		dialRaw(t, a, b)
		waitInfo(t, s, 1)
		waitInfo(t, s, 0)

		streams := muteSessionsOn(t, b, "/mute")
		c := newClient(t, a, &ClientConfig{Heartbeat: beat})
		began := time.Now()
		done := make(chan error, 1)
		go func() {
			_, err := c.Send(t.Context(), b.ID(), "/mute", nil)
			done <- err
		}()
		ackHello(t, await(t, streams, "the carrier"))
		err := await(t, done, "the call")
		require.ErrorIs(t, err, session.ErrSessionLost)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		requireTyped(t, err, session.Unknown)
		require.GreaterOrEqual(t, time.Since(began), 2*beat-10*time.Millisecond)
	})
}

// Row: P8 (ConnectTimeout), D13: a carrier that never says hello is dropped.
// Claim: peerlane.ServerConfig.ConnectTimeout
func TestServersConnectTimeoutBoundsTheHello(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, &ServerConfig{ConnectTimeout: 50 * time.Millisecond})
		require.NoError(t, s.Start(callTag, echoHandler))
		for _, sent := range [][]byte{nil, {0}, {0, 50, 1}} {
			began := time.Now()
			c, err := (&Dialer{Host: a, Tag: sessionTag(callTag)}).Dial(testContext(t), b.ID())
			if err == nil { // on a busy machine the time may be over by now
				defer func() { require.NoError(t, c.Reset()) }()
				require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
				_, err = c.Write(sent)
			}
			if err == nil { // and by now
				_, err = c.Read(make([]byte, 1))
			}
			var refused *Error
			require.ErrorAs(t, err, &refused, "after %d bytes", len(sent))
			require.True(t, refused.Remote)
			require.Less(t, time.Since(began), DefaultServerConfig().ConnectTimeout/2)
		}
		requireNoStreams(t, sessionTag(callTag), b)
	})
}

// sendOverTap sends body and returns how many bytes that took on the wire, both ways, between the hosts.
func sendOverTap(t *testing.T, server, client bool, body []byte) int {
	t.Helper()
	a, b := testnet.Host(t, testnet.TCPTLS), testnet.Host(t, testnet.TCPTLS)
	tap := newTap(t, b.Addrs()[0])
	peerlanetest.Teach(a, b.ID(), tap.at)
	require.NoError(t, newServer(t, b, &ServerConfig{EnableCompression: server}).Start(callTag, echoHandler))
	c := newClient(t, a, &ClientConfig{EnableCompression: client})
	_, err := c.Send(t.Context(), b.ID(), callTag, nil)
	require.NoError(t, err)
	before := tap.size()
	got, err := c.Send(t.Context(), b.ID(), callTag, body)
	require.NoError(t, err)
	require.True(t, bytes.Equal(body, got))
	return tap.size() - before
}

// Row: P8, P17, P21 (EnableCompression), D13
// Claim: peerlane.ClientConfig.EnableCompression, peerlane.ServerConfig.EnableCompression
func TestCompressionShowsOnTheWireAndOnlyWhenBothSidesWantIt(t *testing.T) {
	const size = 4 << 20
	for _, on := range []struct{ server, client bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		n := sendOverTap(t, on.server, on.client, make([]byte, size))
		t.Logf("4 MiB of zeros each way, server %v, client %v: %d bytes, ratio %.0f", on.server, on.client, n, 2*size/float64(n))
		if on.server && on.client {
			require.Less(t, n, size/100)
		} else {
			require.Greater(t, n, 2*size)
		}
	}
	random := sendOverTap(t, true, true, noise(size))
	require.Less(t, random, 2*size+size/10, "what does not shrink is sent as it is")
}

// Row: P8 (MaxMemoryUsage), D11, D13
// Claim: peerlane.ServerConfig.MaxMemoryUsage
func TestMaxMemoryUsageRefusesWhatIsOverItAndFreesTheRest(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		s := newServer(t, b, &ServerConfig{MaxMemoryUsage: 1 << 20})
		require.NoError(t, s.Handle(callTag, stuck.handle))
		c := newClient(t, a, &ClientConfig{})
		first := sendAsync(t.Context(), c, b, noise(600<<10))
		await(t, stuck.entered, "the first call")
		_, err := c.Send(t.Context(), b.ID(), callTag, noise(600<<10))
		require.ErrorIs(t, err, ErrUnavailable)
		require.Positive(t, requireTyped(t, err, session.Rejected).RetryAfter)
		small := sendAsync(t.Context(), c, b, noise(100<<10))
		await(t, stuck.entered, "a call that there is room for")
		close(stuck.release)
		require.NoError(t, await(t, first, "the first call"))
		require.NoError(t, await(t, small, "the small call"))
		require.Eventually(t, func() bool { return s.quota.Snapshot().Bytes == 0 }, patience, time.Millisecond)
		_, err = c.Send(t.Context(), b.ID(), callTag, noise(600<<10))
		require.NoError(t, err)
		_, err = openAndSendOld(a, b, noise(1<<20+1))
		require.Error(t, err)
	})
}

// Row: P8 (BufferPoolSize): the sender of one-way messages waits beyond it.
func TestBufferPoolSizeHoldsUpTheSenderOfMessages(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b host.Host) {
		for _, v := range []struct{ size, from, to int }{{1 << 10, 1, 8}, {0, 100, 2000}} {
			s := newServer(t, b, &ServerConfig{BufferPoolSize: v.size, AdmitAll: true})
			release := make(chan struct{})
			s.SetLink("slow", func(*session.Message) { <-release })
			require.NoError(t, s.Listen(callTag))
			own, err := newClient(t, a, &ClientConfig{AdmitAll: true}).Connect(t.Context(), b.ID(), callTag)
			require.NoError(t, err)
			taken := 0
			for err == nil {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if err = own.Send(ctx, "slow", noise(1000)); err == nil {
					taken++
				}
				cancel()
			}
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.GreaterOrEqual(t, taken, v.from, "size %d", v.size)
			require.LessOrEqual(t, taken, v.to, "size %d", v.size)
			close(release)
			require.NoError(t, own.Flush(t.Context()))
			require.NoError(t, s.Stop())
		}
	})
}

// Row: P8 (AllowPeers, AdmitAll), N1
// Claim: peerlane.ErrNotAllowed, peerlane.ServerConfig.AllowPeers
func TestAllowPeersAdmitsThoseOnTheList(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, tr testnet.Transport) {
		s := newServer(t, b, &ServerConfig{AllowPeers: []peer.ID{a.ID()}})
		require.NoError(t, s.Start(callTag, echoHandler))
		require.NoError(t, s.Listen("/links"), "the list says who is admitted")
		_, err := newClient(t, a, patientClient()).Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err)
		stranger := testnet.Host(t, tr)
		peerlanetest.Teach(stranger, b.ID(), b.Addrs()...)
		_, err = newClient(t, stranger, patientClient()).Send(t.Context(), b.ID(), callTag, nil)
		require.ErrorIs(t, err, ErrNotAllowed)
		require.True(t, requireTyped(t, err, session.NotSent).Remote)
		_, err = newClient(t, stranger, &ClientConfig{AdmitAll: true}).Connect(t.Context(), b.ID(), "/links")
		require.ErrorIs(t, err, ErrNotAllowed)
	})
}

// Row: P17 (Path), N4
// Claim: peerlane.ClientConfig.Path
func TestPathChoosesOverWhatSessionsRun(t *testing.T) {
	a, b := testnet.Pair(t, testnet.LimitedRelay)
	require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
	for policy, ok := range map[PathPolicy]bool{PathAuto: false, DirectOnly: false, PreferDirect: true, AllowRelay: true} {
		cfg := patientClient()
		cfg.Path, cfg.DirectWait = policy, 10*time.Millisecond
		c := newClient(t, a, cfg)
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		if !ok {
			require.ErrorIs(t, err, ErrRelayOnly, "%s", policy)
			continue
		}
		require.NoError(t, err, "%s", policy)
		require.True(t, c.GetConnectionsInfo()[0].Path.Limited, "%s", policy)
	}
}

// Row: P17 (DirectWait): while a direct address is being dialed the relay is not taken, and no longer.
// Claim: peerlane.ClientConfig.DirectWait
func TestDirectWaitBoundsTheWaitForADirectConnection(t *testing.T) {
	t.Parallel() // it waits for real
	const wait = 200 * time.Millisecond
	a, b := testnet.Pair(t, testnet.LimitedRelay)
	require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
	l := listenSilently(t)
	cfg := patientClient()
	cfg.Path, cfg.DirectWait = PreferDirect, wait
	c := newClient(t, a, cfg)
	require.NoError(t, a.Connect(testContext(t), a.Peerstore().PeerInfo(b.ID())))
	a.Peerstore().AddAddr(b.ID(), l, peerstore.PermanentAddrTTL)
	began := time.Now()
	_, err := c.Send(t.Context(), b.ID(), callTag, nil)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), wait)
	require.Less(t, time.Since(began), cfg.ConnectTimeout)
}

// listenSilently returns an address where connections are taken and nothing is said.
func listenSilently(t *testing.T) ma.Multiaddr {
	t.Helper()
	l := listenTCP(t)
	at, err := manet.FromNetAddr(l.Addr())
	require.NoError(t, err)
	return at
}

// logBuffer is a log that tests read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Row: P8, P17 (Logger)
// Claim: peerlane.ClientConfig.Logger, peerlane.ServerConfig.Logger
func TestTheLoggerGetsWhatAPersonShouldActOn(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	var server, client logBuffer
	s := newServer(t, b, &ServerConfig{Logger: slog.New(slog.NewTextHandler(&server, nil))})
	require.NoError(t, s.Start(callTag, func([]byte) ([]byte, error) { panic("boom") }))
	c := newClient(t, a, &ClientConfig{AdmitAll: true, Logger: slog.New(slog.NewTextHandler(&client, nil))})
	_, err := c.Send(t.Context(), b.ID(), callTag, nil)
	require.ErrorIs(t, err, session.ErrInternal)
	require.Contains(t, server.String(), "handler panicked")
	require.Contains(t, server.String(), a.ID().String())
	_, _ = openAndSendOld(a, b, []byte("x"))
	_, err = openCarrier(t, a, b).Write([]byte("\x00\x04junk"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return bytes.Contains([]byte(server.String()), []byte("carrier refused")) },
		patience, time.Millisecond)

	c.SetLink("back", func(*session.Message) { panic("client boom") })
	require.NoError(t, newServerThatCallsBack(t, b, "/back").Listen("/back"))
	own, err := c.Connect(t.Context(), b.ID(), "/back")
	require.NoError(t, err)
	reply, err := own.SendWait(t.Context(), "go", nil)
	require.NoError(t, err)
	require.Contains(t, string(reply.Value), "client boom")
	require.Contains(t, client.String(), "client boom")
}

// Row: P17 (OnUndelivered), N6
// Claim: peerlane.ClientConfig.OnUndelivered
func TestOnUndeliveredGetsTheFailureOfEachMessage(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		failures := make(chan *Error, 8)
		s := newServer(t, b, &ServerConfig{AdmitAll: true})
		entered, release := make(chan struct{}), make(chan struct{})
		defer close(release)
		s.SetLink("stuck", func(*session.Message) { entered <- struct{}{}; <-release })
		require.NoError(t, s.Listen(callTag))
		c := newClient(t, a, &ClientConfig{AdmitAll: true, ResumeWindow: -1, OnUndelivered: func(e *Error) { failures <- e }})
		own, err := c.Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		require.NoError(t, own.Send(t.Context(), "nobody", nil))
		e := await(t, failures, "the failure of a message that nobody handles")
		require.Equal(t, codes.NotFound, e.Code)
		require.Equal(t, "nobody", e.Link)
		require.Equal(t, session.Rejected, e.Outcome)
		require.NoError(t, own.Send(t.Context(), "stuck", nil))
		await(t, entered, "the handler")
		require.NoError(t, b.Network().ClosePeer(a.ID()))
		e = await(t, failures, "the failure of a message that was under way")
		require.ErrorIs(t, e, session.ErrSessionLost)
		require.Equal(t, session.Unknown, e.Outcome)
	})
}

func TestTheLargestLimitsAreServed(t *testing.T) {
	b := testnet.Host(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{MaxConcurrentConns: 1 << 20, MaxBlockSize: maxBlockSize, BufferPoolSize: maxBlockSize})
	require.NoError(t, s.Start(callTag, echoHandler))
}
