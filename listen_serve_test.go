package peerlane

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/pipe"
	"github.com/peerlane/peerlane/internal/test/testnet"
)

// mustServe serves testTag until the test ends.
func mustServe(t *testing.T, h host.Host, config ListenConfig, handler func(*Conn)) *Listener {
	t.Helper()
	l, err := config.Serve(h, testTag, handler)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Shutdown(testContext(t))) })
	return l
}

func mustDial(t *testing.T, a, b host.Host) *Conn {
	t.Helper()
	c, err := (&Dialer{Host: a, Tag: testTag, Path: AllowRelay}).Dial(testContext(t), b.ID())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestServeClosesTheConnWhenItsHandlerReturns(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		mustServe(t, b, ListenConfig{}, func(c *Conn) {
			question, _ := io.ReadAll(c)
			_, _ = c.Write(append(question, " to you"...))
		})
		c := mustDial(t, a, b)
		_, err := c.Write([]byte("hello"))
		require.NoError(t, err)
		require.NoError(t, c.CloseWrite())
		require.Equal(t, "hello to you", string(readAll(t, c)))
		require.NoError(t, c.Close())
		requireNoStreams(t, testTag, a, b)
	})
}

// Neither a panic nor runtime.Goexit returns: the answer is cut, and the place for a handler comes back.
// Claim: peerlane.ListenConfig.Logger
func TestServeResetsTheConnWhenItsHandlerDoesNotReturn(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		var log bytes.Buffer
		config := ListenConfig{MaxConns: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		ends := []func(){func() { panic("out of paper") }, runtime.Goexit}
		n := 0 // handlers do not run at once
		l := mustServe(t, b, config, func(c *Conn) {
			_, _ = c.Write([]byte("half an ans"))
			_, _ = io.ReadFull(c, make([]byte, 1))
			n++
			ends[n-1]()
		})
		for range ends {
			c := mustDial(t, a, b)
			_, err := io.ReadFull(c, make([]byte, 11))
			require.NoError(t, err)
			_, err = c.Write([]byte("x"))
			require.NoError(t, err)
			_, err = c.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET)
			var typed *Error
			require.ErrorAs(t, err, &typed)
			require.Equal(t, codes.Internal, typed.Code)
			require.NoError(t, c.Close())
		}
		require.NoError(t, l.Shutdown(testContext(t)))
		require.Contains(t, log.String(), "out of paper")
		requireNoStreams(t, testTag, a, b)
	})
}

// Claim: peerlane.ListenConfig.MaxConns
func TestServeRunsAtMostMaxConnsHandlers(t *testing.T) {
	onEach(t, []testnet.Transport{testnet.TCPTLS, loopback}, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		const most = 3
		var running, seen atomic.Int32
		proceed := make(chan struct{})
		l := mustServe(t, b, ListenConfig{MaxConns: most}, func(*Conn) {
			if n := running.Add(1); n > seen.Load() {
				seen.Store(n)
			}
			<-proceed
			running.Add(-1)
		})
		var all []*Conn
		for range 4 * most {
			all = append(all, mustDial(t, a, b))
		}
		require.Eventually(t, func() bool {
			return running.Load() == most && l.Stats().Pending == 3*most
		}, patience, time.Millisecond)
		close(proceed)
		for _, c := range all {
			require.Empty(t, readAll(t, c))
		}
		require.LessOrEqual(t, seen.Load(), int32(most))
	})
}

func TestCloseOfAServeEndsItsConns(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		ended := make(chan error, 2)
		l := mustServe(t, b, ListenConfig{MaxConns: 1}, func(c *Conn) {
			_, _ = c.Write([]byte("x"))
			_, err := c.Read(make([]byte, 1))
			ended <- err
		})
		served := mustDial(t, a, b)
		_, err := io.ReadFull(served, make([]byte, 1))
		require.NoError(t, err)
		waits := mustDial(t, a, b)
		require.Eventually(t, func() bool { return l.Stats().Pending == 1 }, patience, time.Millisecond)
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		require.Error(t, within(t, patience, "handler", func() error { return <-ended }))
		for _, c := range []*Conn{served, waits} {
			_, err := c.Read(make([]byte, 1))
			require.ErrorIs(t, err, ErrGoingAway)
		}
		_, err = Dial(testContext(t), a, b.ID(), testTag)
		require.ErrorIs(t, err, ErrNotServed)
		require.Empty(t, ended, "what waited has had no handler")
	})
}

