//go:build unix

package peerlane

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/test/heap"
	"github.com/peerlane/peerlane/internal/test/testnet"
	"github.com/peerlane/peerlane/internal/zstd"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/session"
)

var (
	attacksMeasure = flag.Duration("attacks.measure", 0, "how long each attack is measured; 0: none is")
	attacksPeers   = flag.Int("attacks.peers", 1, "peers that attack at once, in each of those measurements")
)

// The environment of a process of attackers: the address that they attack, and the kinds of their attacks, each so often as there are peers.
const (
	attackersTarget = "PEERLANE_ATTACKERS_TARGET"
	attackersKinds  = "PEERLANE_ATTACKERS_KINDS"
)

// attackersAt is where attackers come from: another /24 than that of the honest peers, 127.0.0.0.
const attackersAt = "/ip4/127.0.1.1/tcp/0"

// The limits of the server under attack. One peer can have most of them within libp2p's limits.
const (
	attackedPlaces = 256
	attackedBytes  = 64 << 20
	// heapPerConn is what the heap may grow by for each connection beyond the limit: yamux's window of one stream, sessions and goroutines.
	heapPerConn = 16 << 20
)

// libp2pAlone is a flood for comparison, and no raid: nothing of this module's has a part in it.
const libp2pAlone = "as much to libp2p alone"

// raids are what one hostile peer does until ctx ends. Each calls ready once it holds what it can.
var raids = map[string]func(k *attack, ctx context.Context){
	"all sessions": func(k *attack, ctx context.Context) {
		k.keep(ctx, 1, func() { k.say(ctx, 0, rawRequest(1, "", []byte("x"))) }, attackedPlaces)
	},
	"slow calls":                (*attack).slowCalls,
	"requests that trickle":     (*attack).trickle,
	"replies that nobody reads": (*attack).unreadReplies,
	"streams that nobody reads": (*attack).unreadStreams,
	"one-way messages":          (*attack).messages,
	"hellos that creep":         (*attack).creep,
	"bombs":                     (*attack).bombs,
	"sessions without a carrier": func(k *attack, ctx context.Context) {
		k.keep(ctx, 1, func() {
			if c := k.greetWith(ctx, frame.CapResume); c != nil {
				c.resetWith(codes.Cancelled)
			}
		}, attackedPlaces)
	},
	"garbage after a hello": func(k *attack, ctx context.Context) {
		k.again(ctx, k.greet, func() []byte { return junk(64 << 10) })
	},
}

// flooded is a protocol beside this module's, whose handler discards all that comes.
const flooded = protocol.ID("/flooded")

// floods writes what unreadStreams writes, at the same pace, where this module never sees it: what libp2p alone costs the others.
func (k *attack) floods(ctx context.Context) {
	part := noise(256 << 10)
	s, err := k.evil.NewStream(ctx, k.b.ID(), flooded)
	if err != nil {
		k.t.Error(err)
		return
	}
	k.keep(ctx, 1, func() { _, _ = s.Write(part) }, 1)
}

// keep does something so often, and then again and again, a thousand times a second at most.
func (k *attack) keep(ctx context.Context, perTick int, do func(), first int) {
	for i := 0; i < first && ctx.Err() == nil; i++ {
		do()
	}
	k.ready()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		for range perTick {
			do()
		}
	}
}

// greetWith opens a session with capabilities.
func (k *attack) greetWith(ctx context.Context, caps frame.Caps) *Conn {
	c := k.open(ctx, sessionTag(callTag))
	if c == nil {
		return nil
	}
	hello := frame.AppendHello(nil, &frame.Hello{Kind: frame.KindHello, Version: frame.Version, Role: frame.RoleSession,
		Limits: rawLimits, Caps: caps, ResumeWindow: 60_000})
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if frame.WriteHello(c, hello) == nil {
		if body, err := frame.ReadHello(c); err == nil && body[0] == byte(frame.KindAck) {
			_ = c.SetReadDeadline(time.Time{})
			return c
		}
	}
	c.resetWith(codes.Cancelled)
	return nil
}

// say opens a session, writes b on it, and discards what it is answered.
func (k *attack) say(ctx context.Context, caps frame.Caps, b []byte) *Conn {
	c := k.greetWith(ctx, caps)
	if c == nil {
		time.Sleep(10 * time.Millisecond)
		return nil
	}
	k.write(c, b)
	go func() { _, _ = io.Copy(io.Discard, c) }() // ends with the process
	return c
}

