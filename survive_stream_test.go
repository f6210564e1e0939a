package peerlane

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// outlasting opens dedicated streams that outlive their connections.
var outlasting = &session.StreamOptions{Dedicated: true, Resumable: true}

// An echoing is a dedicated stream that outlives its connections, with everything that is written to it on its way back.
type echoing struct {
	t              *testing.T
	st             *session.Stream
	stop           chan struct{}
	running        sync.WaitGroup
	back           atomic.Uint64
	sent, received hash.Hash
	writeErr       error
	readErr        error
}

// startEchoing opens the stream, whose handler copies back.
func startEchoing(t *testing.T, s *session.Session) *echoing {
	t.Helper()
	e := &echoing{t: t, stop: make(chan struct{}), sent: sha256.New(), received: sha256.New()}
	var err error
	e.st, err = s.OpenStream(testContext(t), "echo", outlasting)
	require.NoError(t, err)
	e.running.Go(func() {
		block := noise(32 << 10)
		for {
			select {
			case <-e.stop:
				e.writeErr = e.st.CloseWrite()
				return
			default:
			}
			e.sent.Write(block)
			if _, e.writeErr = e.st.Write(block); e.writeErr != nil {
				return
			}
		}
	})
	e.running.Go(func() { _, e.readErr = io.Copy(io.MultiWriter(e.received, counter{&e.back}), e.st) })
	return e
}

// progress waits until n bytes more have come back.
func (e *echoing) progress(n uint64) {
	e.t.Helper()
	want := e.back.Load() + n
	require.Eventually(e.t, func() bool { return e.back.Load() >= want }, patience, time.Millisecond, "the stream stands still")
}

// finish ends the stream and checks that it brought back what was written.
func (e *echoing) finish() {
	e.t.Helper()
	close(e.stop)
	require.NoError(e.t, within(e.t, patience, "the stream", func() error { e.running.Wait(); return nil }))
	require.NoError(e.t, e.writeErr)
	require.NoError(e.t, e.readErr)
	require.Equal(e.t, e.sent.Sum(nil), e.received.Sum(nil), "the stream's hash")
	require.NoError(e.t, e.st.Close())
}

// serveEchoing makes a server copy the stream back.
func serveEchoing(t *testing.T, s *Server) {
	t.Helper()
	s.SetStream("echo", func(st *session.Stream) {
		_, _ = io.Copy(st, st)
		_ = st.CloseWrite()
	})
	require.NoError(t, s.Start(callTag, echoHandler))
}

// Row: S5, S6, N4: a dedicated stream that is resumable outlives the connections that are cut under it.
func TestSurviveCutsUnderADedicatedStream(t *testing.T) {
	const cuts = 6 // a host takes no more than 8 connections of one peer, and keeps a silent one of QUIC for 30 s
	t.Parallel()
	onProxied(t, func(t *testing.T, a, b host.Host, f faultnet.Fault, tr testnet.Transport) {
		clientCfg, serverCfg := lastingReal()
		if tr == testnet.QUIC { // nobody but the heartbeat sees a cut
			clientCfg.Heartbeat, serverCfg.Heartbeat = quick, quick
		}
		clientCfg.ReplayWindow, serverCfg.ReplayWindow = 128<<10, 128<<10
		log := newStepLog()
		clientCfg.OnState = log.note
		serveEchoing(t, newServer(t, b, serverCfg))
		s := connectQuick(t, newClient(t, a, clientCfg), b)
		e := startEchoing(t, s)
		began := time.Now()
		for i := range cuts {
			e.progress(200 << 10)
			f.Cut()
			log.await(t, session.StateResumed, i+1)
		}
		e.progress(200 << 10)
		took := time.Since(began)
		e.finish()
		t.Logf("%d cuts in %v, %d bytes, %d connections", cuts, took, e.back.Load(), len(b.Network().ConnsToPeer(a.ID())))
	})
}

