package peerlane

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// nonePeers admits nobody.
func nonePeers() []peer.ID { return []peer.ID{} }

func protocolID(s string) protocol.ID { return protocol.ID(s) }

// newServerThatCallsBack serves the link "go", whose handler sends to the link "back" of the client and replies what came.
func newServerThatCallsBack(t *testing.T, h host.Host, tag protocol.ID) *Server {
	t.Helper()
	s := newServer(t, h, &ServerConfig{AdmitAll: true})
	s.SetLink("go", func(m *session.Message) {
		reply, err := m.Session().SendWait(m.Context(), "back", m.Value)
		if err != nil {
			_ = m.Reply([]byte(err.Error()))
			return
		}
		_ = m.Reply(reply.Value)
	})
	return s
}

// goroutinesIn returns the stacks of the goroutines that stand in one of the functions, named as stacks name them.
func goroutinesIn(functions ...string) []string {
	buf := make([]byte, 8<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	return slices.DeleteFunc(stacks, func(stack string) bool {
		return strings.Contains(stack, "peerlane.(*hostWatch)") || // of a client that is open; goleak sees the others
			!slices.ContainsFunc(functions, func(f string) bool { return strings.Contains(stack, f) })
	})
}

// requireNoGoroutines waits until nothing of sessions, servers and clients runs.
func requireNoGoroutines(t testing.TB) {
	t.Helper()
	of := []string{"peerlane/session.", "peerlane.(*servedTag)", "peerlane.(*Server)", "peerlane.(*pool)"}
	if !assert.Eventually(t, func() bool { return len(goroutinesIn(of...)) == 0 }, patience, 5*time.Millisecond) {
		require.FailNow(t, "goroutines are left", strings.Join(goroutinesIn(of...), "\n\n"))
	}
}

// Row: P14, D2, D28, P8 (MaxConcurrentConns)
// Claim: peerlane.ServerConfig.MaxConcurrentConns
func TestTheLimitOfConcurrentCallsIsExactAndFree(t *testing.T) {
	t.Parallel()                  // it waits for real
	const limit, alone = 200, 175 // more than the resource manager has streams; an eighth is for other peers
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		s := newServer(t, b, &ServerConfig{MaxConcurrentConns: limit})
		require.NoError(t, s.Handle(callTag, stuck.handle))
		c := newClient(t, a, patientClient())
		var calls []<-chan error
		for range alone {
			calls = append(calls, sendAsync(t.Context(), c, b, nil))
		}
		for range alone {
			await(t, stuck.entered, "a call within the limit")
		}
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		require.ErrorIs(t, err, ErrUnavailable)
		e := requireTyped(t, err, session.Rejected)
		require.Positive(t, e.RetryAfter)
		require.True(t, e.Remote)
		close(stuck.release)
		for i, call := range calls {
			require.NoError(t, await(t, call, "a call within the limit"), "call %d", i)
		}
		for i := range limit + 1000 {
			_, err := c.Send(t.Context(), b.ID(), callTag, nil)
			require.NoError(t, err, "call %d", i)
		}
		require.Eventually(t, func() bool { return s.quota.Snapshot().Calls == 0 }, patience, time.Millisecond)
	})
}

// Row: D3, P14
func TestAPeerThatOpensAndClosesStreamsHurtsNobodyElse(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, tr testnet.Transport) {
		s := newServer(t, b, &ServerConfig{MaxConcurrentConns: 10})
		require.NoError(t, s.Start(callTag, echoHandler))
		for i := range 1000 {
			d := Dialer{Host: a, Tag: callTag}
			head := legacyHead(1000)
			if i%2 == 1 {
				d.Tag, head = sessionTag(callTag), []byte{0, 50}
			}
			c, err := d.Dial(testContext(t), b.ID())
			if errors.Is(err, ErrUnavailable) { // the server takes its time to notice, and only this peer feels it
				continue
			}
			require.NoError(t, err)
			_, _ = c.Write(head)
			c.resetWith(codes.Cancelled)
		}
		good := testnet.Host(t, tr)
		peerlanetest.Teach(good, b.ID(), b.Addrs()...)
		_, err := newClient(t, good, nil).Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err)
		require.NoError(t, a.Close())
		waitInfo(t, s, 1)
		require.EqualValues(t, 0, s.quota.Snapshot().Bytes)
		requireNoStreams(t, callTag, b)
	})
}