func TestShutdownOfAServeWaitsForItsHandlers(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustServe(t, b, ListenConfig{}, func(c *Conn) {
			_, _ = c.Write([]byte("x"))
			question, _ := io.ReadAll(c)
			_, _ = c.Write(question)
		})
		c := mustDial(t, a, b)
		_, err := io.ReadFull(c, make([]byte, 1))
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- l.Shutdown(testContext(t)) }()
		require.Eventually(t, func() bool {
			early, err := Dial(testContext(t), a, b.ID(), testTag)
			if err == nil {
				_ = early.Close() // Shutdown had not begun: this handler ends too
			}
			return err != nil
		}, patience, time.Millisecond)
		_, err = c.Write([]byte("last words"))
		require.NoError(t, err)
		require.NoError(t, c.CloseWrite())
		require.Equal(t, "last words", string(readAll(t, c)))
		require.NoError(t, within(t, patience, "Shutdown", func() error { return <-done }))
	})
}

func TestShutdownOfAServeCutsOffWhenItsContextEnds(t *testing.T) {
	h := testHost(t)
	l := mustServe(t, h, ListenConfig{}, func(c *Conn) {
		_, _ = c.Write([]byte("x"))
		_, _ = io.ReadAll(c)
	})
	c := mustDial(t, h, h)
	_, err := io.ReadFull(c, make([]byte, 1))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err = l.Shutdown(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "1 conns were cut off")
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, ErrGoingAway)
	require.NoError(t, l.Shutdown(testContext(t)), "the handlers have returned")
}

func TestAHandlerMayCloseItsListener(t *testing.T) {
	h := testHost(t)
	var l *Listener
	ready := make(chan struct{})
	l = mustServe(t, h, ListenConfig{}, func(*Conn) { <-ready; _ = l.Close() })
	close(ready)
	c := mustDial(t, h, h)
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, ErrGoingAway)
}

// Claim: peerlane.ListenConfig.MaxConns
func TestServeNamesTheInvalidArgument(t *testing.T) {
	h := testHost(t)
	_, err := ListenConfig{}.Serve(h, testTag, nil)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "handler: nil")
	_, err = ListenConfig{MaxConns: -1}.Serve(h, testTag, func(*Conn) {})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "ListenConfig.MaxConns: -1")
	l := mustServe(t, h, ListenConfig{}, func(*Conn) {})
	_, err = l.Accept()
	require.ErrorIs(t, err, ErrInvalid)
	_, err = ListenConfig{}.Serve(h, testTag, func(*Conn) {})
	require.ErrorIs(t, err, ErrInUse)
	require.Equal(t, defaultMaxConns, ListenConfig{}.withDefaults().MaxConns)
}

// resetStream is a stream that calls reset when it is reset.
type resetStream struct {
	*pipe.End
	reset func()
}

func (s resetStream) ResetWithError(code network.StreamErrorCode) error {
	s.reset()
	return s.End.ResetWithError(code)
}

// A conn that comes as the listener closes is reset by no one who holds the listener's lock: a reset is I/O.
func TestAConnThatComesTooLateIsResetOutsideTheLock(t *testing.T) {
	h := testHost(t)
	for resets := 0; resets == 0; { // until serve takes the conn: it may see the end of the listener first
		l, err := newListener(h, testTag, ListenConfig{})
		require.NoError(t, err)
		l.handler = func(*Conn) { t.Error("the listener is closed") }
		_, far := pipe.New()
		c := newLoopbackConn(far, l, l.opts)
		c.stream = resetStream{far, func() {
			resets++
			require.True(t, l.mu.TryLock())
			l.mu.Unlock()
		}}
		require.Equal(t, codes.OK, l.offer(c))
		require.True(t, l.markClosed())
		l.serve()
	}
}
