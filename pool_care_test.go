package peerlane

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// dialEachOther gives two hosts two connections, as they get when both dial at the same time. It returns the two as a sees them.
func dialEachOther(t *testing.T, a, b host.Host) [2]network.Conn {
	t.Helper()
	dialed := make(chan error, 1)
	go func() { dialed <- b.Connect(testContext(t), peer.AddrInfo{ID: a.ID(), Addrs: a.Addrs()}) }()
	require.NoError(t, a.Connect(testContext(t), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}))
	require.NoError(t, <-dialed)
	require.Eventually(t, func() bool {
		return len(a.Network().ConnsToPeer(b.ID())) == 2 && len(b.Network().ConnsToPeer(a.ID())) == 2
	}, patience, 10*time.Millisecond)
	conns := a.Network().ConnsToPeer(b.ID())
	return [2]network.Conn{conns[0], conns[1]}
}

// A landscape says how far away connections lead, in place of what pings would measure.
type landscape struct {
	mu    sync.Mutex
	rtts  map[network.Conn]time.Duration // negative: no answer
	pings int
}

func (l *landscape) set(c network.Conn, rtt time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rtts[c] = rtt
}

// pinged returns how many pings there were.
func (l *landscape) pinged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pings
}

func (l *landscape) ping(ctx context.Context, c network.Conn) bool {
	l.mu.Lock()
	rtt := l.rtts[c]
	l.pings++
	l.mu.Unlock()
	if rtt < 0 {
		<-ctx.Done()
		return false
	}
	time.Sleep(rtt)
	return ctx.Err() == nil
}

// A journey is a session between two hosts with two connections, on which messages are sent all the time.
type journey struct {
	*landscape
	s      *session.Session
	client *Client
	convoy *convoy
	conns  [2]network.Conn
	paths  chan Path
	sent   chan int
	stop   func()
}

// often is how soon a message follows the one before on a journey, and seldom on one that takes half an hour.
const (
	often  = 200 * time.Millisecond
	seldom = 2 * time.Second
)

// travel begins a journey with a message and a heartbeat of both sides every so often.
func travel(t *testing.T, every time.Duration) *journey {
	h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: 10 * time.Millisecond})
	j := &journey{landscape: &landscape{rtts: make(map[network.Conn]time.Duration)}, paths: make(chan Path, 1000), sent: make(chan int, 1)}
	stop := make(chan struct{})
	j.stop = sync.OnceFunc(func() { close(stop) })
	t.Cleanup(func() { j.stop() })
	clientCfg, serverCfg := lasting()
	clientCfg.Heartbeat, serverCfg.Heartbeat = every, every
	clientCfg.OnPath = func(_ *session.Session, p Path) { j.paths <- p }
	server := newServer(t, h.Bob, serverCfg)
	require.NoError(t, server.Start(callTag, echoHandler))
	server.SetStream("hold", func(st *session.Stream) { _, _ = st.Read(make([]byte, 1)) })
	j.convoy = serveConvoy(t, server, 1000)
	j.client = newClient(t, h.Alice, clientCfg)
	j.client.pool.cares.ping = j.ping
	j.conns = dialEachOther(t, h.Alice, h.Bob)
	for _, c := range j.conns {
		j.set(c, 50*time.Millisecond)
	}
	var err error
	j.s, err = j.client.Connect(t.Context(), h.Bob.ID(), callTag)
	require.NoError(t, err)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				j.sent <- n
				return
			case <-time.After(every):
			}
			if err := j.convoy.send(j.s, n, n+1); err != nil {
				t.Error(err)
			}
		}
	}()
	return j
}

// on returns which of the two connections the session is on.
func (j *journey) on() int {
	for i, c := range j.conns {
		if j.s.Conn().(*carrier).under == c {
			return i
		}
	}
	return -1
}

// arrive ends the messages, and checks that each has come once and in order, on one session.
func (j *journey) arrive(t *testing.T) {
	t.Helper()
	j.stop()
	n := <-j.sent
	require.NoError(t, j.s.Flush(t.Context()))
	j.convoy.requireWhole(n)
	require.NoError(t, j.s.Err())
}