// Row: P14: sessions are limited as calls are.
func TestSessionsOverTheLimitAreRefusedAsUnavailable(t *testing.T) {
	a, b := testnet.Pair(t, testnet.QUIC)
	s := newServer(t, b, &ServerConfig{MaxConcurrentConns: 2, AdmitAll: true})
	require.NoError(t, s.Listen(callTag))
	c := newClient(t, a, &ClientConfig{AdmitAll: true})
	var open []*session.Session
	for range 2 {
		own, err := c.Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		open = append(open, own)
	}
	_, err := c.Connect(t.Context(), b.ID(), callTag)
	require.ErrorIs(t, err, ErrUnavailable)
	hint := requireTyped(t, err, session.NotSent).RetryAfter
	require.Positive(t, hint)
	require.NoError(t, open[0].Close())
	waitInfo(t, s, 1)
	time.Sleep(hint) // what a client keeps to
	_, err = c.Connect(t.Context(), b.ID(), callTag)
	require.NoError(t, err)
}

// Row: D12: a call costs later what it costs at first.
func TestTheMemoryThatACallTakesStaysFlat(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler))
	c := newClient(t, a, nil)
	cost := func(calls int) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			_, err := c.Send(t.Context(), b.ID(), callTag, []byte{1})
			require.NoError(t, err)
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / uint64(calls)
	}
	cost(10)
	first := cost(200)
	cost(800)
	last := cost(200)
	require.Less(t, last, 2*first+16<<10, "bytes per call; at first %d", first) // pointsub: 18.7 kB, then 1056.8 kB
	require.Less(t, last, uint64(256<<10), "bytes per call")
}

// Row: D14, P15, P19
func TestAStoppedServerLeavesNothing(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		var runs atomic.Int32
		s := newServer(t, b, nil)
		require.NoError(t, s.Start(callTag, func([]byte) ([]byte, error) { runs.Add(1); return nil, nil }))
		c := newClient(t, a, patientClient())
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		require.NoError(t, err)
		_, err = openAndSendOld(a, b, nil)
		require.NoError(t, err)
		require.NoError(t, s.Stop())
		require.NotContains(t, b.Mux().Protocols(), callTag)
		require.NotContains(t, b.Mux().Protocols(), sessionTag(callTag))
		require.Empty(t, s.GetConnectionsInfo())
		require.Empty(t, goroutinesIn("peerlane.(*servedTag)", "session.(*Acceptor)"))
		runs.Store(0)
		for range 20 {
			_, err := c.Send(t.Context(), b.ID(), callTag, nil)
			require.ErrorIs(t, err, ErrNotServed)
			_, err = openAndSendOld(a, b, nil)
			require.Error(t, err)
		}
		require.Zero(t, runs.Load())
		requireNoStreams(t, callTag, b)
		requireNoStreams(t, sessionTag(callTag), a, b)
		requireNoGoroutines(t)
		require.NoError(t, s.Stop())
		require.ErrorIs(t, s.Start(callTag, echoHandler), ErrStopped)
		require.ErrorIs(t, s.Start(callTag, echoHandler), net.ErrClosed)
		require.NoError(t, newServer(t, b, nil).Start(callTag, echoHandler), "the tag is free again")
	})
}

