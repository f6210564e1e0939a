package peerlane

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/procs"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// What sessions survive on real hosts. The session floor proves the same in virtual time; here libp2p, its dial backoff and
// its streams take part.

// quick is the heartbeat of sessions that are to notice a silent loss soon.
const quick = 100 * time.Millisecond

// lasting returns the configurations of both sides of sessions that are to survive.
func lasting() (*ClientConfig, *ServerConfig) {
	c := &ClientConfig{Path: AllowRelay, AdmitAll: true, Heartbeat: quick, RetryInterval: never}
	return c, &ServerConfig{AdmitAll: true, Heartbeat: quick}
}

// calm is the heartbeat on real networks, where a busy machine may stand still for a moment.
const calm = 500 * time.Millisecond

// lastingReal is lasting for real networks.
func lastingReal() (*ClientConfig, *ServerConfig) {
	c, s := lasting()
	c.Heartbeat, s.Heartbeat = calm, calm
	return c, s
}

// connectQuick opens a session whose heartbeat may be quick. The other side gives up a hello that takes a busy machine longer than two of these.
func connectQuick(t *testing.T, c *Client, b host.Host) *session.Session {
	t.Helper()
	for {
		s, err := c.Connect(testContext(t), b.ID(), callTag)
		if err == nil {
			return s
		}
		require.ErrorContains(t, err, "cancelled")
		requireTyped(t, err, session.NotSent)
	}
}

// A stepLog is what OnState was told of one side's sessions.
type stepLog struct {
	mu      sync.Mutex
	changes []session.StateChange
	grown   chan struct{} // closed at the next change
}

func newStepLog() *stepLog { return &stepLog{grown: make(chan struct{})} }

func (l *stepLog) note(_ *session.Session, c session.StateChange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes = append(l.changes, c)
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *stepLog) all() (all []session.StateChange, grown <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(all, l.changes...), l.grown
}

// states returns the steps so far.
func (l *stepLog) states() []session.State {
	var states []session.State
	changes, _ := l.all()
	for _, c := range changes {
		states = append(states, c.State)
	}
	return states
}

func (l *stepLog) count(state session.State) int {
	n := 0
	for _, s := range l.states() {
		if s == state {
			n++
		}
	}
	return n
}

// await returns the n-th step to state, counted from 1, once it has been told of.
func (l *stepLog) await(t testing.TB, state session.State, n int) session.StateChange {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		changes, grown := l.all()
		left := n
		for _, c := range changes {
			if c.State == state {
				if left--; left == 0 {
					return c
				}
			}
		}
		select {
		case <-grown:
		case <-timeout.C:
			require.FailNow(t, "no such step", "%v number %d; there were %v", state, n, l.states())
		}
	}
}

// pass waits until d is over: the time that a fault lasts.
func pass(d time.Duration) { <-time.After(d) }

// A load is calls, one-way messages and an echo stream that run on one session all at once, and what became of them.
type load struct {
	t       *testing.T
	s       *session.Session
	stop    chan struct{}
	running sync.WaitGroup

	calls, messages atomic.Uint64 // answered, and sent
	streamed        atomic.Uint64 // bytes that came back
	sent, received  hash.Hash     // of the stream

	mu   sync.Mutex
	runs map[uint64]int // of the handler, by request id
	lane []uint64       // numbers of the messages, as they came
	errs []error
}

// serveLoad makes a server answer a load.
func serveLoad(t *testing.T, s *Server) *load {
	t.Helper()
	l := &load{t: t, stop: make(chan struct{}), runs: make(map[uint64]int), sent: sha256.New(), received: sha256.New()}
	require.NoError(t, s.Start(callTag, func(request []byte) ([]byte, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.runs[binary.BigEndian.Uint64(request)]++
		return request, nil
	}))
	s.SetLink("lane", func(m *session.Message) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lane = append(l.lane, binary.BigEndian.Uint64(m.Value))
	})
	s.SetStream("echo", func(st *session.Stream) {
		if _, err := io.Copy(st, st); err != nil {
			l.fail(fmt.Errorf("echo: %w", err))
		}
		_ = st.CloseWrite()
	})
	return l
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

