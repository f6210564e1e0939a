package psk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// writing returns a conn over write, and the conn that reads what it sends.
func writing(write func([]byte) (int, error)) *sealedConn {
	keys, _ := fixedKeys()
	c := newConn(&fakeConn{write: write}, keys, rekeyInterval)
	c.chunk = maxChunk // it has proved to be fast
	return c
}

// A reader has nothing of a record before all of it has come: on a slow conn it is not to wait long.
func TestRecordsAreSmallUntilTheConnProvesFastAndAgainWhenItIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		rate := 0
		keys, _ := fixedKeys()
		c := newConn(&fakeConn{write: func(b []byte) (int, error) {
			n := len(b)
			for len(b) > 0 {
				size := headerSize + int(binary.BigEndian.Uint16(b))
				sizes = append(sizes, size-headerSize-tagSize)
				b = b[size:]
			}
			if rate > 0 {
				time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
			}
			return n, nil
		}}, keys, rekeyInterval)
		write := func(n int) {
			_, err := c.Write(make([]byte, n))
			require.NoError(t, err)
		}
		write(maxBatch)
		require.Equal(t, minChunk, slices.Max(sizes))
		for range 16 {
			write(maxBatch)
		}
		require.Equal(t, maxChunk, sizes[len(sizes)-1], "nothing of it was slow")
		rate = 20 << 10
		write(maxBatch)
		sizes = nil
		write(maxBatch)
		require.InDelta(t, 10<<10, slices.Max(sizes), 100, "half a second of them")
		rate = 1 << 10
		write(maxBatch)
		sizes = nil
		write(100)
		write(maxBatch)
		require.Equal(t, minChunk, slices.Max(sizes))
		rate = 0
		for range 10 {
			write(maxBatch)
		}
		require.Equal(t, maxChunk, sizes[len(sizes)-1])
	})
}

// randomBytes returns n bytes that are the same in every run.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// Row: S-b
func TestWriteLeavesTheCallersBufferAlone(t *testing.T) {
	for _, size := range []int{1, 100, maxChunk, maxBatch + 1} {
		p := randomBytes(size + 100)
		before := bytes.Clone(p)
		c := writing(func(b []byte) (int, error) {
			require.False(t, bytes.Contains(b, before[:min(size, 16)]) && size >= 16, "plaintext on the wire")
			return len(b), nil
		})
		n, err := c.Write(p[:size])
		require.NoError(t, err)
		require.Equal(t, size, n)
		require.Equal(t, before, p, "%d bytes, and the capacity behind them", size)
	}
}

// Row: N2
func TestWriteIsOneWriteBelow(t *testing.T) {
	for _, test := range []struct{ size, writes, records int }{
		{0, 0, 0},
		{1, 1, 1},
		{maxChunk - 1, 1, 1},
		{maxChunk, 1, 1},
		{maxChunk + 1, 1, 2},
		{2 * maxChunk, 1, 2},
		{maxBatch - 1, 1, 4},
		{maxBatch, 1, 4},
		{maxBatch + 1, 2, 5},
		{2*maxBatch + maxChunk + 1, 3, 10},
	} {
		var wire bytes.Buffer
		writes := 0
		c := writing(func(b []byte) (int, error) { writes++; return wire.Write(b) })
		p := randomBytes(test.size)
		n, err := c.Write(p)
		require.NoError(t, err, "%d bytes", test.size)
		require.Equal(t, test.size, n)
		require.Equal(t, test.writes, writes, "%d bytes", test.size)
		require.Equal(t, test.size+test.records*(headerSize+tagSize), wire.Len(), "%d bytes", test.size)
		got := make([]byte, test.size)
		_, err = io.ReadFull(reading(wire.Read), got)
		require.NoError(t, err, "%d bytes", test.size)
		require.Equal(t, p, got)
	}
}

func TestConcurrentWritesDoNotMix(t *testing.T) {
	a, b := sealedPipe(t)
	const writers, size = 8, maxChunk + 1
	for w := range writers {
		go func() { _, _ = a.Write(bytes.Repeat([]byte{byte(w)}, size)) }()
	}
	seen := make(map[byte]bool)
	for range writers {
		got := make([]byte, size)
		_, err := io.ReadFull(b, got)
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat(got[:1], size), got)
		seen[got[0]] = true
	}
	require.Len(t, seen, writers)
}

