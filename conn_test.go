package peerlane

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/deadline"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

// Row: P1, P4.
func TestConnNamesItsEndsByPeerID(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		require.Equal(t, "libp2p", c.LocalAddr().Network())
		require.Equal(t, a.ID().String(), c.LocalAddr().String())
		require.Equal(t, b.ID().String(), c.RemoteAddr().String())
		require.Equal(t, b.ID().String(), far.LocalAddr().String())
		require.Equal(t, a.ID().String(), far.RemoteAddr().String())
		require.Equal(t, b.ID(), c.RemotePeer())
		require.Equal(t, testTag, c.Tag())
		require.Equal(t, testTag, far.Tag())
	})
}

// Row: P4.
func TestConnHalfClosesEitherSide(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		for _, acceptedFirst := range []bool{false, true} {
			c, far := connPair(t, a, l)
			if acceptedFirst {
				c, far = far, c
			}
			_, err := c.Write([]byte("question"))
			require.NoError(t, err)
			require.NoError(t, errors.Join(c.CloseWrite(), c.CloseWrite()))
			_, err = c.Write([]byte("more"))
			require.ErrorIs(t, err, net.ErrClosed)
			require.Equal(t, "question", string(readAll(t, far)))
			_, err = far.Write([]byte("answer"))
			require.NoError(t, err)
			require.NoError(t, far.Close())
			require.Equal(t, "answer", string(readAll(t, c)))
			require.NoError(t, c.Close())
		}
		requireNoStreams(t, testTag, a, b)
	})
}

func TestCloseReadLeavesTheWriteSideOpen(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, tr testnet.Transport) {
		c, far := newPair(t, a, b)
		errs := make(chan error, 1)
		go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
		waitBlocked(t, "(*Conn).Read", 1)
		require.NoError(t, errors.Join(c.CloseRead(), c.CloseRead()))
		require.ErrorIs(t, within(t, patience, "Read", func() error { return <-errs }), net.ErrClosed)
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)

		if tr.HasStopSending() || tr == loopback {
			err := within(t, patience, "Write", func() error { return writeUntilError(far) })
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}
		_, err = c.Write([]byte("still here"))
		require.NoError(t, err)
		require.NoError(t, c.CloseWrite()) // both sides are closed now: the peer's writes must end everywhere
		err = within(t, patience, "Write", func() error { return writeUntilError(far) })
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Equal(t, "still here", string(readAll(t, far)))
		requireNoStreams(t, testTag, a)
	})
}

func TestEverythingFailsWithErrClosedAfterClose(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		for name, before := range map[string]func(c, far *Conn){
			"idle":            func(_, _ *Conn) {},
			"peer has closed": func(c, far *Conn) { _, _ = far.Close(), readAll(t, c) },
			"data unread":     func(_, far *Conn) { _, _ = far.Write([]byte("x")) },
			"deadline passed": func(c, _ *Conn) { _ = c.SetDeadline(deadline.Past) },
			"peer has reset": func(c, far *Conn) {
				far.resetWith(codes.Internal)
				_, err := c.Read(make([]byte, 1))
				require.ErrorIs(t, err, syscall.ECONNRESET)
			},
			"reset here": func(c, _ *Conn) { c.resetWith(codes.Internal) },
		} {
			c, far := connPair(t, a, l)
			before(c, far)
			require.NoError(t, errors.Join(c.Close(), c.Close()), name)
			_, readErr := c.Read(make([]byte, 1))
			_, readNilErr := c.Read(nil)
			_, writeErr := c.Write([]byte("x"))
			for _, err := range []error{
				readErr, readNilErr, writeErr, c.CloseRead(), c.CloseWrite(),
				c.SetDeadline(time.Time{}), c.SetReadDeadline(deadline.Past), c.SetWriteDeadline(deadline.Past),
			} {
				require.ErrorIs(t, err, net.ErrClosed, name)
				require.NotErrorIs(t, err, os.ErrDeadlineExceeded, name)
				var op *net.OpError
				require.ErrorAs(t, err, &op, name)
			}
		}
	})
}