// run starts the load on s; size is that of each request and message.
func (l *load) run(s *session.Session, size int) {
	l.t.Helper()
	l.s = s
	st, err := s.OpenStream(testContext(l.t), "echo", nil)
	require.NoError(l.t, err)
	var ids atomic.Uint64
	for range 4 {
		l.running.Go(func() { l.repeat(func() error { return l.call(ids.Add(1), size) }) })
	}
	l.running.Go(func() { l.repeat(func() error { return l.message(size) }) })
	l.running.Go(func() {
		block := noise(64 << 10)
		l.repeat(func() error {
			l.sent.Write(block)
			_, err := st.Write(block)
			return err
		})
		if err := st.CloseWrite(); err != nil {
			l.fail(err)
		}
	})
	l.running.Go(func() {
		if _, err := io.Copy(io.MultiWriter(l.received, counter{&l.streamed}), st); err != nil {
			l.fail(fmt.Errorf("stream: %w", err))
		}
		_ = st.Close()
	})
}

type counter struct{ n *atomic.Uint64 }

func (c counter) Write(p []byte) (int, error) { c.n.Add(uint64(len(p))); return len(p), nil }

// repeat calls f until the load is stopped or f has failed.
func (l *load) repeat(f func() error) {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		if err := f(); err != nil {
			l.fail(err)
			return
		}
	}
}

func (l *load) call(id uint64, size int) error {
	request := binary.BigEndian.AppendUint64(make([]byte, 0, size), id)[:size]
	got, err := l.s.Call(context.Background(), "", request)
	if err == nil && !bytes.Equal(got, request) {
		err = fmt.Errorf("call %d: another answer", id)
	}
	l.calls.Add(1)
	return err
}

func (l *load) message(size int) error {
	n := l.messages.Add(1)
	return l.s.Send(context.Background(), "lane", binary.BigEndian.AppendUint64(make([]byte, 0, size), n)[:size])
}

// progress waits until n more calls have been answered, and n times 10 KiB of the stream have come back.
func (l *load) progress(n uint64) {
	l.t.Helper()
	calls, streamed := l.calls.Load()+n, l.streamed.Load()+n*10<<10
	require.Eventually(l.t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.errs) > 0 || l.calls.Load() >= calls && l.streamed.Load() >= streamed
	}, patience, time.Millisecond, "the load stands still: %+v", l.s.Snapshot())
	l.requireNoErrors()
}

func (l *load) requireNoErrors() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(l.t, l.errs)
}

// finish ends the load and checks that every call ran and was answered once, that every message came once and in order,
// and that the stream brought back what was written.
func (l *load) finish() {
	l.t.Helper()
	close(l.stop)
	require.NoError(l.t, within(l.t, patience, "the load", func() error { l.running.Wait(); return nil }))
	require.NoError(l.t, l.s.Flush(testContext(l.t)))
	l.requireNoErrors()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Len(l.t, l.runs, int(l.calls.Load()))
	for id, n := range l.runs {
		require.Equal(l.t, 1, n, "runs of request %d", id)
	}
	require.Len(l.t, l.lane, int(l.messages.Load()))
	for i, n := range l.lane {
		require.EqualValues(l.t, i+1, n, "message in place %d", i)
	}
	require.Equal(l.t, l.sent.Sum(nil), l.received.Sum(nil), "the stream's hash")
}

// surviveCuts is how often TestSurviveEveryCut cuts each network: more than the eight connections that a host takes of one peer.
var surviveCuts = flag.Int("survive.cuts", 10, "cuts of TestSurviveEveryCut on each transport")

// onProxied runs a test on a pair with a proxy between, over each of muxes.
func onProxied(t *testing.T, test func(t *testing.T, a, b host.Host, f faultnet.Fault, tr testnet.Transport)) {
	for _, tr := range muxes {
		t.Run(string(tr), func(t *testing.T) {
			t.Parallel()
			a, b, f := testnet.Proxied(t, tr)
			test(t, a, b, f, tr)
		})
	}
}

