package peerlane

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/oldpeer"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/session"
)

// Row: P16, D24
// Claim: peerlane.ConnectionInfo.BytesIn, peerlane.ConnectionInfo.BytesOut, peerlane.ConnectionInfo.IdleTime
// Claim: peerlane.ConnectionInfo.InFlight, peerlane.ConnectionInfo.LastActive, peerlane.ConnectionInfo.Path
// Claim: peerlane.ConnectionInfo.Peer, peerlane.ConnectionInfo.RTT, peerlane.ConnectionInfo.RemoteAddr
// Claim: peerlane.ConnectionInfo.Requests, peerlane.ConnectionInfo.Sealed, peerlane.ConnectionInfo.Streams
// Claim: peerlane.ConnectionInfo.Tag
func TestConnectionsInfoShowsWhatIsOpenOnBothSides(t *testing.T) {
	onEach(t, testnet.All(), func(t *testing.T, a, b host.Host, tr testnet.Transport) {
		stuck := newStuckHandler(t)
		s := newServer(t, b, nil)
		require.NoError(t, s.Handle(callTag, stuck.handle))
		c := newClient(t, a, &ClientConfig{Path: AllowRelay})
		require.Empty(t, s.GetConnectionsInfo())
		require.Empty(t, c.GetConnectionsInfo())
		done := sendAsync(t.Context(), c, b, noise(10000))
		await(t, stuck.entered, "the call")
		transport := map[testnet.Transport]string{testnet.QUIC: "quic-v1", testnet.WebSocket: "ws"}[tr]
		if transport == "" {
			transport = "tcp"
		}
		for _, side := range []struct {
			of       interface{ GetConnectionsInfo() []ConnectionInfo }
			other    host.Host
			in, out  uint64
			relayed  bool
			inFlight int
		}{{of: s, other: a, in: 10000}, {of: c, other: b, out: 10000}} {
			info := side.of.GetConnectionsInfo()
			require.Len(t, info, 1)
			v := info[0]
			require.Equal(t, side.other.ID(), v.Peer)
			require.Equal(t, side.other.ID().String(), v.RemoteAddr)
			require.Equal(t, callTag, v.Tag)
			require.Equal(t, tr == testnet.Relay, v.Path.Relayed)
			require.Equal(t, transport, v.Path.Transport)
			require.GreaterOrEqual(t, v.BytesIn, side.in)
			require.GreaterOrEqual(t, v.BytesOut, side.out)
			require.Less(t, v.BytesIn+v.BytesOut, uint64(11000))
			require.EqualValues(t, 1, v.Requests)
			require.Equal(t, 1, v.InFlight)
			require.Zero(t, v.Streams)
			require.False(t, v.Legacy || v.Sealed)
			require.WithinDuration(t, time.Now(), v.LastActive, patience)
			require.GreaterOrEqual(t, v.IdleTime, time.Duration(0))
		}
		close(stuck.release)
		require.NoError(t, await(t, done, "the call"))
		require.Eventually(t, func() bool {
			v := c.GetConnectionsInfo()[0]
			return v.RTT > 0 && v.InFlight == 0 && v.BytesIn >= 10000 && v.Requests == 1
		}, patience, time.Millisecond)
		require.Eventually(t, func() bool { return s.GetConnectionsInfo()[0].InFlight == 0 }, patience, time.Millisecond)
		require.NoError(t, c.Close())
		require.Empty(t, c.GetConnectionsInfo())
		waitInfo(t, s, 0)
	})
}

func TestConnectionsInfoCountsStreamsAndIdleTime(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s, c := newServer(t, b, &ServerConfig{AdmitAll: true}), newClient(t, a, &ClientConfig{AdmitAll: true})
	over := make(chan struct{})
	s.SetStream("x", func(*session.Stream) { <-over })
	require.NoError(t, s.Listen(callTag))
	own, err := c.Connect(t.Context(), b.ID(), callTag)
	require.NoError(t, err)
	for n := range 3 {
		_, err := own.OpenStream(t.Context(), "x", nil)
		require.NoError(t, err)
		require.Equal(t, n+1, c.GetConnectionsInfo()[0].Streams)
		require.Equal(t, n+1, s.GetConnectionsInfo()[0].Streams)
	}
	last := c.GetConnectionsInfo()[0].LastActive
	require.Eventually(t, func() bool { return c.GetConnectionsInfo()[0].IdleTime >= 10*time.Millisecond }, patience, time.Millisecond)
	require.Equal(t, last, c.GetConnectionsInfo()[0].LastActive, "nothing of the application's has moved")
	close(over)
	require.NoError(t, own.Close())
}

// Row: P16, D24: an old peer's call is listed while it is served, and not afterwards.
// Claim: peerlane.ConnectionInfo.Legacy
func TestConnectionsInfoShowsOldPeersCallsWhileTheyLast(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	stuck := newStuckHandler(t)
	s := newServer(t, b, nil)
	require.NoError(t, s.Handle(callTag, stuck.handle))
	old := &oldpeer.Client{Host: a}
	answered := make(chan error, 1)
	go func() {
		_, err := old.Send(t.Context(), b.ID(), callTag, noise(1000))
		answered <- err
	}()
	await(t, stuck.entered, "the call")
	info := s.GetConnectionsInfo()
	require.Len(t, info, 1)
	v := info[0]
	require.True(t, v.Legacy)
	require.Equal(t, a.ID(), v.Peer)
	require.Equal(t, a.ID().String(), v.RemoteAddr)
	require.Equal(t, callTag, v.Tag)
	require.Equal(t, "tcp", v.Path.Transport)
	require.EqualValues(t, 1004, v.BytesIn)
	require.Zero(t, v.BytesOut)
	require.EqualValues(t, 1, v.Requests)
	require.Equal(t, 1, v.InFlight)
	close(stuck.release)
	require.NoError(t, await(t, answered, "the call"))
	for range 11 {
		_, err := old.Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err)
	}
	waitInfo(t, s, 0) // pointsub's listed twelve active calls after twelve finished ones
}
