package peerlane

import (
	"context"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
)

// A connection is given up only when nothing of ours moves on it and no ping is answered.
func TestAConnectionLivesWhileAnythingMovesOrAPingIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond})
		lives(t, hosts.Alice, hosts.Bob, hosts.Network)
	})
}

func TestAConnectionOverTCPLivesWhileAnythingMovesOrAPingIsAnswered(t *testing.T) {
	t.Parallel() // it waits for real
	a, b, fault := testnet.Proxied(t, testnet.TCPNoise)
	lives(t, a, b, fault)
}

// A freezer is a network that holds what is on its way.
type freezer interface {
	Freeze()
	Thaw()
}

// lives checks what areAlive says of the connection from a to b over a network.
func lives(t *testing.T, a, b host.Host, fault freezer) {
	t.Helper()
	const wait = 2 * time.Second // enough for a ping on loopback at any load that the tests bear
	l, err := Listen(b, "/traffic/1")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	conn, err := Dial(t.Context(), a, b.ID(), "/traffic/1")
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	conns := a.Network().ConnsToPeer(b.ID())
	require.Len(t, conns, 1)

	require.True(t, areAlive(t.Context(), conns, wait), "a ping is answered")
	fault.Freeze()
	require.False(t, areAlive(t.Context(), conns, wait), "nothing moves")
	moving := time.AfterFunc(wait/2, func() { trafficOn(conns[0]).move(time.Now()) })
	defer moving.Stop()
	require.True(t, areAlive(t.Context(), conns, wait), "something of ours moves")
	ended, end := context.WithCancel(t.Context())
	end()
	require.False(t, areAlive(ended, conns, time.Hour))
	fault.Thaw()
}

func TestAnAttemptEndsWithItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond})
		require.NoError(t, hosts.Alice.Connect(t.Context(), peer.AddrInfo{ID: hosts.Bob.ID()}))
		conns := hosts.Alice.Network().ConnsToPeer(hosts.Bob.ID())
		alive, stop := whileAlive(t.Context(), conns, time.Second)
		require.False(t, stop(), "it was ended before")
		<-alive.Done()
		hosts.Freeze()
		alive, stop = whileAlive(t.Context(), conns, time.Second)
		<-alive.Done()
		require.ErrorIs(t, context.Cause(alive), errSilentConn)
		require.True(t, stop())
		hosts.Thaw()
	})
}

// What comes on any conn of a connection is seen by the carriers on it, and counts as unanswered unless it is a carrier's own.
func TestTrafficIsThatOfAConnection(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPNoise)
	l, err := Listen(b, "/traffic/1")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	dialed, err := Dial(t.Context(), a, b.ID(), "/traffic/1")
	require.NoError(t, err)
	second, err := Dial(t.Context(), a, b.ID(), "/traffic/1")
	require.NoError(t, err)
	_, err = dialed.Write([]byte("hello"))
	require.NoError(t, err)
	_, err = second.Write([]byte("you"))
	require.NoError(t, err)
	read := func(n int) *Conn {
		c, err := l.Accept()
		require.NoError(t, err)
		_, err = io.ReadFull(c, make([]byte, n))
		require.NoError(t, err)
		return c.(*Conn)
	}
	before := time.Now()
	first, other := read(1), read(1)
	k := newCarrier(first, nil, b)
	require.EqualValues(t, 2, k.Unanswered())
	require.False(t, k.Moved().Before(before))
	rest, err := k.Read(make([]byte, 10))
	require.NoError(t, err)
	require.EqualValues(t, 2, k.Unanswered(), "a session says so itself")
	require.Positive(t, rest)
	under := first.under
	for _, c := range []io.Closer{dialed, second, k, other} {
		require.NoError(t, c.Close())
	}
	require.Same(t, trafficOn(under), first.traffic)
	require.Eventually(t, func() bool {
		runtime.GC()
		traffics.Lock()
		defer traffics.Unlock()
		_, kept := traffics.of[under]
		return !kept
	}, 20*time.Second, 50*time.Millisecond, "nothing of ours is on it")
}

func TestASlicerFindsWhatTakesHalfASecond(t *testing.T) {
	var s slicer
	require.Equal(t, 10, s.next(10))
	require.Equal(t, firstSlice, s.next(1<<20))
	for range 100 {
		s.took(s.next(8<<20), 0)
	}
	require.Equal(t, mostSlice, s.next(8<<20))
	s.took(mostSlice, 8*time.Second)
	require.Equal(t, mostSlice/16, s.next(8<<20))
	s.took(mostSlice/16, 300*time.Millisecond)
	require.Equal(t, mostSlice/16, s.next(8<<20), "that is what it should take")
	s.took(mostSlice/16, time.Hour)
	require.Equal(t, leastSlice, s.next(8<<20))
	s.took(1, 0)
	require.Equal(t, leastSlice, s.next(8<<20), "a byte says nothing")
}