// Row: S5, S6: breaks, frozen networks and delays are not seen above the session.
func TestSurviveEveryCutWithoutLossOrRepetition(t *testing.T) {
	t.Parallel()
	cuts := *surviveCuts
	// By default a host takes no more than 8 connections of one peer, and keeps a QUIC connection that was cut for 30 s.
	onProxied(t, func(t *testing.T, a, b host.Host, f faultnet.Fault, tr testnet.Transport) {
		clientCfg, serverCfg := lastingReal()
		log := newStepLog()
		clientCfg.OnState = log.note
		clientCfg.ReplayWindow, serverCfg.ReplayWindow = 128<<10, 128<<10 // what calls wait behind
		if tr == testnet.QUIC {                                           // nobody but the heartbeat sees a cut
			clientCfg.Heartbeat, serverCfg.Heartbeat = quick/2, quick
		}
		l := serveLoad(t, newServer(t, b, serverCfg))
		s := connectQuick(t, newClient(t, a, clientCfg), b)
		l.run(s, 1000)
		began := time.Now()
		for i := range cuts {
			f.SetDelay(time.Duration(i%3) * 5 * time.Millisecond)
			l.progress(5)
			resumed := log.count(session.StateResumed)
			f.Cut()
			if i%10 == 9 {
				f.Freeze()
				pass(300 * time.Millisecond)
				f.Thaw()
			}
			log.await(t, session.StateResumed, resumed+1)
		}
		f.SetDelay(0)
		l.progress(5)
		took := time.Since(began)
		l.finish()
		v := s.Snapshot()
		require.GreaterOrEqual(t, v.Resumes, uint64(cuts))
		require.Equal(t, session.StateConnected, log.states()[0])
		require.Equal(t, log.count(session.StateDetached), log.count(session.StateResumed))
		t.Logf("%d cuts in %v: %d resumes, %d calls, %d messages, %d stream bytes, %d bytes sent again",
			cuts, took, v.Resumes, l.calls.Load(), l.messages.Load(), l.streamed.Load(), v.Resent)
	})
}

// Row: S5, S6, U14: a connection that says nothing is given up by the heartbeat, and its calls are answered over another.
func TestSurviveASilentLossThatOnlyTheHeartbeatSees(t *testing.T) {
	t.Parallel()
	onProxied(t, func(t *testing.T, a, b host.Host, f faultnet.Fault, _ testnet.Transport) {
		clientCfg, serverCfg := lastingReal()
		log := newStepLog()
		clientCfg.OnState = log.note
		stuck := newStuckHandler(t)
		require.NoError(t, newServer(t, b, serverCfg).Handle(callTag, stuck.handle))
		c := newClient(t, a, clientCfg)
		done := sendAsync(t.Context(), c, b, nil)
		await(t, stuck.entered, "the call")
		f.Vanish(true)
		began := time.Now()
		lost := log.await(t, session.StateDetached, 1)
		require.Less(t, lost.At.Sub(began), 2*calm+2*time.Second)
		require.ErrorIs(t, lost.Err, session.ErrSessionLost)
		close(stuck.release)
		pass(calm)
		f.Vanish(false)
		back := time.Now()
		require.NoError(t, await(t, done, "the call's answer"))
		require.EqualValues(t, 1, stuck.runs.Load())
		require.Less(t, time.Since(back), patience/2)
		t.Logf("detached after %v, resumed %v after the network was back", lost.At.Sub(began), time.Since(back))
	})
}

// Row: S5: the next call after a time without a network does not wait for anybody's backoff.
func TestSurviveAnUnreachablePeerWhoseNextCallWorksAtOnce(t *testing.T) {
	t.Parallel()
	for lost, window := range map[session.State]time.Duration{session.StateDetached: 0, session.StateEnded: -1} {
		t.Run(string(lost), func(t *testing.T) {
			a, b, f := testnet.Proxied(t, testnet.TCPTLS)
			clientCfg, serverCfg := lastingReal()
			log := newStepLog()
			clientCfg.ResumeWindow, clientCfg.OnState = window, log.note
			require.NoError(t, newServer(t, b, serverCfg).Start(callTag, echoHandler))
			c := newClient(t, a, clientCfg)
			_, err := c.Send(t.Context(), b.ID(), callTag, nil)
			require.NoError(t, err)
			proxy := f.(*faultnet.TCP)
			proxy.Refuse(true)
			proxy.Cut()
			log.await(t, lost, 1)
			for range 5 {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				_, err = c.Send(ctx, b.ID(), callTag, nil)
				cancel()
				require.Error(t, err)
				requireTyped(t, err, session.NotSent)
			}
			proxy.Refuse(false)
			began := time.Now()
			_, err = c.Send(t.Context(), b.ID(), callTag, nil)
			require.NoError(t, err)
			require.Less(t, time.Since(began), 3*time.Second)
			t.Logf("answered after %v", time.Since(began))
		})
	}
}