// Row: C4.
func TestAResetCarriesItsCodeToThePeer(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		for _, code := range []codes.Code{codes.Unavailable, codes.GoingAway, codes.OK, 4711} {
			c, far := connPair(t, a, l)
			far.resetWith(code)
			_, readErr := c.Read(make([]byte, 1))
			writeErr := writeUntilError(c)
			for _, err := range []error{readErr, writeErr} {
				var typed *Error
				require.ErrorAs(t, err, &typed)
				require.True(t, typed.Remote)
				require.Equal(t, code, typed.Code)
				require.Equal(t, b.ID().String(), typed.Peer)
				require.Equal(t, string(testTag), typed.Link)
				require.ErrorIs(t, err, syscall.ECONNRESET)
				require.NotErrorIs(t, err, io.ErrUnexpectedEOF)
				require.NotErrorIs(t, err, net.ErrClosed)
				var se *network.StreamError
				require.ErrorAs(t, err, &se)
				require.Equal(t, resetCode(code), se.ErrorCode)
			}
			require.NoError(t, c.Close())
		}
		requireNoStreams(t, testTag, a, b)
	})
}

// A connection that is cut under yamux ends in io.EOF there; it must not look like the orderly end of the data.
func TestALostConnectionIsNoEnd(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		_, err := far.Write([]byte("half a mess"))
		require.NoError(t, err)
		_, err = io.ReadFull(c, make([]byte, 11))
		require.NoError(t, err)
		require.NoError(t, far.under.Close())
		_, readErr := c.Read(make([]byte, 1))
		writeErr := writeUntilError(c)
		for _, err := range []error{readErr, writeErr} {
			require.NotErrorIs(t, err, io.EOF)
			require.NotErrorIs(t, err, net.ErrClosed)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.ErrorIs(t, err, syscall.ECONNRESET)
			var typed *Error
			require.ErrorAs(t, err, &typed)
			require.Equal(t, session.Unknown, typed.Outcome)
		}
	})
}

func TestAConnectionClosedWithACodeSaysWhy(t *testing.T) {
	onEach(t, []testnet.Transport{testnet.TCPTLS, testnet.QUIC}, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		require.NoError(t, far.under.CloseWithError(network.ConnGarbageCollected))
		_, err := c.Read(make([]byte, 1))
		var typed *Error
		require.ErrorAs(t, err, &typed)
		require.True(t, typed.Remote)
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorContains(t, err, "trimmed by the connection manager")
		var ce *network.ConnError
		require.ErrorAs(t, err, &ce)
		require.Equal(t, network.ConnGarbageCollected, ce.ErrorCode)
	})
}

func TestADeadlineIsLiftedByAZeroTime(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		c, far := newPair(t, a, b)
		require.NoError(t, errors.Join(c.SetDeadline(deadline.Past), c.SetDeadline(time.Time{})))
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(far, make([]byte, 1))
		require.NoError(t, err)
	})
}

func TestSetDeadlineOfOneSideLeavesTheOther(t *testing.T) {
	h := testHost(t)
	c, far := newPair(t, h, h)
	require.NoError(t, c.SetReadDeadline(deadline.Past))
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, far.SetWriteDeadline(deadline.Past))
	_, err = io.ReadFull(far, make([]byte, 1))
	require.NoError(t, err)
	_, err = far.Write([]byte("x"))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// Fact: F9.
// Claim: peerlane.Path.Expires, peerlane.Path.Limited, peerlane.Path.Relay, peerlane.Path.RelayData
// Claim: peerlane.Path.RelayDuration, peerlane.Path.Relayed, peerlane.Path.Transport
func TestPathNamesTheTransportAndTheRelaysLimits(t *testing.T) {
	for tr, want := range map[testnet.Transport]Path{
		testnet.TCPTLS:       {Transport: "tcp"},
		testnet.TCPNoise:     {Transport: "tcp"},
		testnet.QUIC:         {Transport: "quic-v1"},
		testnet.WebSocket:    {Transport: "ws"},
		testnet.WebTransport: {Transport: "webtransport"},
		testnet.Relay:        {Transport: "tcp", Relayed: true},
		testnet.LimitedRelay: {
			Transport: "tcp", Relayed: true, Limited: true, RelayData: 128 << 10, RelayLeft: 128 << 10, RelayDuration: 2 * time.Minute,
		},
		loopback: {Transport: "loopback"},
	} {
		t.Run(string(tr), func(t *testing.T) {
			a, b := testHosts(t, tr)
			c, far := newPair(t, a, b)
			for _, c := range []*Conn{c, far} {
				got := c.Path()
				require.Equal(t, want.Relayed, got.Relay != "")
				if want.RelayDuration > 0 {
					require.WithinDuration(t, time.Now().Add(want.RelayDuration), got.Expires, patience)
				}
				got.Relay, got.Expires = "", time.Time{}
				require.Equal(t, want, got)
			}
		})
	}
}