// Row: N2
func TestWriteCutByItsDeadlineGoesOn(t *testing.T) {
	p := randomBytes(maxChunk + 10)
	total := len(p) + 2*(headerSize+tagSize)
	for _, cut := range []int{0, 1, 2, 3, headerSize + maxChunk, total - 1} {
		var wire bytes.Buffer
		timeout := true
		c := writing(func(b []byte) (int, error) {
			if timeout {
				timeout = false
				n, _ := wire.Write(b[:cut])
				return n, os.ErrDeadlineExceeded
			}
			return wire.Write(b)
		})
		n, err := c.Write(p)
		require.Same(t, os.ErrDeadlineExceeded, err)
		require.Equal(t, len(p), n, "taken, and on its way")
		n, err = c.Write([]byte("next"))
		require.NoError(t, err)
		require.Equal(t, 4, n)
		got := make([]byte, len(p)+4)
		_, err = io.ReadFull(reading(wire.Read), got)
		require.NoError(t, err, "cut at %d", cut)
		require.Equal(t, append(bytes.Clone(p), "next"...), got, "cut at %d", cut)
	}
}

func TestWritePastItsDeadlineSealsNothing(t *testing.T) {
	calls := 0
	c := writing(func(b []byte) (int, error) { calls++; return len(b), nil })
	require.NoError(t, c.SetDeadline(time.Unix(1, 0)))
	n, err := c.Write([]byte("x"))
	require.Same(t, os.ErrDeadlineExceeded, err)
	require.Zero(t, n)
	require.Zero(t, calls)
	require.Zero(t, c.out.next)
	require.NoError(t, c.SetDeadline(time.Time{}))
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
}

func TestDeadlineBetweenBatchesSealsNoMore(t *testing.T) {
	var c *sealedConn
	c = writing(func(b []byte) (int, error) { return len(b), c.SetWriteDeadline(time.Unix(1, 0)) })
	n, err := c.Write(make([]byte, maxBatch+1))
	require.Same(t, os.ErrDeadlineExceeded, err)
	require.Equal(t, maxBatch, n)
	require.EqualValues(t, maxBatch/maxChunk, c.out.next)
}

// Row: N2
func TestFailedWriteBreaksTheWriter(t *testing.T) {
	const record = headerSize + maxChunk + tagSize
	for _, test := range []struct {
		left  int
		cause error
		taken int
	}{
		{0, errWire, 0},
		{record - 1, errWire, 0},
		{record, errWire, maxChunk},
		{2*record + 5, errWire, 2 * maxChunk},
		{record + 1, nil, maxChunk}, // a short write without an error
		{5, syscall.ETIMEDOUT, 0},   // a dead conn that calls itself a timeout
	} {
		calls := 0
		c := writing(func([]byte) (int, error) { calls++; return test.left, test.cause })
		n, err := c.Write(make([]byte, 2*maxChunk+10))
		require.Equal(t, test.taken, n, "%d left", test.left)
		want := test.cause
		if want == nil {
			want = io.ErrShortWrite
		}
		for range 3 {
			require.ErrorIs(t, err, errBroken)
			require.ErrorIs(t, err, want)
			n, err = c.Write([]byte("more"))
			require.Zero(t, n)
		}
		require.ErrorIs(t, c.CloseWrite(), errBroken)
		require.NoError(t, c.Close())
		require.Equal(t, 1, calls, "nothing follows half a record")
	}
}

func TestOtherTimeoutErrorsBecomeTheOne(t *testing.T) {
	c := writing(func([]byte) (int, error) { return 0, &net.OpError{Op: "write", Err: timeoutError{}} })
	_, err := c.Write([]byte("x"))
	require.Same(t, os.ErrDeadlineExceeded, err)
	c = reading(func([]byte) (int, error) { return 0, timeoutError{} })
	_, err = c.Read(make([]byte, 1))
	require.Same(t, os.ErrDeadlineExceeded, err)
	require.False(t, isTimeout(errors.New("i/o timeout")))
}

// timeoutError is a net.Error that does not unwrap to os.ErrDeadlineExceeded; go-yamux has one.
type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o deadline reached" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