// Row: S5: a server that has been started anew knows nothing of the session; the next call opens another, within itself.
func TestSurviveAServerHostThatComesBackAnew(t *testing.T) {
	t.Parallel()
	key, _ := newIdentity(t)
	a, first := testHost(t), testnet.Host(t, testnet.TCPTLS, libp2p.Identity(key))
	at := first.Network().ListenAddresses()
	peerlanetest.Teach(a, first.ID(), at...)
	clientCfg, serverCfg := lastingReal()
	log := newStepLog()
	clientCfg.OnState = log.note
	require.NoError(t, newServer(t, first, serverCfg).Start(callTag, echoHandler))
	c := newClient(t, a, clientCfg)
	_, err := c.Send(t.Context(), first.ID(), callTag, nil)
	require.NoError(t, err)
	require.NoError(t, first.Close())
	log.await(t, session.StateDetached, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = c.Send(ctx, first.ID(), callTag, nil)
	require.Error(t, err)
	requireTyped(t, err, session.NotSent)

	again := testnet.Host(t, testnet.TCPTLS, libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.ListenAddrs(at...))
	require.NoError(t, newServer(t, again, serverCfg).Start(callTag, echoHandler))
	began := time.Now()
	_, err = c.Send(t.Context(), again.ID(), callTag, nil)
	require.NoError(t, err)
	require.Less(t, time.Since(began), 3*time.Second)
	t.Logf("answered after %v", time.Since(began))
}

// Row: S5 (ResumeWindow): a session of which one side keeps nothing ends with its connection.
func TestSurviveNothingWhereOneSideHasNoResumeWindow(t *testing.T) {
	t.Parallel()
	for name, windows := range map[string][2]time.Duration{"client": {-1, 0}, "server": {0, -1}} {
		t.Run(name, func(t *testing.T) {
			a, b, f := testnet.Proxied(t, testnet.TCPTLS)
			clientCfg, serverCfg := lastingReal()
			here, there := newStepLog(), newStepLog()
			clientCfg.ResumeWindow, serverCfg.ResumeWindow = windows[0], windows[1]
			clientCfg.OnState, serverCfg.OnState = here.note, there.note
			require.NoError(t, newServer(t, b, serverCfg).Listen(callTag))
			s, err := newClient(t, a, clientCfg).Connect(testContext(t), b.ID(), callTag)
			require.NoError(t, err)
			require.False(t, s.Snapshot().Resumable)
			f.Cut()
			require.ErrorIs(t, here.await(t, session.StateEnded, 1).Err, session.ErrSessionLost)
			require.ErrorIs(t, there.await(t, session.StateEnded, 1).Err, session.ErrSessionLost)
			for _, log := range []*stepLog{here, there} {
				require.Equal(t, []session.State{session.StateConnected, session.StateEnded}, log.states())
			}
		})
	}
}

// Row: S5 (ResumeWindow, OnState), N18: the shorter window holds on both sides.
// Claim: peerlane.ClientConfig.ResumeWindow, peerlane.ServerConfig.ResumeWindow
func TestSurviveForTheShorterOfBothResumeWindows(t *testing.T) {
	procs.Alone(t)
	const short = 10 * time.Second
	for name, windows := range map[string][2]time.Duration{"client": {short, never}, "server": {never, short}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts := peerlanetest.NewHosts(t, &peerlanetest.HostsOptions{Delay: time.Millisecond})
				clientCfg, serverCfg := lasting()
				here, there := newStepLog(), newStepLog()
				clientCfg.ResumeWindow, serverCfg.ResumeWindow = windows[0], windows[1]
				clientCfg.OnState, serverCfg.OnState = here.note, there.note
				stuck := newStuckHandler(t)
				server := newServer(t, hosts.Bob, serverCfg)
				require.NoError(t, server.Handle(callTag, stuck.handle))
				c := newClient(t, hosts.Alice, clientCfg)
				done := sendAsync(t.Context(), c, hosts.Bob, nil)
				await(t, stuck.entered, "the call")
				hosts.Vanish(true)
				time.Sleep(time.Second)
				require.Equal(t, session.StateDetached, onlySession(t, c).Snapshot().State)
				time.Sleep(short)
				err := await(t, done, "the call's end")
				require.ErrorIs(t, err, session.ErrSessionLost)
				requireTyped(t, err, session.Unknown)
				for _, log := range []*stepLog{here, there} {
					end, lost := log.await(t, session.StateEnded, 1), log.await(t, session.StateDetached, 1)
					require.InDelta(t, short.Seconds(), end.At.Sub(lost.At).Seconds(), 0.1, "seconds from the loss to the end")
					require.Equal(t, []session.State{session.StateConnected, session.StateDetached, session.StateEnded}, log.states())
				}
				await(t, stuck.ended, "the end of the handler's ctx")
				waitInfo(t, c, 0)
				waitInfo(t, server, 0)
			})
		})
	}
}

