package peerlane

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// A convoy is one-way messages of one size over one session, and what arrived of them.
type convoy struct {
	t    *testing.T
	size int

	mu    sync.Mutex
	next  uint64 // the number of the message that is to come
	wrong string // the first that came out of turn or changed
}

// serveConvoy makes a server take messages of a convoy.
func serveConvoy(t *testing.T, s *Server, size int) *convoy {
	l := &convoy{t: t, size: size}
	body := noise(size)
	s.SetLink("lane", func(m *session.Message) {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := binary.BigEndian.Uint64(m.Value)
		if l.wrong == "" && (n != l.next || string(m.Value[8:]) != string(body[8:])) {
			l.wrong = fmt.Sprintf("message %d in place %d, %d bytes", n, l.next, len(m.Value))
		}
		l.next++
	})
	return l
}

// send sends the messages from number first up to number end.
func (l *convoy) send(s *session.Session, first, end int) error {
	for n := first; n < end; n++ {
		body := noise(l.size)
		binary.BigEndian.PutUint64(body, uint64(n))
		if err := s.Send(l.t.Context(), "lane", body); err != nil {
			return err
		}
	}
	return nil
}

// arrived returns how many messages have come.
func (l *convoy) arrived() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.next)
}

// requireWhole checks that n messages have come, each once and in order.
func (l *convoy) requireWhole(n int) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(l.t, l.wrong)
	require.EqualValues(l.t, n, l.next)
}

// relayedSession returns a session from a to b over the relay, and the client and the server.
func relayedSession(
	t *testing.T, a, b host.Host, clientCfg *ClientConfig, serverCfg *ServerConfig,
) (*session.Session, *Client, *Server) {
	t.Helper()
	server := newServer(t, b, serverCfg)
	require.NoError(t, server.Start(callTag, echoHandler))
	c := newClient(t, a, clientCfg)
	s, err := c.Connect(testContext(t), b.ID(), callTag)
	require.NoError(t, err)
	require.True(t, PathOf(s).Relayed)
	return s, c, server
}

// relayedBytes is how much goes through a relay with libp2p's limits. `make nightly` sends 1 GiB, which is 65,536 messages.
var relayedBytes = flag.Int("survive.relayed", 8<<20, "bytes of messages through a relay with limits")

// Row: S6, N13: a relay with libp2p's own limits is enough for any amount, and nobody above the session sees its cuts.
func TestSurviveTheCutsOfALimitedRelay(t *testing.T) {
	const size = 16 << 10
	count := *relayedBytes / size
	t.Parallel()
	a, b, _ := testnet.RelayedPair(t, relay.DefaultLimit())
	clientCfg, serverCfg := lasting()
	clientCfg.Heartbeat, serverCfg.Heartbeat = time.Second, time.Second
	log := newStepLog()
	clientCfg.OnState = log.note
	undelivered := make(chan *Error, count)
	clientCfg.OnUndelivered = func(err *Error) { undelivered <- err }
	s, c, server := relayedSession(t, a, b, clientCfg, serverCfg)
	l := serveConvoy(t, server, size)
	began := time.Now()
	sent := make(chan error, 1)
	go func() { sent <- l.send(s, 0, count) }()
	calls, slowest := 0, [2]time.Duration{}
	for waiting := true; waiting; calls++ {
		select {
		case err := <-sent:
			require.NoError(t, err)
			waiting = false
		default:
		}
		for i, call := range []func() error{
			func() error { _, err := c.Send(t.Context(), b.ID(), callTag, []byte("x")); return err },
			func() error { _, err := s.Call(t.Context(), "", []byte("y")); return err },
		} {
			began := time.Now()
			require.NoError(t, call(), "call %d", calls)
			slowest[i] = max(slowest[i], time.Since(began))
		}
	}
	require.NoError(t, s.Flush(testContext(t)))
	took := time.Since(began)
	l.requireWhole(count)
	require.Empty(t, undelivered)
	require.Less(t, took, 3*patience+time.Duration(*relayedBytes)*time.Microsecond)
	v := s.Snapshot()
	require.GreaterOrEqual(t, v.Resumes, uint64(int64(size*count)/relay.DefaultLimit().Data))
	require.LessOrEqual(t, v.Resumes, uint64(2*int64(size*count)/relay.DefaultLimit().Data), "circuits that were left early")
	cut := cutByOthers(log)
	require.LessOrEqual(t, cut, 2+count/1000, "circuits that the relay has cut, and not this side before")
	t.Logf("%d bytes in %v: %d resumes, %d bytes a circuit, %d circuits cut by the relay, %d bytes sent again; "+
		"%d calls beside, the slowest took %v on a session of its own, %v on this one",
		size*count, took, v.Resumes, v.BytesOut/(v.Resumes+1), cut, v.Resent, calls, slowest[0], slowest[1])
}

