package peerlane

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

func TestAResetIsNeverTheEndOfAnAnswer(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		for _, acceptedResets := range []bool{true, false} {
			c, far := connPair(t, a, l)
			if !acceptedResets {
				c, far = far, c
			}
			_, err := far.Write([]byte("half an ans"))
			require.NoError(t, err)
			_, err = io.ReadFull(c, make([]byte, 11))
			require.NoError(t, err)
			require.NoError(t, far.Reset())
			for range 2 { // it stays so
				_, err = c.Read(make([]byte, 1))
				require.NotErrorIs(t, err, io.EOF)
				require.ErrorIs(t, err, syscall.ECONNRESET)
			}
			var typed *Error
			require.ErrorAs(t, err, &typed)
			require.True(t, typed.Remote)
			require.Equal(t, codes.Closed, typed.Code)
			require.Equal(t, session.Unknown, typed.Outcome)
			require.ErrorIs(t, writeUntilError(c), syscall.ECONNRESET)
			_, err = far.Read(make([]byte, 1))
			require.ErrorIs(t, err, net.ErrClosed)
			_, err = far.Write([]byte("x"))
			require.ErrorIs(t, err, net.ErrClosed)
			require.ErrorIs(t, far.Reset(), net.ErrClosed)
			require.NoError(t, errors.Join(c.Close(), far.Close()))
		}
		requireNoStreams(t, testTag, a, b)
	})
}

func TestAResetWakesWhatIsBlocked(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, _ := newPair(t, a, b)
		errs := make(chan error, 2)
		go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
		go func() { errs <- writeUntilError(c) }()
		waitBlocked(t, "(*Conn).Read", 1)
		require.NoError(t, c.Reset())
		for range cap(errs) {
			require.ErrorIs(t, within(t, patience, "Read or Write", func() error { return <-errs }), net.ErrClosed)
		}
	})
}

// So that it may be deferred, Reset takes nothing back that Close has promised. Over QUIC it could.
func TestAResetAfterCloseDoesNothing(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		sent := noise(60 << 10)
		_, err := c.Write(sent)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.ErrorIs(t, c.Reset(), net.ErrClosed)
		require.Equal(t, sent, readAll(t, far))
	})
}

func TestALimitedConnCanBeReset(t *testing.T) {
	h := testHost(t)
	c, far := newPair(t, h, h)
	require.NoError(t, NewLimitedConn(c, 10).(interface{ Reset() error }).Reset())
	_, err := far.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)

	near, _ := net.Pipe()
	defer func() { require.NoError(t, near.Close()) }()
	require.ErrorIs(t, NewLimitedConn(near, 10).(interface{ Reset() error }).Reset(), errors.ErrUnsupported)
}

// libp2p counts a stream until it is closed, and a handler may take its time: what has ended both ways is not waited for.
func TestAConnThatHasEndedBothWaysGivesItsStreamBackBeforeClose(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, tr testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		ends := map[string]func(c, far *Conn){
			"both write sides closed": func(c, far *Conn) {
				require.NoError(t, errors.Join(c.CloseWrite(), far.CloseWrite()))
				require.Empty(t, readAll(t, c))
				require.Empty(t, readAll(t, far))
			},
			"end read, then write side closed": func(c, far *Conn) {
				require.NoError(t, c.CloseWrite())
				require.Empty(t, readAll(t, far))
				require.NoError(t, far.CloseWrite())
				require.Empty(t, readAll(t, c))
			},
			"read side and write side closed": func(c, far *Conn) {
				require.NoError(t, errors.Join(c.CloseRead(), far.CloseWrite(), c.CloseWrite(), far.CloseRead()))
			},
		}
		if !tr.HasStopSending() { // where a reset is one of both directions
			ends["reset by the peer"] = func(c, far *Conn) {
				require.NoError(t, far.Reset())
				_, err := c.Read(make([]byte, 1))
				require.ErrorIs(t, err, syscall.ECONNRESET)
			}
		}
		for name, end := range ends {
			c, far := connPair(t, a, l)
			end(c, far)
			for _, h := range []host.Host{a, b} {
				require.Eventually(t, func() bool { return streamCount(h, testTag) == 0 }, patience, time.Millisecond, name)
			}
			for _, c := range []*Conn{c, far} { // and it stays what it was
				_, err := c.Read(make([]byte, 1))
				require.Error(t, err, name)
				require.NotErrorIs(t, err, os.ErrDeadlineExceeded, name)
				if !errors.Is(err, net.ErrClosed) {
					require.NoError(t, c.SetDeadline(time.Now().Add(time.Hour)), name)
				}
				require.NoError(t, errors.Join(c.Close(), c.Close()), name)
				_, err = c.Read(make([]byte, 1))
				require.ErrorIs(t, err, net.ErrClosed, name)
			}
		}
	})
}

func TestTheEndStaysTheEndAfterBothWaysHaveEnded(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		require.NoError(t, errors.Join(c.CloseWrite(), far.CloseWrite()))
		for range 3 {
			_, err := c.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err)
		}
		_, err := c.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed)
		require.NoError(t, c.CloseRead())
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

// The dialer may have read a byte while it looked for a refusal.
func TestAByteThatTheDialerReadIsReadFirst(t *testing.T) {
	t.Parallel() // it waits for real
	onEach(t, testnet.Direct(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		for name, far := range map[string]func(*Conn){
			"speaks":         func(c *Conn) { _, _ = c.Write([]byte("hello")); _ = c.Close() },
			"ends":           func(c *Conn) { _ = c.Close() },
			"resets":         func(c *Conn) { _ = c.Reset() },
			"waits":          func(*Conn) {},
			"speaks, resets": func(c *Conn) { _, _ = c.Write([]byte("h")); _ = c.Reset() },
		} {
			c, accepted := connPair(t, a, l)
			far(accepted)
			require.Nil(t, c.lookForRefusal(testContext(t), settleTime), name)
			switch name {
			case "speaks":
				n, err := c.Read(nil)
				require.Zero(t, n)
				require.NoError(t, err)
				require.Equal(t, "hello", string(readAll(t, c)))
			case "ends":
				require.Empty(t, readAll(t, c))
			case "resets":
				_, err := c.Read(make([]byte, 1))
				require.ErrorIs(t, err, syscall.ECONNRESET)
			case "waits":
				_, err := accepted.Write([]byte("late"))
				require.NoError(t, err)
				_, err = io.ReadFull(c, make([]byte, 4))
				require.NoError(t, err, "a deadline was left")
			}
			_, _ = c.Close(), accepted.Close()
		}
	})
}