// A line is a session that is opened again when it ends.
type line struct {
	k    *attack
	ctx  context.Context
	caps frame.Caps
	deaf bool // what arrives is not read
	conn *Conn
	next uint64
}

// put writes what frames says for a new id.
func (l *line) put(frames func(id uint64) []byte) {
	if l.conn == nil {
		if l.deaf {
			l.conn = l.k.greetWith(l.ctx, l.caps)
		} else {
			l.conn = l.k.say(l.ctx, l.caps, nil)
		}
		if l.next = 1; l.conn == nil {
			return
		}
	}
	_ = l.conn.SetWriteDeadline(time.Now().Add(patience))
	if !l.k.write(l.conn, frames(l.next)) {
		l.conn.resetWith(codes.Cancelled)
		l.conn = nil
	}
	l.next += 2
}

func rawFrame(typ frame.Type, flags frame.Flags, id uint64, payload []byte) []byte {
	return append(frame.AppendHeader(nil, frame.Header{Length: len(payload), Type: typ, Flags: flags, ID: id}), payload...)
}

func rawStart(typ frame.Type, id uint64, link string, total int, body []byte) []byte {
	return rawFrame(typ, 0, id, append(frame.AppendStart(nil, typ, 0, frame.Start{Link: link, Total: total}), body...))
}

func rawRequest(id uint64, link string, body []byte) []byte {
	return rawStart(frame.TypeRequest, id, link, len(body), body)
}

func (k *attack) slowCalls(ctx context.Context) {
	l := &line{k: k, ctx: ctx}
	k.keep(ctx, 1, func() { l.put(func(id uint64) []byte { return rawRequest(id, "slow", nil) }) }, attackedPlaces)
}

func (k *attack) trickle(ctx context.Context) {
	l, part, held := &line{k: k, ctx: ctx}, noise(50<<10), attackedBytes/(50<<10)
	k.keep(ctx, 1, func() {
		l.put(func(id uint64) []byte {
			if id < uint64(2*held) {
				return rawStart(frame.TypeRequest, id, "", 1<<20, part)
			}
			return append(continueHead(1+id%uint64(2*held), 1), 0)
		})
	}, held)
}

func (k *attack) unreadReplies(ctx context.Context) {
	l := &line{k: k, ctx: ctx, deaf: true}
	k.keep(ctx, 1, func() { l.put(func(id uint64) []byte { return rawRequest(id, "large", nil) }) }, attackedBytes/(64<<10))
}

func (k *attack) unreadStreams(ctx context.Context) {
	l, part := &line{k: k, ctx: ctx}, noise(32<<10)
	k.keep(ctx, 1, func() {
		l.put(func(id uint64) []byte {
			b := rawFrame(frame.TypeStreamOpen, 0, id, []byte("unread"))
			for range 8 {
				b = append(b, rawFrame(frame.TypeStreamData, 0, id, part)...)
			}
			return b
		})
	}, attackedBytes/(8*len(part)))
}

func (k *attack) messages(ctx context.Context) {
	const sessions = attackedBytes >> 20
	part, lines, turn := noise(60<<10), make([]*line, sessions), 0
	for i := range lines {
		lines[i] = &line{k: k, ctx: ctx}
	}
	k.keep(ctx, 1, func() {
		turn++
		lines[turn%sessions].put(func(id uint64) []byte {
			if id > 2*16 { // the window is full
				return nil
			}
			return rawStart(frame.TypeMessage, id, "slow", len(part), part)
		})
	}, 17*sessions)
}

func (k *attack) bombs(ctx context.Context) {
	const raw = 4 << 20
	l, packed := &line{k: k, ctx: ctx, caps: frame.CapZstd}, zstd.Append(nil, make([]byte, raw))
	k.keep(ctx, 1, func() { l.put(func(id uint64) []byte { return compressedRequest(id, packed, raw) }) }, 50)
}