// A session and its new streams use the connection with the shorter round trip, and the move loses nothing.
// Claim: peerlane.ClientConfig.OnPath
func TestASessionMovesToTheBetterOfTwoConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := travel(t, often)
		first := j.on()
		time.Sleep(time.Minute)
		require.Equal(t, first, j.on(), "both are equal")
		require.Zero(t, j.s.Snapshot().Migrations)
		j.set(j.conns[1-first], 10*time.Millisecond)
		time.Sleep(2 * time.Minute)
		require.Equal(t, 1-first, j.on())
		require.EqualValues(t, 1, j.s.Snapshot().Migrations)
		require.Zero(t, j.s.Snapshot().Resumes)
		streams := len(j.conns[1-first].GetStreams())
		own, err := j.s.OpenStream(t.Context(), "hold", &session.StreamOptions{Dedicated: true})
		require.NoError(t, err)
		require.Len(t, j.conns[1-first].GetStreams(), streams+1, "what is opened now goes with the session")
		require.NoError(t, own.Close())
		j.arrive(t)
		require.Len(t, j.paths, 2)
	})
}

// Two connections that are better by turns do not make a session go to and fro.
func TestASessionDoesNotFollowTwoConnectionsThatAlternate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := travel(t, seldom)
		for i := range 30 {
			j.set(j.conns[i%2], 10*time.Millisecond)
			j.set(j.conns[1-i%2], 60*time.Millisecond)
			time.Sleep(time.Minute)
		}
		require.LessOrEqual(t, j.s.Snapshot().Migrations, uint64(8))
		j.arrive(t)
	})
}

// A session whose connection is no longer alive goes to the one that answers.
func TestASessionLeavesADeadConnectionForALiveOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := travel(t, often)
		time.Sleep(10 * time.Second)
		first := j.on()
		j.set(j.conns[first], -1)
		_ = j.conns[first].Close()
		synctest.Wait()
		time.Sleep(10 * time.Second)
		require.Equal(t, 1-first, j.on())
		j.arrive(t)
	})
}

// So does one that has lost its carrier while the connection seems to be there.
func TestALostSessionTakesTheConnectionThatAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := travel(t, often)
		time.Sleep(10 * time.Second)
		for range 3 {
			first := j.on()
			j.set(j.conns[first], -1)
			j.set(j.conns[1-first], 10*time.Millisecond)
			require.NoError(t, j.s.Conn().(*carrier).Reset(codes.Cancelled))
			time.Sleep(5 * time.Second)
			require.Equal(t, 1-first, j.on())
		}
		require.EqualValues(t, 3, j.s.Snapshot().Resumes)
		j.arrive(t)
	})
}

// A connection that answers no ping is left, also if the session on it is alive.
func TestASessionLeavesAConnectionThatAnswersNoPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := travel(t, often)
		time.Sleep(10 * time.Second)
		first := j.on()
		j.set(j.conns[first], -1)
		time.Sleep(2 * careProbes * careEvery)
		require.Equal(t, 1-first, j.on())
		require.EqualValues(t, 1, j.s.Snapshot().Migrations)
		j.arrive(t)
	})
}

// Nothing is measured where there is nothing to choose, and hardly anything where there is.
func TestCareIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := travel(t, seldom)
		time.Sleep(time.Hour / 4)
		require.InDelta(t, 2*time.Hour/4/careEvery, j.pinged(), 10)
		_ = j.conns[1-j.on()].Close()
		time.Sleep(time.Minute)
		before := j.pinged()
		time.Sleep(time.Hour / 4)
		require.Equal(t, before, j.pinged())
		require.Nil(t, j.client.pool.chosen(j.conns[0].RemotePeer()))
		j.arrive(t)
	})
}

// With real pings, the round trip of a path is that of the network.
// Claim: peerlane.Path.RTT
func TestPathsAreMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 10 * time.Millisecond
		h := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: delay})
		require.Empty(t, Paths(h.Alice, h.Bob.ID()))
		clientCfg, serverCfg := lasting()
		require.NoError(t, newServer(t, h.Bob, serverCfg).Start(callTag, echoHandler))
		c := newClient(t, h.Alice, clientCfg)
		dialEachOther(t, h.Alice, h.Bob)
		s, err := c.Connect(t.Context(), h.Bob.ID(), callTag)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		paths := Paths(h.Alice, h.Bob.ID())
		require.Len(t, paths, 2)
		for _, p := range append(paths, PathOf(s)) {
			require.InDelta(t, 2*delay, p.RTT, float64(delay/10))
			require.Equal(t, "direct, quic-v1, 20 ms", p.String())
		}
		require.Positive(t, s.RTT())
	})
}