// Row: D15, P15
func TestStopWaitsForWhatIsBeingHandled(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		s := newServer(t, b, nil)
		require.NoError(t, s.Handle(callTag, stuck.handle))
		c := newClient(t, a, patientClient())
		done := sendAsync(t.Context(), c, b, nil)
		await(t, stuck.entered, "the call")
		stopping := make(chan error, 1)
		go func() { stopping <- s.Stop() }()
		waitBlocked(t, "(*servedTag).shutdown", 1)
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		require.ErrorIs(t, err, ErrNotServed, "new work is refused at once")
		require.Empty(t, stopping, "Stop returned with a handler running")
		second := make(chan error, 1)
		go func() { second <- s.Stop() }()
		waitBlocked(t, "(*Server).Stop", 2)
		require.Empty(t, second, "a second one waits for the first")
		close(stuck.release)
		require.NoError(t, await(t, done, "the call in flight"))
		require.NoError(t, await(t, stopping, "Stop"))
		require.NoError(t, await(t, second, "a second Stop"))
		requireNoGoroutines(t)
	})
}

// Row: P15. Claim: peerlane.Server.Shutdown, peerlane.Server.Stop
func TestTheShorterShutdownCutsOffAndASecondStopWaits(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		stuck := newStuckHandler(t)
		s := newServer(t, b, nil)
		require.NoError(t, s.Handle(callTag, stuck.handle))
		c := newClient(t, a, patientClient())
		done := sendAsync(t.Context(), c, b, nil)
		await(t, stuck.entered, "the call")
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- s.Shutdown(t.Context()) }()
		waitBlocked(t, "(*servedTag).shutdown", 1)
		go func() { second <- s.Stop() }()
		waitBlocked(t, "(*Server).Stop", 1)
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, s.Shutdown(short), context.DeadlineExceeded)
		require.Error(t, await(t, done, "the call in flight"))
		require.ErrorIs(t, await(t, first, "the first Shutdown"), context.DeadlineExceeded)
		require.NoError(t, await(t, second, "Stop beside it"))
	})
}

// The error of a Shutdown names the tags of which something was cut off, each once, and none other.
func TestShutdownNamesOnlyTheTagsThatAreCutOff(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	for range 5 { // the tags are waited for in any order
		s, c := newServer(t, b, nil), newClient(t, a, patientClient())
		stuck := newStuckHandler(t)
		for _, tag := range []protocol.ID{"/idle/1", "/stuck/1", "/idle/2", "/stuck/2", "/idle/3"} {
			if strings.HasPrefix(string(tag), "/stuck") {
				require.NoError(t, s.Handle(tag, stuck.handle))
				go func() { _, _ = c.Send(t.Context(), b.ID(), tag, nil) }()
				await(t, stuck.entered, "the call")
				continue
			}
			require.NoError(t, s.Start(tag, echoHandler))
			_, err := c.Send(t.Context(), b.ID(), tag, nil)
			require.NoError(t, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(ctx) }()
		require.Eventually(t, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			left := 0
			for _, tag := range s.ending {
				left += len(tag.acceptor.Sessions())
			}
			return len(s.ending) == 5 && left == 2
		}, patience, time.Millisecond)
		cancel()
		err := await(t, done, "Shutdown")
		require.ErrorIs(t, err, context.Canceled)
		lines := strings.Split(err.Error(), "\n")
		slices.Sort(lines)
		require.Equal(t, []string{
			`shutdown "/stuck/1": context canceled`, `shutdown "/stuck/2": context canceled`,
		}, lines)
		require.NoError(t, c.Close())
	}
}

// Row: D15, P15: the caller's ctx bounds Shutdown, ReadTimeout bounds Stop; the rest is cut off.
func TestShutdownCutsOffWhatDoesNotEndInTime(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		for _, byCtx := range []bool{true, false} {
			stuck := newStuckHandler(t)
			s := newServer(t, b, &ServerConfig{ReadTimeout: 50 * time.Millisecond})
			require.NoError(t, s.Handle(callTag, stuck.handle))
			c := newClient(t, a, patientClient())
			done := sendAsync(t.Context(), c, b, nil)
			await(t, stuck.entered, "the call")
			began := time.Now()
			err := s.Stop
			if byCtx {
				err = func() error {
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					defer cancel()
					return s.Shutdown(ctx)
				}
			}
			require.ErrorIs(t, err(), context.DeadlineExceeded)
			require.Less(t, time.Since(began), 2*time.Second)
			await(t, stuck.ended, "the end of the handler's ctx")
			requireTyped(t, await(t, done, "the call's end"), session.Unknown)
			require.NoError(t, c.Close())
			requireNoStreams(t, sessionTag(callTag), a, b)
			requireNoGoroutines(t)
		}
	})
}