// cutByOthers returns how many carriers have been lost otherwise than by this side's closing of the connection.
func cutByOthers(log *stepLog) int {
	n := 0
	changes, _ := log.all()
	for _, c := range changes {
		var closed *network.ConnError
		if c.State == session.StateDetached && !(errors.As(c.Err, &closed) && !closed.Remote) {
			n++
		}
	}
	return n
}

// Row: S6, N13: a request and an answer of many times what a circuit lets through.
func TestSurviveALimitedRelayWithLargeCalls(t *testing.T) {
	const total = 2 << 20
	t.Parallel()
	a, b, _ := testnet.RelayedPair(t, relay.DefaultLimit())
	clientCfg, serverCfg := lasting()
	log := newStepLog()
	clientCfg.OnState = log.note
	s, _, _ := relayedSession(t, a, b, clientCfg, serverCfg)
	began := time.Now()
	got, err := s.Call(t.Context(), "", noise(total))
	require.NoError(t, err)
	require.Equal(t, sha256.Sum256(noise(total)), sha256.Sum256(got))
	t.Logf("%d bytes there and back in %v: %d resumes, %d of them cut by the relay", total, time.Since(began),
		s.Snapshot().Resumes, cutByOthers(log))
}

// Row: S6, N13: a request and an answer over circuits into which the handshakes and little else fit.
func TestSurviveARelayThatLetsHardlyAnythingThrough(t *testing.T) {
	const total = 20 << 10
	synctest.Test(t, func(t *testing.T) {
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{
			Delay: time.Millisecond, Relayed: true, RelayLimit: &relay.RelayLimit{Duration: time.Hour, Data: 8 << 10},
		})
		clientCfg, serverCfg := lasting()
		s, _, _ := relayedSession(t, hosts.Alice, hosts.Bob, clientCfg, serverCfg)
		got, err := s.Call(t.Context(), "", noise(total))
		require.NoError(t, err)
		require.Equal(t, noise(total), got)
		t.Logf("%d resumes", s.Snapshot().Resumes)
	})
}

// A client that is closed while it leaves a circuit does not wait for that.
func TestAClientClosesAtOnceWhileACircuitIsLeft(t *testing.T) {
	procs.Alone(t)
	synctest.Test(t, func(t *testing.T) {
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{
			Delay: time.Millisecond, Relayed: true, RelayLimit: &relay.RelayLimit{Duration: time.Hour, Data: 128 << 10},
		})
		for size := 90 << 10; size < 100<<10; size += 1 << 10 { // the last of these spend what is left of a circuit
			clientCfg, serverCfg := lasting()
			s, c, server := relayedSession(t, hosts.Alice, hosts.Bob, clientCfg, serverCfg)
			_, err := s.Call(t.Context(), "", noise(size))
			require.NoError(t, err)
			began := time.Now()
			require.NoError(t, c.Close())
			require.Less(t, time.Since(began), quick, size)
			require.NoError(t, server.Stop())
			require.NoError(t, hosts.Alice.Network().ClosePeer(hosts.Bob.ID()))
			time.Sleep(time.Second)
		}
	})
}