// onlySession returns the one session that a client has.
func onlySession(t *testing.T, c *Client) *session.Session {
	t.Helper()
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	require.Len(t, c.pool.open, 1)
	for s := range c.pool.open {
		return s
	}
	panic("unreachable")
}

// Row: S5 (OnState), N18
// Claim: peerlane.ClientConfig.OnState, peerlane.ServerConfig.OnState
func TestSurviveTellsEachStepOnBothSides(t *testing.T) {
	t.Parallel()
	a, b, f := testnet.Proxied(t, testnet.TCPTLS)
	clientCfg, serverCfg := lastingReal()
	here, there := newStepLog(), newStepLog()
	clientCfg.OnState, serverCfg.OnState = here.note, there.note
	require.NoError(t, newServer(t, b, serverCfg).Listen(callTag))
	s, err := newClient(t, a, clientCfg).Connect(testContext(t), b.ID(), callTag)
	require.NoError(t, err)
	first := s.Conn()
	f.Cut()
	require.NotEqual(t, first, here.await(t, session.StateResumed, 1).Conn)
	there.await(t, session.StateResumed, 1)
	require.NoError(t, s.Reconnect(testContext(t)))
	here.await(t, session.StateMigrated, 1)
	there.await(t, session.StateMigrated, 1)
	require.NoError(t, s.Close())
	there.await(t, session.StateEnded, 1)
	want := []session.State{session.StateConnected, session.StateDetached, session.StateResumed, session.StateMigrated,
		session.StateEnded}
	here.await(t, session.StateEnded, 1)
	require.Equal(t, want, here.states())
	require.Equal(t, want, there.states())
	require.ErrorIs(t, here.await(t, session.StateDetached, 1).Err, session.ErrSessionLost)
}

// Row: S4 (ReplayWindow): a side keeps no more than its window for another carrier, and what is to be sent waits.
// Claim: peerlane.ClientConfig.ReplayWindow, peerlane.ServerConfig.ReplayWindow
func TestSurviveKeepsNoMoreThanTheReplayWindow(t *testing.T) {
	const window, total = 8 << 10, 256 << 10
	t.Parallel()
	a, b, f := testnet.Proxied(t, testnet.TCPTLS)
	clientCfg, serverCfg := lastingReal()
	log := newStepLog()
	clientCfg.ReplayWindow, serverCfg.ReplayWindow, clientCfg.OnState = window, 2*window, log.note
	server := newServer(t, b, serverCfg)
	require.NoError(t, server.Start(callTag, func([]byte) ([]byte, error) { return noise(total), nil }))
	s, err := newClient(t, a, clientCfg).Connect(testContext(t), b.ID(), callTag)
	require.NoError(t, err)
	waitInfo(t, server, 1) // the server may have it a moment later
	there := server.Sessions()[0]
	f.SetDelay(10 * time.Millisecond) // so that there is something to keep
	done := make(chan error, 1)
	go func() {
		got, err := s.Call(t.Context(), "", noise(total))
		if err == nil && !bytes.Equal(got, noise(total)) {
			err = errors.New("another answer")
		}
		done <- err
	}()
	most := [2]int{}
	for running := true; running; {
		select {
		case err := <-done:
			require.NoError(t, err)
			running = false
		default:
			most[0] = max(most[0], s.Snapshot().Unacked)
			most[1] = max(most[1], there.Snapshot().Unacked)
			if most[0] > window/2 && log.count(session.StateDetached) == 0 {
				f.Cut()
				log.await(t, session.StateResumed, 1)
			}
			pass(time.Millisecond)
		}
	}
	require.InDelta(t, window*3/4, most[0], window/4, "bytes that the client kept")
	require.InDelta(t, 2*window*3/4, most[1], 2*window/4, "bytes that the server kept")
}
