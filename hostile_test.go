package peerlane

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/test/heap"
	"github.com/peerlane/peerlane/internal/test/oldpeer"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

// openCarrier opens a carrier of callTag and says nothing on it.
func openCarrier(t testing.TB, a, b host.Host) *Conn {
	t.Helper()
	c, err := (&Dialer{Host: a, Tag: sessionTag(callTag)}).Dial(testContext(t), b.ID())
	require.NoError(t, err)
	t.Cleanup(func() { c.resetWith(codes.Cancelled) })
	return c
}

// A rawSession is a peer that says whatever a test wants after a hello in order.
type rawSession struct {
	conn   *Conn
	frames *frame.Reader
}

// rawLimits let a server send what it likes.
var rawLimits = &frame.Limits{MaxMessage: frame.MaxTotal, MaxInFlight: 1 << 20, MessageWindow: 1 << 30, MaxStreams: 1 << 20, StreamWindow: 1 << 30}

// rawHello is a session's hello, ready to be written.
func rawHello() []byte {
	return frame.AppendHello(nil, &frame.Hello{Kind: frame.KindHello, Version: frame.Version, Role: frame.RoleSession, Limits: rawLimits})
}

// dialRaw opens a session without a peer that behaves.
func dialRaw(t testing.TB, a, b host.Host) *rawSession {
	t.Helper()
	c := openCarrier(t, a, b)
	require.NoError(t, frame.WriteHello(c, rawHello()))
	body, err := frame.ReadHello(c)
	require.NoError(t, err)
	ack, _, err := frame.ConsumeHello(body)
	require.NoError(t, err)
	require.Equal(t, frame.KindAck, ack.Kind)
	return &rawSession{conn: c, frames: frame.NewReader(c, nil)}
}

func (r *rawSession) write(t testing.TB, b []byte) {
	t.Helper()
	_, err := r.conn.Write(b)
	require.NoError(t, err)
}

// next returns the next frame of a type.
func (r *rawSession) next(t testing.TB, typ frame.Type) (frame.Header, []byte) {
	t.Helper()
	require.NoError(t, r.conn.SetReadDeadline(time.Now().Add(patience)))
	for {
		h, p, err := r.frames.Next()
		require.NoError(t, err)
		if h.Type == typ {
			return h, p
		}
	}
}

// requestHead is the first frame of a request of total bytes.
func requestHead(id uint64, total int, body []byte) []byte {
	start := frame.AppendStart(nil, frame.TypeRequest, 0, frame.Start{Total: total})
	b := frame.AppendHeader(nil, frame.Header{Length: len(start) + len(body), Type: frame.TypeRequest, ID: id})
	return append(append(b, start...), body...)
}

// muteSessionsOn is muteSessions for another tag.
func muteSessionsOn(t *testing.T, h host.Host, tag protocol.ID) <-chan network.Stream {
	t.Helper()
	streams := make(chan network.Stream, 64)
	h.SetStreamHandler(sessionTag(tag), func(s network.Stream) { streams <- s })
	t.Cleanup(func() { h.RemoveStreamHandler(sessionTag(tag)) })
	return streams
}

// ackHello answers the hello on a carrier, and nothing after it.
func ackHello(t testing.TB, s network.Stream) {
	t.Helper()
	t.Cleanup(func() { _ = s.Reset() })
	_, err := frame.ReadHello(s)
	require.NoError(t, err)
	ack := &frame.Hello{Kind: frame.KindAck, Version: frame.Version, Limits: rawLimits, SessionID: session.ID{1}}
	require.NoError(t, frame.WriteHello(s, frame.AppendHello(nil, ack)))
}

// openAndSendOld makes one call of pointsub's.
func openAndSendOld(a, b host.Host, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return (&oldpeer.Client{Host: a, Close: true}).Send(ctx, b.ID(), callTag, request)
}