// Row: P10, D17, D19
func TestStartRefusesWhatItCannotServe(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s, other := newServer(t, b, nil), newServer(t, b, nil)
	require.ErrorIs(t, s.Start(callTag, nil), ErrInvalid)
	require.ErrorIs(t, s.Handle(callTag, nil), ErrInvalid)
	require.ErrorIs(t, s.Start("", echoHandler), ErrInvalid)
	require.ErrorIs(t, s.Start(protocolID(strings.Repeat("x", 1023)), echoHandler), ErrInvalid)
	require.NoError(t, s.Start(callTag, echoHandler))
	require.NoError(t, s.Start("/second", func([]byte) ([]byte, error) { return []byte("second"), nil }))
	require.ErrorIs(t, s.Start(callTag, echoHandler), ErrInUse)
	require.ErrorIs(t, other.Start(callTag, echoHandler), ErrInUse)
	require.NoError(t, other.Stop())
	l := mustListen(t, b, "/taken", ListenConfig{})
	require.ErrorIs(t, s.Start("/taken", echoHandler), ErrInUse)
	require.NoError(t, l.Close())
	require.NoError(t, s.Start("/taken", echoHandler), "a Start that failed leaves nothing")
	c := newClient(t, a, nil)
	for tag, want := range map[protocol.ID]string{callTag: "x", "/second": "second", "/taken": "x"} {
		got, err := c.Send(t.Context(), b.ID(), tag, []byte("x"))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
}

// Row: D18, P11
func TestAHandlersPanicIsAnAnswer(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		require.NoError(t, newServer(t, b, nil).Start(callTag, func(request []byte) ([]byte, error) {
			if len(request) == 0 {
				panic("boom")
			}
			return request, nil
		}))
		c := newClient(t, a, patientClient())
		_, err := c.Send(t.Context(), b.ID(), callTag, nil)
		require.ErrorIs(t, err, session.ErrInternal)
		e := requireTyped(t, err, session.Delivered)
		require.Equal(t, codes.Internal, e.Code)
		require.Contains(t, e.Text, "boom")
		got, err := c.Send(t.Context(), b.ID(), callTag, []byte("alive"))
		require.NoError(t, err)
		require.Equal(t, "alive", string(got))
		require.Len(t, c.GetConnectionsInfo(), 1, "the session went on")
	})
}

// Row: P20
func TestFiveNodesAreClientsAndServersOfEachOther(t *testing.T) {
	const nodes, calls = 5, 20
	for _, tr := range muxes {
		t.Run(string(tr), func(t *testing.T) {
			var (
				hosts   []host.Host
				servers []*Server
				clients []*Client
			)
			for range nodes {
				h := testnet.Host(t, tr)
				s := newServer(t, h, nil)
				require.NoError(t, s.Start(callTag, func(request []byte) ([]byte, error) {
					return append([]byte(h.ID()), request...), nil
				}))
				hosts, servers, clients = append(hosts, h), append(servers, s), append(clients, newClient(t, h, nil))
			}
			var running sync.WaitGroup
			for i, c := range clients {
				for j, to := range hosts {
					if i != j {
						peerlanetest.Teach(hosts[i], to.ID(), to.Addrs()...)
					}
					for n := range calls {
						running.Go(func() {
							got, err := c.Send(t.Context(), to.ID(), callTag, []byte{byte(n)})
							if err != nil || string(got) != string(to.ID())+string(rune(n)) {
								t.Errorf("%d calls %d: %q %v", i, j, got, err)
							}
						})
					}
				}
			}
			running.Wait()
			for i := range nodes {
				require.Len(t, servers[i].GetConnectionsInfo(), nodes, "one session of each, its own included")
				require.Len(t, clients[i].GetConnectionsInfo(), nodes)
			}
		})
	}
}