// TestAttackersOfAChild is what a process of attackers runs. Without a target it is none, and there is nothing to test.
func TestAttackersOfAChild(t *testing.T) {
	target := os.Getenv(attackersTarget)
	if target == "" {
		return
	}
	info, err := peer.AddrInfoFromString(target)
	require.NoError(t, err)
	b := testnet.Host(t, testnet.TCPTLS, libp2p.NoListenAddrs) // stands for the target's ID
	_ = b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ready sync.WaitGroup
	for kind := range strings.SplitSeq(os.Getenv(attackersKinds), ",") {
		raid := raids[kind]
		if kind == libp2pAlone {
			raid = (*attack).floods
		}
		require.NotNil(t, raid, kind)
		evil := testnet.Host(t, testnet.TCPTLS, libp2p.NoListenAddrs, libp2p.ListenAddrStrings(attackersAt))
		peerlanetest.Teach(evil, info.ID, info.Addrs...)
		ready.Add(1)
		k := &attack{t: t, evil: evil, b: named{b, info.ID}, ready: sync.OnceFunc(ready.Done)}
		go raid(k, ctx) // ends with the process
	}
	ready.Wait()
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent lets go, or is gone
}

// named is a host that stands for another one.
type named struct {
	host.Host
	id peer.ID
}

func (n named) ID() peer.ID { return n.id }

// attackers are a process of hostile peers, at the least priority.
type attackers struct {
	cmd  *exec.Cmd
	said chan struct{} // closed at the end of its output
}

// startAttackers returns once all hold what they can, or a while later.
func startAttackers(t *testing.T, target host.Host, kinds []string) *attackers {
	t.Helper()
	args := []string{os.Args[0], "-test.run=^TestAttackersOfAChild$"}
	if nice, err := exec.LookPath("nice"); err == nil {
		args = append([]string{nice, "-n", "10"}, args...)
	}
	p := &attackers{exec.Command(args[0], args[1:]...), make(chan struct{})}
	at := fmt.Sprintf("%s/p2p/%s", target.Addrs()[0], target.ID())
	p.cmd.Env = append(os.Environ(), attackersTarget+"="+at, attackersKinds+"="+strings.Join(kinds, ","))
	p.cmd.Stderr = os.Stderr
	_, err := p.cmd.StdinPipe() // closed with this process
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(p.leave)
	ready := make(chan struct{})
	go func() { // ends with the process, for which leave waits
		defer close(p.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() != "ready" {
				t.Error("attackers:", lines.Text()) // a failure of theirs
				continue
			}
			close(ready)
		}
	}()
	select {
	case <-ready:
	case <-time.After(patience / 2): // some wait for what they do not get
	}
	return p
}

// leave ends the process without a last word.
func (p *attackers) leave() {
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.said
	_ = p.cmd.Wait() // says that it was killed
}

// An attacked server, and an honest peer of it in the same process.
type attacked struct {
	host   host.Host
	server *Server
	client *Client
	honest peer.ID // the client's
}

