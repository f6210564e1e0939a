package peerlane

import (
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

// Row: P3.
func TestListenServesATag(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l, err := Listen(b, testTag)
		require.NoError(t, err)
		require.Equal(t, b.ID().String(), l.Addr().String())
		require.Equal(t, Network, l.Addr().Network())
		require.Equal(t, testTag, l.(*Listener).tag)
		require.Contains(t, b.Mux().Protocols(), testTag)

		c, err := Dial(testContext(t), a, b.ID(), testTag)
		require.NoError(t, err)
		far, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, a.ID().String(), far.RemoteAddr().String())
		require.NoError(t, l.Close())
		_, err = c.Write([]byte("accepted conns live on"))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.Equal(t, "accepted conns live on", string(readAll(t, far)))
		require.NoError(t, far.Close())
		require.NotContains(t, b.Mux().Protocols(), testTag)
		requireNoStreams(t, testTag, a, b)
	})
}

// Row: P3, D19.
// Claim: peerlane.ErrInUse
func TestASecondListenOnATagIsRefused(t *testing.T) {
	h, other := testHost(t), testHost(t)
	first := mustListen(t, h, testTag, ListenConfig{})
	_, err := Listen(h, testTag)
	require.ErrorIs(t, err, ErrInUse)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "listen", op.Op)
	require.ErrorContains(t, err, string(testTag))

	mustListen(t, h, "/another", ListenConfig{})
	mustListen(t, other, testTag, ListenConfig{})
	connPair(t, h, first) // the first one still serves
	require.NoError(t, first.Close())
	mustListen(t, h, testTag, ListenConfig{})
}

// Row: D19. Whoever set it, a handler is not taken over.
func TestListenDoesNotReplaceAForeignHandler(t *testing.T) {
	h := testHost(t)
	foreign, err := gostream.Listen(h, testTag)
	require.NoError(t, err)
	_, err = Listen(h, testTag)
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, foreign.Close())
	mustListen(t, h, testTag, ListenConfig{})
}

// Row: D19.
func TestCloseRemovesOnlyItsOwnHandler(t *testing.T) {
	a, b := testnet.Pair(t, testnet.QUIC)
	first := mustListen(t, b, testTag, ListenConfig{})
	require.NoError(t, first.Close())
	second := mustListen(t, b, testTag, ListenConfig{})
	require.NoError(t, first.Close())
	connPair(t, a, second)
}

// Row: P3, D20.
func TestAcceptAfterCloseIsErrClosedAlways(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		errs := make(chan error, 2)
		for range cap(errs) {
			go func() { _, err := l.Accept(); errs <- err }()
		}
		waitBlocked(t, "(*Listener).Accept", cap(errs))
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		for range cap(errs) {
			require.ErrorIs(t, within(t, patience, "Accept", func() error { return <-errs }), net.ErrClosed)
		}
		for range 20 {
			_, err := l.Accept()
			require.ErrorIs(t, err, net.ErrClosed)
			var op *net.OpError
			require.ErrorAs(t, err, &op)
			require.Equal(t, "accept", op.Op)
		}
		_, err := Dial(testContext(t), a, b.ID(), testTag)
		require.ErrorIs(t, err, ErrNotServed)
	})
}

// Claim: peerlane.ErrGoingAway
func TestCloseResetsTheConnsThatNobodyAccepted(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		l := mustListen(t, b, testTag, ListenConfig{})
		var pending []net.Conn
		for range 3 {
			c, err := Dial(testContext(t), a, b.ID(), testTag)
			require.NoError(t, err)
			pending = append(pending, c)
		}
		require.Eventually(t, func() bool { return l.Stats().Pending == 3 }, patience, time.Millisecond)
		require.NoError(t, l.Close())
		for _, c := range pending {
			require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
			_, err := c.Read(make([]byte, 1))
			require.ErrorIs(t, err, ErrGoingAway)
			require.ErrorIs(t, err, syscall.ECONNRESET)
			require.NoError(t, c.Close())
		}
		_, err := l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		requireNoStreams(t, testTag, a, b)
	})
}

