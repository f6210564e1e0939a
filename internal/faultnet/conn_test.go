package faultnet

import (
	"bytes"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

func TestConnPassesNettest(t *testing.T) {
	t.Parallel() // it waits for real
	for name, opts := range map[string]LinkOptions{
		"plain":        {},
		"small buffer": {Buffer: 2048}, // the echoes of nettest need some
		"delayed":      {Delay: 100 * time.Microsecond},
		"CutAfter far": {CutDelivers: true},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				l := NewLink(opts)
				l.CutAfter(1 << 40)
				a, b := l.Ends()
				return a, b, func() { _, _ = a.Close(), b.Close() }, nil
			})
		})
	}
}

func TestConnTakesItsBufferWithoutAReader(t *testing.T) {
	for _, size := range []int{0, 1, 4096} {
		synctest.Test(t, func(t *testing.T) {
			a, b := Pipe(LinkOptions{Buffer: size})
			want := size
			if size == 0 {
				want = 64 << 10
			}
			require.NoError(t, a.SetWriteDeadline(time.Now().Add(time.Second)))
			started := time.Now()
			n, err := a.Write(make([]byte, want+1))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Equal(t, want, n)
			require.Equal(t, time.Second, time.Since(started))
			got, err := b.Read(make([]byte, want+1))
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestConnReadDeadlineWakesAPendingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := Pipe(LinkOptions{})
		errs := make(chan error)
		go func() { errs <- second(a.Read(make([]byte, 1))) }()
		synctest.Wait()
		require.NoError(t, a.SetDeadline(time.Now().Add(time.Minute)))
		started := time.Now()
		err := <-errs
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(started))
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
		require.NoError(t, a.SetDeadline(time.Time{}))
		requireStill(t, func() error { return second(a.Read(make([]byte, 1))) }, a)
	})
}

func TestConnReadsAllBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(LinkOptions{Delay: time.Second})
		_, err := a.Write([]byte("last "))
		require.NoError(t, err)
		_, err = a.Write([]byte("words"))
		require.NoError(t, err)
		require.NoError(t, a.Close())
		require.NoError(t, a.Close(), "twice")
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Equal(t, "last words", string(got))
		_, err = b.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		_, err = b.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE)
	})
}

func TestConnIsClosedToItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(LinkOptions{Buffer: 1})
		errs := make(chan error)
		go func() { errs <- second(a.Read(make([]byte, 1))) }()
		go func() { errs <- second(a.Write(make([]byte, 2))) }()
		synctest.Wait()
		require.NoError(t, a.Close())
		require.ErrorIs(t, <-errs, net.ErrClosed)
		require.ErrorIs(t, <-errs, net.ErrClosed)
		a.Link().Cut()
		for _, err := range []error{
			second(a.Read(nil)), second(a.Write(nil)), a.SetDeadline(time.Time{}), a.CloseWrite(),
		} {
			require.ErrorIs(t, err, net.ErrClosed)
		}
		require.ErrorIs(t, second(b.Read(nil)), syscall.ECONNRESET)
	})
}

func TestConnHalfCloses(t *testing.T) {
	a, b := Pipe(LinkOptions{})
	require.NoError(t, a.CloseWrite())
	require.ErrorIs(t, second(a.Write([]byte("x"))), net.ErrClosed)
	require.Equal(t, io.EOF, second(b.Read(make([]byte, 1))))
	_, err := b.Write([]byte("answer"))
	require.NoError(t, err)
	require.NoError(t, b.Close())
	got, err := io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, "answer", string(got))
}

func TestConnDelayKeepsTheOrderAndIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(LinkOptions{Delay: time.Second})
		started := time.Now()
		_, _ = a.Write([]byte("1"))
		a.Link().SetDelay(0) // what follows does not overtake
		_, _ = a.Write([]byte("2"))
		buf := make([]byte, 10)
		n, err := b.Read(buf)
		require.NoError(t, err)
		require.Equal(t, "12", string(buf[:n]))
		require.Equal(t, time.Second, time.Since(started))
		time.Sleep(time.Second) // fake
		_, _ = a.Write([]byte("3"))
		started = time.Now()
		_, err = b.Read(buf)
		require.NoError(t, err)
		require.Zero(t, time.Since(started))
	})
}

func TestConnNamesItsEnds(t *testing.T) {
	a, b := Pipe(LinkOptions{})
	require.Equal(t, a.LocalAddr(), b.RemoteAddr())
	require.Equal(t, b.LocalAddr(), a.RemoteAddr())
	require.NotEqual(t, a.LocalAddr(), a.RemoteAddr())
	a.Link().Cut()
	require.EqualError(t, second(a.Read(nil)), "read faultnet a->b: connection reset by peer")
}

func TestConnAbortLosesWhatWasNotRead(t *testing.T) {
	a, b := Pipe(LinkOptions{})
	_, _ = a.Write([]byte("lost"))
	a.abort()
	require.ErrorIs(t, second(b.Read(make([]byte, 1))), syscall.ECONNRESET)
	require.ErrorIs(t, second(b.Write([]byte("x"))), syscall.ECONNRESET)
	require.ErrorIs(t, second(a.Read(make([]byte, 1))), net.ErrClosed)
}

func second(_ int, err error) error { return err }

// requireStill fails if f, a call on c in a bubble, returns by itself. It ends it by c's deadline.
func requireStill(t *testing.T, f func() error, c *Conn) {
	t.Helper()
	require.NoError(t, c.SetDeadline(time.Now().Add(24*time.Hour)))
	require.ErrorIs(t, f(), os.ErrDeadlineExceeded)
	require.NoError(t, c.SetDeadline(time.Time{}))
}

func pattern(n int) []byte { return bytes.Repeat([]byte("0123456789"), n/10+1)[:n] }

func TestConnRateIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(LinkOptions{Buffer: 1 << 20, Rate: 1000, Delay: time.Second})
		began := time.Now()
		for range 3 {
			_, err := a.Write(make([]byte, 500))
			require.NoError(t, err)
		}
		for i := range 3 {
			_, err := io.ReadFull(b, make([]byte, 500))
			require.NoError(t, err)
			require.Equal(t, time.Second+time.Duration(i+1)*500*time.Millisecond, time.Since(began))
		}
		time.Sleep(time.Hour) // what is not used is not saved
		began = time.Now()
		require.NoError(t, func() error { _, err := a.Write(make([]byte, 1000)); return err }())
		require.NoError(t, a.CloseWrite())
		all, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Len(t, all, 1000)
		require.Equal(t, 2*time.Second, time.Since(began))
	})
}