// Of very many connections a few are measured: the one in use, and the oldest.
func TestCareIsBounded(t *testing.T) {
	at := time.Now()
	conns := make([]network.Conn, 100)
	for i := range conns {
		conns[i] = &agedConn{opened: at.Add(time.Duration(i) * time.Second)}
	}
	all := slices.Clone(conns)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	require.Equal(t, append([]network.Conn{conns[50]}, conns[:careMost-1]...), atMost(slices.Clone(all), conns[50]))
	require.Equal(t, conns[:careMost], atMost(slices.Clone(all), nil))
	require.Equal(t, all[:careMost], atMost(all[:careMost], conns[50]))
}

// agedConn is a connection that has an age, and nothing else.
type agedConn struct {
	network.Conn
	opened time.Time
}

func (c *agedConn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Opened: c.opened}}
}

// Over real sockets: a session leaves QUIC with a long round trip for TCP with a short one within seconds, and its messages arrive once and in
// order.
func TestASessionGoesFromAFarConnectionToANearOne(t *testing.T) {
	t.Parallel() // it waits for real
	open := func() host.Host {
		return testnet.Host(t, testnet.TCPTLS, libp2p.Transport(quic.NewTransport), libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"),
			libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return nil }))
	}
	a, b := open(), open()
	addrOf := func(h host.Host, proto int) ma.Multiaddr {
		all := h.Network().ListenAddresses()
		return all[slices.IndexFunc(all, func(a ma.Multiaddr) bool { _, err := a.ValueForProtocol(proto); return err == nil })]
	}
	port, err := addrOf(b, ma.P_UDP).ValueForProtocol(ma.P_UDP)
	require.NoError(t, err)
	far := faultnet.UDPProxy(t, "127.0.0.1:"+port)
	far.Freeze() // so that both dial before either is connected
	_, port, err = net.SplitHostPort(far.Addr())
	require.NoError(t, err)
	dialed := make(chan error, 1)
	go func() {
		at := ma.StringCast("/ip4/127.0.0.1/udp/" + port + "/quic-v1")
		dialed <- a.Connect(testContext(t), peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{at}})
	}()
	require.Eventually(t, func() bool { return far.Flows() > 0 }, patience, time.Millisecond)
	require.NoError(t, b.Connect(testContext(t), peer.AddrInfo{ID: a.ID(), Addrs: []ma.Multiaddr{addrOf(a, ma.P_TCP)}}))
	far.SetDelay(40 * time.Millisecond)
	far.Thaw()
	require.NoError(t, <-dialed)
	require.Eventually(t, func() bool { return len(Paths(a, b.ID())) == 2 }, patience, time.Millisecond)

	clientCfg, serverCfg := lasting()
	server := newServer(t, b, serverCfg)
	require.NoError(t, server.Start(callTag, echoHandler))
	convoy := serveConvoy(t, server, 1000)
	s, err := newClient(t, a, clientCfg).Connect(testContext(t), b.ID(), callTag)
	require.NoError(t, err)
	sent, began := 0, time.Now()
	var paths []Path
	arrived := func() bool { // the near one may look far on a busy machine, until it is measured again
		paths = Paths(a, b.ID())
		return PathOf(s).Transport == "tcp" && len(paths) == 2 && paths[0].Transport == "tcp" && paths[1].RTT > 80*time.Millisecond
	}
	for ; !arrived(); sent++ {
		require.NoError(t, convoy.send(s, sent, sent+1))
		require.Less(t, time.Since(began), patience)
		time.Sleep(10 * time.Millisecond) // between messages
	}
	require.Equal(t, []string{"tcp", "quic-v1"}, []string{paths[0].Transport, paths[1].Transport})
	require.Less(t, paths[0].RTT, paths[1].RTT)
	require.NoError(t, s.Flush(testContext(t)))
	convoy.requireWhole(sent)
}
