package peerlane

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

// Row: P6, D26.
func TestLimitedConnRefusesALongerWriteAndSendsNothing(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		for _, limit := range []int{1, 2, 10, 4096} {
			c, far := newPair(t, a, b)
			lc := NewLimitedConn(c, limit)
			var want []byte
			for _, size := range []int{0, limit - 1, limit, limit + 1, 2 * limit, limit} {
				p := bytes.Repeat([]byte{'0' + byte(size%10)}, size)
				n, err := lc.Write(p)
				if size <= limit {
					require.NoError(t, err, "limit %d, size %d", limit, size)
					require.Equal(t, size, n)
					want = append(want, p...)
					continue
				}
				require.Zero(t, n, "limit %d, size %d", limit, size)
				require.ErrorIs(t, err, ErrTooLarge)
				var typed *Error
				require.ErrorAs(t, err, &typed)
				require.Equal(t, session.NotSent, typed.Outcome)
				require.False(t, typed.Remote)
			}
			require.NoError(t, lc.(HalfCloser).CloseWrite())
			require.Equal(t, want, readAll(t, far))
			require.NoError(t, errors.Join(lc.Close(), listenerOf(b, []protocol.ID{testTag}).Close()))
		}
	})
}

// Row: P6.
func TestLimitedConnReadsAtMostTheLimitAtOnce(t *testing.T) {
	h := testHost(t)
	c, far := newPair(t, h, h)
	_, err := far.Write([]byte("0123456789abcdef"))
	require.NoError(t, err)
	require.NoError(t, far.CloseWrite())
	lc := NewLimitedConn(c, 10)
	buf := make([]byte, 64)
	n, err := lc.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "0123456789", string(buf[:n]))
	n, err = lc.Read(buf[:3])
	require.NoError(t, err)
	require.Equal(t, "abc", string(buf[:n]))
	require.Equal(t, "def", string(readAll(t, lc)))
}

func TestLimitedConnClosesEitherSide(t *testing.T) {
	h := testHost(t)
	c, far := newPair(t, h, h)
	lc := NewLimitedConn(NewLimitedConn(c, 20), 10).(HalfCloser)
	require.NoError(t, lc.CloseWrite())
	require.Empty(t, readAll(t, far))
	require.NoError(t, lc.CloseRead())
	_, err := far.Write([]byte("x"))
	require.Error(t, err)
	require.Same(t, c, NewLimitedConn(c, 1).(interface{ NetConn() net.Conn }).NetConn())
}

func TestLimitedConnOverAConnWithoutHalfCloseSaysSo(t *testing.T) {
	p, q := net.Pipe()
	defer func() { _, _ = p.Close(), q.Close() }()
	lc := NewLimitedConn(p, 10).(HalfCloser)
	require.ErrorIs(t, lc.CloseWrite(), errors.ErrUnsupported)
	require.ErrorIs(t, lc.CloseRead(), errors.ErrUnsupported)
}

func TestLimitedConnWithAnInvalidLimitNamesIt(t *testing.T) {
	h := testHost(t)
	c, _ := newPair(t, h, h)
	for _, limit := range []int{0, -1} {
		lc := NewLimitedConn(c, limit)
		for _, f := range []func([]byte) (int, error){lc.Read, lc.Write} {
			_, err := f(make([]byte, 1))
			require.ErrorIs(t, err, ErrInvalid)
			require.ErrorContains(t, err, "maxSize")
			require.NotErrorIs(t, err, io.EOF)
		}
	}
}