func newAttacked(t *testing.T) *attacked {
	b, a := testnet.Host(t, testnet.TCPTLS), testnet.Host(t, testnet.TCPTLS)
	w := &attacked{host: b, honest: a.ID(), server: newServer(t, b, &ServerConfig{AdmitAll: true, EnableCompression: true,
		MaxConcurrentConns: attackedPlaces, MaxMemoryUsage: attackedBytes})}
	require.NoError(t, w.server.Start(callTag, echoHandler))
	large := noise(64 << 10)
	w.server.SetLink("slow", func(m *session.Message) { <-m.Context().Done() })
	w.server.SetLink("large", func(m *session.Message) { _ = m.Reply(large) })
	b.SetStreamHandler(flooded, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
	w.server.SetStream("unread", func(st *session.Stream) { <-st.Session().Done() })
	peerlanetest.Teach(a, b.ID(), b.Addrs()...)
	w.client = newClient(t, a, patientClient())
	return w
}

// cpu returns the time that this process has had of the processors.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails for this process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// figures are what was measured for a while.
type figures struct {
	p50, p99  time.Duration
	calls     int
	failed    int
	cpu       time.Duration
	mostBytes int64 // accounted
	sessions  int
	heap      int64
	conns     int
}

// measure calls the server for d.
func (w *attacked) measure(t *testing.T, d time.Duration) (f figures) {
	t.Helper()
	var all []time.Duration
	before, body := cpu(), []byte("hello")
	for end := time.Now().Add(d); time.Now().Before(end); {
		some, failed := delays(t, w.client, w.host, body, 100*time.Millisecond)
		all, f.failed = append(all, some...), f.failed+failed
		v := w.server.quota.Snapshot()
		f.mostBytes, f.sessions = max(f.mostBytes, v.Bytes), max(f.sessions, v.Sessions)
	}
	slices.Sort(all)
	f.calls, f.p50, f.p99 = len(all), all[len(all)/2], all[len(all)*99/100]
	f.cpu, f.heap, f.conns = cpu()-before, heap.InUse(), len(w.host.Network().Conns())
	return f
}

// Ten attackers of different kinds at once, in a process of their own, have no call of an honest peer refused, exceed no limit, and what they
// held is free once they have left.
func TestTenAttackersAtOnce(t *testing.T) {
	w := newAttacked(t)
	w.measure(t, 300*time.Millisecond) // warm
	quiet := w.measure(t, 500*time.Millisecond)
	p := startAttackers(t, w.host, slices.Sorted(maps.Keys(raids)))
	f := w.measure(t, 2*time.Second)
	for _, c := range w.host.Network().Conns() {
		if c.RemotePeer() != w.honest {
			require.True(t, strings.HasPrefix(c.RemoteMultiaddr().String(), "/ip4/127.0.1."), "a network of their own: %v", c)
		}
	}
	t.Logf("quiet: p99 %v; under attack: p50 %v, p99 %v, %d calls, %v of a processor, %d sessions, %d KiB accounted, heap grew by %d KiB, %d conns",
		quiet.p99, f.p50, f.p99, f.calls, f.cpu, f.sessions, f.mostBytes>>10, (f.heap-quiet.heap)>>10, f.conns)
	require.Zero(t, f.failed, "of %d calls", f.calls)
	require.Less(t, f.p99, 2*time.Second)
	require.LessOrEqual(t, f.mostBytes, int64(attackedBytes))
	require.LessOrEqual(t, f.sessions, attackedPlaces)
	require.Greater(t, f.mostBytes, int64(attackedBytes/8), "it is no attack")
	require.Greater(t, f.sessions, attackedPlaces/8, "it is no attack")
	require.Less(t, f.heap-quiet.heap, int64(attackedBytes+f.conns*heapPerConn))
	p.leave()
	require.Eventually(t, func() bool {
		v := w.server.quota.Snapshot()
		return v.Bytes == 0 && v.Calls == 0
	}, patience, 10*time.Millisecond, "what they held is free: %+v", w.server.quota.Snapshot())
}

// TestMeasureAttacks prints a table of what each kind of attack does to the calls of an honest peer, if that is asked for.
func TestMeasureAttacks(t *testing.T) {
	if *attacksMeasure <= 0 {
		t.Skip("only with -attacks.measure")
	}
	fmt.Printf("%d processors, %d peers each, %v each\n\n", runtime.NumCPU(), *attacksPeers, *attacksMeasure)
	fmt.Println("| attack | p50 | p99 | times quiet | refused | CPU s per s | accounted | heap |\n|---|---|---|---|---|---|---|---|")
	kinds := slices.Sorted(maps.Keys(raids))
	var quiet figures
	row := func(name string, attack []string) {
		w := newAttacked(t)
		w.measure(t, time.Second) // warm
		if attack != nil {
			defer startAttackers(t, w.host, attack).leave()
		}
		f := w.measure(t, *attacksMeasure)
		if attack == nil {
			quiet = f
		}
		fmt.Printf("| %s | %v | %v | %.1f | %d of %d | %.2f | %.1f MiB | %.1f MiB |\n", name, f.p50.Round(time.Microsecond),
			f.p99.Round(time.Microsecond), float64(f.p99)/float64(quiet.p99), f.failed, f.calls, f.cpu.Seconds()/attacksMeasure.Seconds(),
			float64(f.mostBytes)/(1<<20), float64(f.heap)/(1<<20))
		require.NoError(t, w.client.Close())
		require.NoError(t, w.host.Close())
	}
	row("none", nil)
	for _, kind := range kinds {
		row(kind, slices.Repeat([]string{kind}, *attacksPeers))
	}
	row("all at once", kinds)
	row(libp2pAlone, []string{libp2pAlone})
}