// Row: N5, N7: links in both directions on one session.
func TestLinksWorkInBothDirections(t *testing.T) {
	onEach(t, append(muxes, loopback), func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServerThatCallsBack(t, b, callTag)
		require.NoError(t, s.Listen(callTag))
		c := newClient(t, a, &ClientConfig{AdmitAll: true})
		c.SetLink("back", func(m *session.Message) {
			require.NoError(t, m.Reply(append([]byte("back "), m.Value...)))
			require.ErrorIs(t, m.Reply(nil), session.ErrReplied)
		})
		own, err := c.Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		reply, err := own.SendWait(t.Context(), "go", []byte("x"))
		require.NoError(t, err)
		require.Equal(t, "back x", string(reply.Value))

		c.SetLink("back", nil)
		reply, err = own.SendWait(t.Context(), "go", nil)
		require.NoError(t, err)
		require.Contains(t, string(reply.Value), "not found", "the server's message found nobody")
		c.SetDefaultLink(func(m *session.Message) { _ = m.Reply([]byte("default of " + m.Link)) })
		reply, err = own.SendWait(t.Context(), "go", nil)
		require.NoError(t, err)
		require.Equal(t, "default of back", string(reply.Value))
		require.Equal(t, b.ID().String(), own.Peer())
		require.Equal(t, a.ID().String(), s.Sessions()[0].Peer())
	})
}

// Row: N5: the default gets the names that nobody claimed; nobody at all is told to the sender.
// Claim: peerlane.ErrNotFound
func TestALinkThatNobodyHandlesIsNotFound(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{AdmitAll: true})
	s.SetLink("known", func(m *session.Message) { _ = m.Reply([]byte("known")) })
	require.NoError(t, s.Listen(callTag))
	own, err := newClient(t, a, &ClientConfig{AdmitAll: true}).Connect(t.Context(), b.ID(), callTag)
	require.NoError(t, err)
	_, err = own.SendWait(t.Context(), "unknown", nil)
	require.ErrorIs(t, err, ErrNotFound)
	require.True(t, requireTyped(t, err, session.Rejected).Remote)
	require.NoError(t, own.Send(t.Context(), "unknown", nil))
	require.ErrorIs(t, own.Flush(t.Context()), ErrNotFound)
	_, err = own.Call(t.Context(), "", nil)
	require.ErrorIs(t, err, ErrNotFound, "Listen serves no calls of the tag")

	s.SetDefaultLink(func(m *session.Message) { _ = m.Reply([]byte("default of " + m.Link)) })
	for link, want := range map[string]string{"known": "known", "unknown": "default of unknown"} {
		reply, err := own.SendWait(t.Context(), link, nil)
		require.NoError(t, err)
		require.Equal(t, want, string(reply.Value))
	}
}

// Row: N6, N8: one-way messages are handled in order and once; objects travel with the name of their codec.
func TestMessagesAndObjectsArriveInOrder(t *testing.T) {
	type item struct{ N int }
	a, b := testnet.Pair(t, testnet.QUIC)
	s := newServer(t, b, &ServerConfig{AdmitAll: true})
	got := make(chan int, 1000)
	s.SetLink("items", func(m *session.Message) {
		var v item
		require.NoError(t, m.Object(&v))
		got <- v.N
	})
	s.SetLink("double", func(m *session.Message) {
		var v item
		require.NoError(t, m.Object(&v))
		require.NoError(t, m.ReplyObj("", item{2 * v.N}))
	})
	require.NoError(t, s.Listen(callTag))
	own, err := newClient(t, a, &ClientConfig{AdmitAll: true}).Connect(t.Context(), b.ID(), callTag)
	require.NoError(t, err)
	for n := range cap(got) {
		require.NoError(t, own.SendObj(t.Context(), "items", "", item{n}))
	}
	require.NoError(t, own.Flush(t.Context()))
	for n := range cap(got) {
		require.Equal(t, n, <-got)
	}
	var v item
	require.NoError(t, own.SendWaitObj(t.Context(), "double", "", item{21}, &v))
	require.Equal(t, 42, v.N)
	require.ErrorIs(t, own.SendObj(t.Context(), "items", "nobody's codec", item{}), session.ErrUnsupported)
}

