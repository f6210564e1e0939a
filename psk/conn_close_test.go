package psk

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Row: N2
func TestCloseIsTheEndOfTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := sealedPipe(t)
		go func() {
			_, _ = a.Write([]byte("the last words"))
			_ = a.Close()
		}()
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Equal(t, "the last words", string(got))
	})
}

// Row: N2
func TestCutConnIsNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := sealedPipe(t)
		go func() {
			_, _ = a.Write([]byte("the last words"))
			_ = a.NetConn().Close()
		}()
		got, err := io.ReadAll(b)
		require.Same(t, io.ErrUnexpectedEOF, err)
		require.Equal(t, "the last words", string(got))
	})
}

// Row: N2
func TestCloseWriteLeavesReadingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := sealedPipe(t)
		go func() {
			_, _ = a.Write([]byte("question"))
			_ = a.CloseWrite()
		}()
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Equal(t, "question", string(got))
		go func() {
			_, _ = b.Write([]byte("answer"))
			_ = b.Close()
		}()
		got, err = io.ReadAll(a)
		require.NoError(t, err)
		require.Equal(t, "answer", string(got))
		n, err := a.Write([]byte("more"))
		require.ErrorIs(t, err, net.ErrClosed)
		require.Zero(t, n)
		require.NoError(t, a.Close())
	})
}

func TestHalfClosesReachTheConnBelowOnce(t *testing.T) {
	var wire bytes.Buffer
	reads, writes := 0, 0
	keys, _ := fixedKeys()
	c := newConn(&halfConn{
		fakeConn:   fakeConn{write: wire.Write},
		closeRead:  func() error { reads++; return nil },
		closeWrite: func() error { writes++; return errWire },
	}, keys, rekeyInterval)
	require.ErrorIs(t, c.CloseWrite(), errWire)
	require.NoError(t, c.CloseWrite())
	require.Equal(t, 1, writes)
	require.NoError(t, c.CloseRead())
	require.Equal(t, 1, reads)
	require.NoError(t, c.Close())
	require.Equal(t, wireOf(), wire.Bytes(), "one end record, though CloseWrite and Close both send it")
	require.ErrorIs(t, c.CloseRead(), net.ErrClosed)
}

func TestEverythingAfterCloseIsErrClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := sealedPipe(t)
		go func() { _, _ = io.Copy(io.Discard, b) }()
		require.NoError(t, a.Close())
		_, err := a.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = a.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, a.CloseRead(), net.ErrClosed)
		require.ErrorIs(t, a.SetDeadline(time.Time{}), net.ErrClosed)
		require.ErrorIs(t, a.SetReadDeadline(time.Time{}), net.ErrClosed)
		require.ErrorIs(t, a.SetWriteDeadline(time.Time{}), net.ErrClosed)
		require.NoError(t, a.Close(), "a repeat gives the first result")
		require.NotNil(t, a.LocalAddr())
		require.NotNil(t, a.RemoteAddr())
	})
}

// Row: N2
func TestCloseIsBoundedWhenNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := sealedPipe(t)
		pending := make(chan error, 2)
		go func() { _, err := a.Write(make([]byte, maxBatch)); pending <- err }()
		go func() { _, err := a.Read(make([]byte, 1)); pending <- err }()
		synctest.Wait()
		start := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { require.Error(t, a.Close(), "what the Write had taken is lost") })
		}
		require.ErrorIs(t, <-pending, net.ErrClosed)
		require.Zero(t, time.Since(start), "the Read ends at once")
		require.ErrorIs(t, <-pending, net.ErrClosed)
		wg.Wait()
		require.Equal(t, closeTimeout, time.Since(start))
		_, err := b.Read(make([]byte, 1))
		require.Same(t, io.ErrUnexpectedEOF, err)
	})
}

func TestCloseIsBoundedWhenDeadlinesAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan struct{})
		keys, _ := fixedKeys()
		c := newConn(&fakeConn{
			write: func([]byte) (int, error) { <-closed; return 0, net.ErrClosed },
			close: func() error { close(closed); return nil },
		}, keys, rekeyInterval)
		start := time.Now()
		require.NoError(t, c.Close())
		require.Equal(t, watchdogTimeout, time.Since(start))
	})
}

func TestCloseTakesTheDeadlineBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := sealedPipe(t)
		require.NoError(t, a.SetDeadline(time.Now().Add(-time.Hour)))
		go func() { _ = a.Close() }()
		_, err := b.Read(make([]byte, 1))
		require.Same(t, io.EOF, err, "the end record leaves though the deadline has passed")
	})
}

func TestCloseSendsWhatADeadlineHeldBack(t *testing.T) {
	for _, recovers := range []bool{true, false} {
		var wire bytes.Buffer
		stuck := true
		c := writing(func(b []byte) (int, error) {
			if stuck {
				n, _ := wire.Write(b[:min(3, len(b))])
				return n, os.ErrDeadlineExceeded
			}
			return wire.Write(b)
		})
		_, err := c.Write([]byte("held back"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		stuck = !recovers
		err = c.Close()
		got, rerr := io.ReadAll(reading(wire.Read))
		if recovers {
			require.NoError(t, err)
			require.NoError(t, rerr)
			require.Equal(t, "held back", string(got))
			continue
		}
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the caller learns that taken bytes are lost")
		require.Same(t, io.ErrUnexpectedEOF, rerr)
	}
}

func TestCloseWriteGoesOnAfterADeadline(t *testing.T) {
	var wire bytes.Buffer
	stuck := true
	c := writing(func(b []byte) (int, error) {
		if stuck {
			n, _ := wire.Write(b[:5])
			return n, os.ErrDeadlineExceeded
		}
		return wire.Write(b)
	})
	require.ErrorIs(t, c.CloseWrite(), os.ErrDeadlineExceeded)
	_, err := c.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed, "the end record is sealed")
	stuck = false
	require.NoError(t, c.CloseWrite())
	require.NoError(t, c.Close())
	require.Equal(t, wireOf(), wire.Bytes())
}

// An end record would tell the peer that all is well.
func TestNoEndRecordLeavesAfterTampering(t *testing.T) {
	var wire bytes.Buffer
	_, keys := fixedKeys()
	bad := flip(wireOf("x"), 30)
	c := newConn(&fakeConn{read: bytes.NewReader(bad).Read, write: wire.Write}, keys, rekeyInterval)
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, ErrTampered)
	require.ErrorIs(t, c.CloseWrite(), ErrTampered)
	require.NoError(t, c.Close())
	require.Zero(t, wire.Len())
}

func TestCloseGivesTheErrorOfTheConnBelow(t *testing.T) {
	keys, _ := fixedKeys()
	c := newConn(&fakeConn{close: func() error { return errWire }}, keys, rekeyInterval)
	require.ErrorIs(t, c.Close(), errWire)
	require.ErrorIs(t, c.Close(), errWire)
}