// Row: N18, S6, S7: a session moves to a direct connection that comes, and back to the relay when that is lost.
func TestSurviveTheWayFromTheRelayToADirectPathAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, count = 16 << 10, 300
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{
			Delay: time.Millisecond, Relayed: true, RelayLimit: &relay.RelayLimit{Duration: time.Hour, Data: 1 << 30}, // no cut comes first
		})
		a, b := hosts.Alice, hosts.Bob
		clientCfg, serverCfg := lasting()
		s, _, server := relayedSession(t, a, b, clientCfg, serverCfg)
		l := serveConvoy(t, server, size)
		sent := make(chan error, 1)
		go func() { sent <- l.send(s, 0, count/3) }()
		require.Eventually(t, func() bool { return l.arrived() > count/10 }, patience, time.Millisecond)
		peerlanetest.OpenDirect(t, a, b)
		require.Eventually(t, func() bool { return !PathOf(s).Relayed }, patience, time.Millisecond)
		require.NoError(t, await(t, sent, "the first third"))
		v := s.Snapshot()
		require.EqualValues(t, 1, v.Migrations)
		require.Zero(t, v.Resumes)

		require.NoError(t, l.send(s, count/3, 2*count/3))
		require.NoError(t, s.Flush(testContext(t)))
		require.False(t, PathOf(s).Relayed)
		go func() { sent <- l.send(s, 2*count/3, count) }()
		peerlanetest.CloseDirect(t, a, b)
		require.NoError(t, await(t, sent, "the last third"))
		require.NoError(t, s.Flush(testContext(t)))
		require.Eventually(t, func() bool { return PathOf(s).Relayed }, patience, time.Millisecond)
		_, err := s.Call(t.Context(), "", nil)
		require.NoError(t, err)
		l.requireWhole(count)
		v = s.Snapshot()
		t.Logf("%d resumes, %d migrations", v.Resumes, v.Migrations)
	})
}

// Row: S6, N13: the relay's time is over again and again.
func TestSurviveARelayThatEndsEachConnectionSoon(t *testing.T) {
	const lasts = 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{
			Delay:      time.Millisecond,
			Relayed:    true,
			RelayLimit: &relay.RelayLimit{Duration: lasts, Data: 64 << 20}, // its time alone ends it
		})
		clientCfg, serverCfg := lasting()
		log := newStepLog()
		clientCfg.OnState = log.note
		s, _, server := relayedSession(t, hosts.Alice, hosts.Bob, clientCfg, serverCfg)
		l := serveConvoy(t, server, 1<<10)
		n := 0
		for end := time.Now().Add(3 * lasts); time.Now().Before(end); n++ {
			require.NoError(t, l.send(s, n, n+1))
			_, err := s.Call(t.Context(), "", nil)
			require.NoError(t, err)
			pass(5 * time.Millisecond)
		}
		require.NoError(t, s.Flush(testContext(t)))
		l.requireWhole(n)
		v := s.Snapshot()
		require.GreaterOrEqual(t, v.Resumes, uint64(2))
		require.LessOrEqual(t, v.Resumes, uint64(6))
		require.Zero(t, cutByOthers(log))
	})
}

// Row: N13: what is marked as bulk does not use up a relay, and nothing waits for it.
func TestSurviveBulkWaitsForADirectPathWhileCallsGoOn(t *testing.T) {
	const total = 1 << 20
	t.Parallel()
	a, b, _ := testnet.RelayedPair(t, relay.DefaultLimit())
	clientCfg, serverCfg := lasting()
	s, c, server := relayedSession(t, a, b, clientCfg, serverCfg)
	var got atomic.Uint64
	sum := make(chan [sha256.Size]byte, 1)
	server.SetStream("bulk", func(st *session.Stream) {
		h := sha256.New()
		_, _ = io.Copy(io.MultiWriter(h, counter{&got}), st)
		sum <- [sha256.Size]byte(h.Sum(nil))
	})
	st, err := s.OpenStream(testContext(t), "bulk", &session.StreamOptions{Bulk: true})
	require.NoError(t, err)
	written := make(chan error, 1)
	go func() {
		_, err := st.Write(noise(total))
		if err == nil {
			err = st.CloseWrite()
		}
		written <- err
	}()
	for i := range 100 {
		_, err := s.Call(t.Context(), "", noise(100))
		require.NoError(t, err, "call %d", i)
		_, err = c.Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err, "call %d", i)
	}
	require.Zero(t, got.Load())
	peerlanetest.OpenDirect(t, a, b)
	require.NoError(t, await(t, written, "the bulk"))
	require.Equal(t, sha256.Sum256(noise(total)), await(t, sum, "the bulk's hash"))
	_, err = s.Call(context.Background(), "", nil)
	require.NoError(t, err)
}