// Fact: F8. The transport reports a reset with code 0 and says nothing of the relay.
func TestARelayThatCutsTheConnectionIsNamed(t *testing.T) {
	a, b := testnet.Pair(t, testnet.LimitedRelay)
	c, far := newPair(t, a, b)
	errs := make(chan error, 1)
	go func() { errs <- writeUntilError(c) }()
	require.NoError(t, far.SetReadDeadline(time.Now().Add(patience)))
	n, readErr := io.Copy(io.Discard, far)
	require.Less(t, n, int64(128<<10))
	for _, err := range []error{readErr, within(t, patience, "Write", func() error { return <-errs })} {
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.ErrorContains(t, err, "limited to 131072 bytes each way and 2m0s")
	}
}

// A stream that a fake transport errs on, for errors that real ones give only under stress.
type errStream struct {
	network.MuxedStream

	n   int
	err error
}

func (s *errStream) Read([]byte) (int, error)         { return s.n, s.err }
func (s *errStream) Write([]byte) (int, error)        { return s.n, s.err }
func (s *errStream) SetReadDeadline(time.Time) error  { return s.err }
func (s *errStream) SetWriteDeadline(time.Time) error { return nil }
func (s *errStream) Close() error                     { return nil }

type timeoutError struct{ error }

func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
func (e timeoutError) Unwrap() error { return e.error }

func TestATimeoutOfTheConnectionIsNoDeadline(t *testing.T) {
	for name, c := range map[string]*Conn{
		"yamux keepalive": {
			stream: &errStream{err: timeoutError{errors.New("keepalive timeout")}}, under: &fakeConn{closed: true},
		},
		"quic idle": {
			stream: &errStream{err: timeoutError{net.ErrClosed}}, under: &fakeConn{},
		},
	} {
		_, readErr := c.Read(make([]byte, 1))
		_, writeErr := c.Write(make([]byte, 1))
		for _, err := range []error{readErr, writeErr} {
			require.ErrorIs(t, err, syscall.ECONNRESET, name)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, name)
			require.NotErrorIs(t, err, net.ErrClosed, name)
			var op *net.OpError
			require.ErrorAs(t, err, &op, name)
			require.False(t, op.Timeout(), name)
		}
	}
}

func TestAShortWriteIsAnError(t *testing.T) {
	c := &Conn{stream: &errStream{n: 1}}
	n, err := c.Write([]byte("two"))
	require.Equal(t, 1, n)
	require.ErrorIs(t, err, io.ErrShortWrite)
}

func TestADeadlineThatTheTransportRefusesIsAnError(t *testing.T) {
	c := &Conn{stream: &errStream{err: errors.New("no deadlines here")}}
	require.ErrorContains(t, c.SetDeadline(deadline.Past), "no deadlines here")
}

func TestErrorsOfAConnReadLikeThoseOfPackageNet(t *testing.T) {
	h := testHost(t)
	c, far := newPair(t, h, h)
	far.resetWith(codes.Unavailable)
	_, err := c.Read(make([]byte, 1))
	id := h.ID().String()
	require.EqualError(t, err, "read libp2p "+id+"->"+id+`: read "/peerlane-test/1.0.0" at `+id+
		": remote: unavailable: stream refused: stream reset (remote): code: 0x504c0004 (rejected)")
	require.NoError(t, c.Close())
	_, err = c.Read(nil)
	require.EqualError(t, err, "read libp2p "+id+"->"+id+": use of closed network connection")
}

func TestAConnOutlivesTheContextOfItsDial(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		ctx, cancel := context.WithCancel(testContext(t))
		c, err := Dial(ctx, a, b.ID(), testTag)
		require.NoError(t, err)
		far, err := l.accept()
		require.NoError(t, err)
		cancel() // belongs to the dial, not to the conn
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(far, make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, errors.Join(c.Close(), far.Close()))
	})
}