// reverse is a codec of its own name.
type reverse struct{}

func (reverse) Name() string { return "reverse" }
func (reverse) Marshal(v any) ([]byte, error) {
	b := []byte(v.(string))
	slices.Reverse(b)
	return b, nil
}

func (reverse) Unmarshal(data []byte, v any) error {
	slices.Reverse(data)
	*v.(*string) = string(data)
	return nil
}

// Row: N8
func TestACodecIsRegisteredOnBothSides(t *testing.T) {
	a, b := testnet.Pair(t, testnet.TCPTLS)
	s := newServer(t, b, &ServerConfig{AdmitAll: true})
	s.SetLink("word", func(m *session.Message) {
		var word string
		if err := m.Object(&word); err != nil {
			_ = m.Refuse(err)
			return
		}
		_ = m.Reply(append([]byte(word+" "), m.Value...))
	})
	require.NoError(t, s.Listen(callTag))
	c := newClient(t, a, &ClientConfig{AdmitAll: true})
	require.NoError(t, c.RegisterCodec(reverse{}))
	require.Error(t, c.RegisterCodec(reverse{}))
	own, err := c.Connect(t.Context(), b.ID(), callTag)
	require.NoError(t, err)
	require.ErrorIs(t, own.SendWaitObj(t.Context(), "word", "reverse", "abc", nil), session.ErrUnsupported)
	require.NoError(t, s.RegisterCodec(reverse{}))
	require.NoError(t, own.SendWaitObj(t.Context(), "word", "reverse", "abc", nil))
}

// Row: N4: streams both ways, shared and dedicated, at this module's face.
func TestStreamsOfASessionReachTheServersHandlers(t *testing.T) {
	onEach(t, muxes, func(t *testing.T, a, b host.Host, _ testnet.Transport) {
		s := newServer(t, b, &ServerConfig{AdmitAll: true})
		s.SetStream("echo", func(st *session.Stream) { copyBack(st) })
		s.SetDefaultStream(func(st *session.Stream) { _, _ = st.Write([]byte("default of " + st.Name())) })
		require.NoError(t, s.Listen(callTag))
		c := newClient(t, a, &ClientConfig{AdmitAll: true})
		back := make(chan string, 1)
		c.SetStream("home", func(st *session.Stream) { back <- string(readAll(t, st)) })
		own, err := c.Connect(t.Context(), b.ID(), callTag)
		require.NoError(t, err)
		for _, dedicated := range []bool{false, true} {
			opts := &session.StreamOptions{Dedicated: dedicated}
			st, err := own.OpenStream(t.Context(), "echo", opts)
			require.NoError(t, err)
			_, err = st.Write([]byte("hello"))
			require.NoError(t, err)
			require.NoError(t, st.CloseWrite())
			require.Equal(t, "hello", string(readAll(t, st)))
			st, err = own.OpenStream(t.Context(), "other", opts)
			require.NoError(t, err)
			require.Equal(t, "default of other", string(readAll(t, st)))
		}
		st, err := s.Sessions()[0].OpenStream(t.Context(), "home", nil)
		require.NoError(t, err)
		_, err = st.Write([]byte("from the server"))
		require.NoError(t, err)
		require.NoError(t, st.Close())
		require.Equal(t, "from the server", await(t, back, "the stream back"))
	})
}

func copyBack(st *session.Stream) {
	buf := make([]byte, 1000)
	for {
		n, err := st.Read(buf)
		if err != nil {
			return
		}
		if _, err := st.Write(buf[:n]); err != nil {
			return
		}
	}
}