// listenTCP accepts connections and holds them until the test ends.
func listenTCP(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepting.Go(func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// An attack is what a hostile peer does to a server. It runs until ctx ends, calls ready once what it holds is held, and
// counts what it has sent.
type attack struct {
	t     testing.TB
	evil  host.Host
	b     host.Host
	held  atomic.Int64 // streams open at the moment of ready
	sent  atomic.Int64 // bytes
	ready func()
}

// open opens a carrier of a tag, or returns nil where the server refuses it. It does not wait where libp2p's limits are
// reached.
func (k *attack) open(ctx context.Context, tag protocol.ID) *Conn {
	c, _, err := (&Dialer{Host: k.evil}).open(ctx, k.b.ID(), tag)
	if err != nil {
		return nil
	}
	return c
}

// write sends b, and reports whether the server still takes it.
func (k *attack) write(c *Conn, b []byte) bool {
	n, err := c.Write(b)
	k.sent.Add(int64(n))
	return err == nil
}

// hold opens up to n carriers, says first on each, and keeps them until ctx ends.
func (k *attack) hold(ctx context.Context, n int, tag protocol.ID, first []byte) {
	for range n {
		if c := k.open(ctx, tag); c != nil && k.write(c, first) {
			k.held.Add(1)
		}
	}
	k.ready()
	<-ctx.Done()
}

// greet opens a session in order.
func (k *attack) greet(ctx context.Context) *Conn {
	c := k.open(ctx, sessionTag(callTag))
	if c == nil || frame.WriteHello(c, rawHello()) != nil {
		return nil
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := frame.ReadHello(c); err != nil {
		return nil
	}
	return c
}

// junk returns bytes that mean nothing.
func junk(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// again opens a conn, says what say says, waits for the server to end it, and does so again until ctx ends.
func (k *attack) again(ctx context.Context, open func(context.Context) *Conn, say func() []byte) {
	for round := 0; ctx.Err() == nil; round++ {
		if c := open(ctx); c != nil {
			k.write(c, say())
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			_, _ = io.Copy(io.Discard, c)
			c.resetWith(codes.Cancelled)
		}
		if round == 10 {
			k.ready()
		}
	}
}

// continueHead is the head of a further part.
func continueHead(id uint64, n int) []byte {
	return frame.AppendHeader(nil, frame.Header{Length: n, Type: frame.TypeContinue, ID: id})
}

// dribble holds sessions on which a request and a message arrive without end, byte by byte.
func (k *attack) dribble(ctx context.Context) {
	const sessions = 8
	message := frame.AppendStart(nil, frame.TypeMessage, 0, frame.Start{Total: 1 << 19, Link: "x"})
	head := append(requestHead(1, 32<<20, nil), frame.AppendHeader(nil, frame.Header{Length: len(message), Type: frame.TypeMessage, ID: 3})...)
	var open []*Conn
	for range sessions {
		if c := k.greet(ctx); c != nil && k.write(c, append(head, message...)) {
			open = append(open, c)
		}
	}
	k.held.Store(int64(len(open)))
	part := append(continueHead(1, 1), 0)
	part = append(append(part, continueHead(3, 1)...), 0)
	tick := time.NewTicker(time.Millisecond) // slow enough that nothing queues in the transport
	defer tick.Stop()
	for round := 0; ctx.Err() == nil; round++ {
		<-tick.C
		for _, c := range open {
			k.write(c, part)
		}
		if round == 100 {
			k.ready()
		}
	}
}

// claim holds sessions with requests that announce the most a server takes, and bring nothing.
func (k *attack) claim(ctx context.Context) {
	for range 16 {
		c := k.greet(ctx)
		if c == nil {
			continue
		}
		k.held.Add(1)
		for id := uint64(1); id < 32; id += 2 {
			k.write(c, requestHead(id, 32<<20, nil))
		}
	}
	k.ready()
	<-ctx.Done()
}

// creep holds hellos that come a byte at a time, and opens new ones where the server ends them.
func (k *attack) creep(ctx context.Context) {
	hello := append([]byte{0, byte(len(rawHello()))}, rawHello()...)
	var open []*Conn
	for range 32 {
		if c := k.open(ctx, sessionTag(callTag)); c != nil && k.write(c, hello[:1]) {
			open = append(open, c)
		}
	}
	k.held.Store(int64(len(open)))
	k.ready()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 1; ctx.Err() == nil; i++ {
		<-tick.C
		for _, c := range open {
			k.write(c, hello[min(i, len(hello)-2):][:1])
		}
	}
}

// attacks by name.
var attacks = map[string]func(k *attack, ctx context.Context){
	"empty streams of the old wire":   func(k *attack, ctx context.Context) { k.hold(ctx, 1000, callTag, nil) },
	"empty streams of sessions":       func(k *attack, ctx context.Context) { k.hold(ctx, 1000, sessionTag(callTag), nil) },
	"old headers that claim the most": func(k *attack, ctx context.Context) { k.hold(ctx, 16, callTag, legacyHead(32<<20)) },
	"requests that claim the most":    (*attack).claim,
	"hellos that creep":               (*attack).creep,
	"fragments without end":           (*attack).dribble,
	"random bytes to the old wire": func(k *attack, ctx context.Context) {
		k.again(ctx, func(ctx context.Context) *Conn { return k.open(ctx, callTag) }, func() []byte { return junk(4 << 10) })
	},
	"random bytes instead of a hello": func(k *attack, ctx context.Context) {
		k.again(ctx, func(ctx context.Context) *Conn { return k.open(ctx, sessionTag(callTag)) }, func() []byte { return junk(4 << 10) })
	},
	"a hello, then garbage": func(k *attack, ctx context.Context) {
		k.again(ctx, k.greet, func() []byte { return junk(64 << 10) })
	},
}

// medianOf returns the median time of calls.
func medianOf(t testing.TB, c *Client, b host.Host) time.Duration {
	t.Helper()
	all := make([]time.Duration, 301)
	for i := range all {
		began := time.Now()
		_, err := c.Send(t.Context(), b.ID(), callTag, []byte("x"))
		require.NoError(t, err, "call %d of a good peer", i)
		all[i] = time.Since(began)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// What a hostile peer may cost at most, both ends of its streams counted, for they are in this process: what it has sent,
// and for each stream the buffers of two libp2p streams, a session and one chunk of a body; and what else the process
// allocates meanwhile.
const (
	heapPerStream = 128 << 10
	heapOfOthers  = 4 << 20
	slowest       = 3  // times the idle median
	looks         = 20 // how often both are taken: other processes run too, and garbage counts
)

// clockNoise is what busy processors add to any call. The only one of a machine is the attacker's as well.
func clockNoise() time.Duration {
	if runtime.GOMAXPROCS(0) == 1 {
		return 400 * time.Microsecond
	}
	return 100 * time.Microsecond
}

// Row: D3, D11, C3, P14, invariants 2 and 3: a hostile peer costs no more than it sends, hurts nobody, and is gone when it
// has left.
func TestAHostilePeerHurtsNobodyElse(t *testing.T) {
	for _, tr := range muxes {
		for name, run := range attacks {
			t.Run(string(tr)+"/"+name, func(t *testing.T) { underAttack(t, tr, run) })
		}
	}
}

func underAttack(t *testing.T, tr testnet.Transport, run func(*attack, context.Context)) {
	good, evil, b := testnet.Host(t, tr), testnet.Host(t, tr), testnet.Host(t, tr)
	peerlanetest.Teach(good, b.ID(), b.Addrs()...)
	peerlanetest.Teach(evil, b.ID(), b.Addrs()...)
	s := newServer(t, b, nil)
	s.SetLink("x", func(*session.Message) {})
	require.NoError(t, s.Start(callTag, echoHandler))
	c := newClient(t, good, patientClient())
	medianOf(t, c, b) // warm
	idle, before := medianOf(t, c, b), heap.InUse()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := make(chan struct{})
	k := &attack{t: t, evil: evil, b: b, ready: sync.OnceFunc(func() { close(ready) })}
	var attacking sync.WaitGroup
	attacking.Go(func() { run(k, ctx) })
	await(t, ready, "the attack")
	after, bound := heap.InUse(), k.sent.Load()+k.held.Load()*heapPerStream+heapOfOthers
	busy := medianOf(t, c, b)
	for range looks {
		if busy <= slowest*idle+clockNoise() && after-before < bound {
			break
		}
		after, bound = heap.InUse(), k.sent.Load()+k.held.Load()*heapPerStream+heapOfOthers
		busy = medianOf(t, c, b)
	}
	t.Logf("median %v, idle %v; heap grew by %d KiB, bound %d KiB; %d streams held, %d KiB sent",
		busy, idle, (after-before)>>10, bound>>10, k.held.Load(), k.sent.Load()>>10)
	require.Less(t, after-before, bound)
	require.LessOrEqual(t, busy, slowest*idle+clockNoise())

	cancel()
	attacking.Wait()
	require.NoError(t, evil.Close())
	waitInfo(t, s, 1)
	require.Eventually(t, func() bool {
		v := s.quota.Snapshot()
		return v.Bytes == 0 && v.Calls == 0 && v.Sessions == 1
	},
		patience, time.Millisecond, "the quota is given back")
	require.Eventually(t, func() bool { return streamCount(b, sessionTag(callTag)) == 1 }, patience, time.Millisecond)
	requireNoStreams(t, callTag, b)
	require.NoError(t, c.Close())
	require.NoError(t, s.Stop())
	requireNoGoroutines(t)
}