// Row: N16: what this side resets a resumable stream with is what the other side learns, on every transport.
func TestTheResetOfAResumableStreamCrossesTheNetwork(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, &ServerConfig{AdmitAll: true})
		got := make(chan error, 1)
		s.SetStream("listens", func(st *session.Stream) {
			_, err := io.Copy(io.Discard, st)
			got <- err
		})
		s.SetStream("resets", func(st *session.Stream) {
			_, _ = st.Read(make([]byte, 1))
			_ = st.Reset(4711)
		})
		require.NoError(t, s.Listen(callTag))
		own, err := newClient(t, a, &ClientConfig{AdmitAll: true}).Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		requireReset := func(err error) {
			t.Helper()
			var e *Error
			require.ErrorAs(t, err, &e)
			require.True(t, e.Remote, "%v", err)
			require.EqualValues(t, 4711, e.Code, "%v", err)
		}
		st, err := own.OpenStream(testContext(t), "listens", outlasting)
		require.NoError(t, err)
		_, err = st.Write(bytes.Repeat([]byte("x"), 1000))
		require.NoError(t, err)
		require.NoError(t, st.Reset(4711))
		requireReset(await(t, got, "the reset"))
		st, err = own.OpenStream(testContext(t), "resets", outlasting)
		require.NoError(t, err)
		_, err = st.Write([]byte("x"))
		require.NoError(t, err)
		_, err = st.Read(make([]byte, 1))
		requireReset(err)
	})
}

// Row: S6, N13: a dedicated stream that is resumable is not bound to what a relay lets through.
func TestSurviveALimitedRelayUnderADedicatedStream(t *testing.T) {
	t.Parallel()
	a, b, _ := testnet.RelayedPair(t, relay.DefaultLimit())
	clientCfg, serverCfg := lasting()
	clientCfg.Heartbeat, serverCfg.Heartbeat = time.Second, time.Second
	serveEchoing(t, newServer(t, b, serverCfg))
	s, err := newClient(t, a, clientCfg).Connect(testContext(t), b.ID(), callTag)
	require.NoError(t, err)
	require.True(t, PathOf(s).Relayed)
	e := startEchoing(t, s)
	e.progress(uint64(4 * relay.DefaultLimit().Data))
	e.finish()
	t.Logf("%d bytes over circuits of %d, %d resumes", e.back.Load(), relay.DefaultLimit().Data, s.Snapshot().Resumes)
}

// streamsOver returns how many streams of a tag's sessions host h has with a peer on relayed, or on direct, connections.
func streamsOver(h host.Host, pid peer.ID, relayed bool) int {
	n := 0
	for _, c := range h.Network().ConnsToPeer(pid) {
		for _, s := range c.GetStreams() {
			if pathOf(c).Relayed == relayed && s.Protocol() == sessionTag(callTag) {
				n++
			}
		}
	}
	return n
}

// Row: N18, S6: a dedicated stream that is resumable follows its session to a direct path, and back to the relay.
func TestADedicatedStreamFollowsItsSessionToADirectPathAndBack(t *testing.T) {
	t.Parallel()
	a, b, _ := testnet.RelayedPair(t, &relay.RelayLimit{Duration: time.Hour, Data: 1 << 30}) // no cut comes first
	clientCfg, serverCfg := lasting()
	clientCfg.Heartbeat, serverCfg.Heartbeat = time.Second, time.Second
	serveEchoing(t, newServer(t, b, serverCfg))
	s, err := newClient(t, a, clientCfg).Connect(testContext(t), b.ID(), callTag)
	require.NoError(t, err)
	e := startEchoing(t, s)
	e.progress(200 << 10)
	require.Equal(t, 2, streamsOver(a, b.ID(), true))
	peerlanetest.OpenDirect(t, a, b)
	require.Eventually(t, func() bool {
		return streamsOver(a, b.ID(), true) == 0 && streamsOver(a, b.ID(), false) == 2
	}, patience, time.Millisecond)
	e.progress(1 << 20)
	require.EqualValues(t, 1, s.Snapshot().Migrations)
	peerlanetest.CloseDirect(t, a, b)
	e.progress(200 << 10)
	require.Eventually(t, func() bool { return streamsOver(a, b.ID(), true) == 2 }, patience, time.Millisecond)
	e.finish()
}