// dialBeyond dials a listener whose backlog is full, and returns the error wherever it shows.
func dialBeyond(t *testing.T, a host.Host, l *Listener) error {
	t.Helper()
	c, err := Dial(testContext(t), a, l.host.ID(), l.tag)
	if err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	require.NoError(t, c.Close())
	return err
}

// Row: D23, U4.
// Claim: peerlane.ListenConfig.Backlog, peerlane.ListenerStats.Pending, peerlane.ListenerStats.Refused
func TestTheBacklogIsBoundedAndTheRestIsRefusedWithACode(t *testing.T) {
	onEach(t, everyPath(), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		const backlog, beyond = 5, 60
		l := mustListen(t, b, testTag, ListenConfig{Backlog: backlog})
		var kept []net.Conn
		for range backlog {
			c, err := Dial(testContext(t), a, b.ID(), testTag)
			require.NoError(t, err)
			kept = append(kept, c)
		}
		require.Eventually(t, func() bool { return l.Stats().Pending == backlog }, patience, time.Millisecond)
		before := runtime.NumGoroutine()
		for range beyond {
			err := dialBeyond(t, a, l)
			require.ErrorIs(t, err, ErrUnavailable)
			var typed *Error
			require.ErrorAs(t, err, &typed)
			require.True(t, typed.Remote)
			require.Equal(t, codes.Unavailable, typed.Code)
			require.Equal(t, session.Rejected, typed.Outcome)
		}
		require.Equal(t, ListenerStats{Pending: backlog, Refused: beyond}, l.Stats())
		require.Eventually(t, func() bool { return runtime.NumGoroutine() < before+beyond/2 }, patience, time.Millisecond)

		for _, c := range kept { // what was within the backlog is served
			far, err := l.Accept()
			require.NoError(t, err)
			_, _ = far.Close(), c.Close()
		}
		connPair(t, a, l) // and there is room again
	})
}

// Claim: peerlane.ListenConfig.Backlog
func TestDefaultBacklogHoldsThatMany(t *testing.T) {
	h := testHost(t)
	l := mustListen(t, h, testTag, ListenConfig{})
	for range defaultBacklog {
		c, err := Dial(t.Context(), h, h.ID(), testTag)
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
	}
	require.ErrorIs(t, dialBeyond(t, h, l), ErrUnavailable)
}

func TestListenNamesTheInvalidArgument(t *testing.T) {
	h := testHost(t)
	for want, listen := range map[string]func() error{
		"host: nil":   func() error { _, err := Listen(nil, testTag); return err },
		"tag: empty":  func() error { _, err := Listen(h, ""); return err },
		"tag: \"na\"": func() error { _, err := Listen(h, "na"); return err },
		"ListenConfig.Backlog: -1 is not within 0 to 1048576": func() error { _, err := ListenConfig{Backlog: -1}.Listen(h, testTag); return err },
	} {
		err := listen()
		require.ErrorIs(t, err, ErrInvalid, want)
		require.ErrorContains(t, err, want)
	}
}

func TestNoRegistryRowOutlivesItsListener(t *testing.T) {
	h := testHost(t)
	a := mustListen(t, h, "/a", ListenConfig{})
	b := mustListen(t, h, "/b", ListenConfig{})
	rows := func() int {
		served.Lock()
		defer served.Unlock()
		return len(served.byHost[h.Network()])
	}
	require.Equal(t, 2, rows())
	require.NoError(t, a.Close())
	require.Equal(t, 1, rows())
	require.NoError(t, b.Close())
	served.Lock()
	defer served.Unlock()
	require.NotContains(t, served.byHost, h.Network())
}

// A stream that libp2p was handing over when the listener closed must not stay with it.
func TestAStreamThatComesDuringCloseIsReset(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	l := mustListen(t, b, testTag, ListenConfig{})
	require.NoError(t, l.Close())
	b.SetStreamHandler(testTag, l.handle)
	require.NoError(t, a.Connect(testContext(t), peer.AddrInfo{ID: b.ID()}))
	require.ErrorIs(t, dialBeyond(t, a, l), ErrGoingAway)
	b.RemoveStreamHandler(testTag)
	requireNoStreams(t, testTag, a, b)
}
