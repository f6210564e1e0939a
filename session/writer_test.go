package session

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/frame"
	"github.com/peerlane/peerlane/internal/registry"
)

// Row: N14, G8
func TestALargeBodyLeavesRoomForSmallOnes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{}, 0, generous)
		var wg sync.WaitGroup
		big := make([]byte, 32<<20)
		wg.Go(func() { _, _ = w.s.Call(t.Context(), "big", big) })
		synctest.Wait() // its first batch is being written
		wg.Go(func() { _, _ = w.s.Call(t.Context(), "small", []byte("x")) })
		wg.Go(func() { _ = w.s.Send(t.Context(), "message", []byte("x")) })
		synctest.Wait()
		go w.listen()
		w.want(frame.TypeRequest, 1)
		before, seen := 0, 0
		for seen < 2 {
			if g := <-w.got; g.ID == 1 {
				before += len(g.body)
			} else {
				seen++
			}
		}
		t.Logf("%d bytes of the large body went before the small ones", before)
		require.LessOrEqual(t, before, batchTarget+2*fragment)
		_ = w.s.Close()
		wg.Wait()
	})
}

func TestManyLargeBodiesInterleave(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := silent(t, Config{}, 0, generous)
		const n = 8
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { _, _ = w.s.Call(t.Context(), "big", make([]byte, 4<<20)) })
		}
		synctest.Wait()
		go w.listen()
		sent := map[uint64]int{}
		whole := 0
		for whole < n {
			g := <-w.got
			sent[g.ID] += len(g.body)
			if sent[g.ID] >= 4<<20 {
				whole++
			}
			if whole == 0 && len(sent) == n {
				most, least := 0, 1<<30
				for _, v := range sent {
					most, least = max(most, v), min(least, v)
				}
				require.LessOrEqual(t, most-least, batchTarget+3*fragment)
			}
		}
		_ = w.s.Close()
		wg.Wait()
	})
}

// Row: N14
func TestManyWritersNeverBreakAFrame(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{Config: Config{StreamWindow: 10_000, MessageWindow: 10_000}})
		p.mux.SetCall(echo)
		p.mux.SetDefaultLink(func(*Message) {})
		p.mux.SetStream("echo", func(st *Stream) { _, _ = io.Copy(st, st) })
		var wg sync.WaitGroup
		for i := range 10 {
			body := make([]byte, 1000*(i*i+1))
			_, _ = rand.Read(body)
			wg.Go(func() {
				for range 10 {
					reply, err := p.dialer.Call(t.Context(), "", body)
					require.NoError(t, err)
					require.True(t, bytes.Equal(body, reply))
				}
			})
			wg.Go(func() {
				for range 10 {
					require.NoError(t, p.dialer.Send(t.Context(), "x", body))
				}
			})
			wg.Go(func() {
				st, err := p.dialer.OpenStream(t.Context(), "echo", nil)
				require.NoError(t, err)
				go func() {
					_, _ = st.Write(body)
					_ = st.CloseWrite()
				}()
				back, err := io.ReadAll(st)
				require.NoError(t, err)
				require.True(t, bytes.Equal(body, back))
				require.NoError(t, st.Close())
			})
			wg.Go(func() { _, _ = p.dialer.Ping(t.Context()) })
		}
		wg.Wait()
		require.NoError(t, p.dialer.Flush(t.Context()))
		wantZero(t, p.dialer)
		wantZero(t, p.accepted)
	})
}

// memoryPipe returns two ends of a connection with a buffer each way, so that a Write does not wait for a Read.
func memoryPipe() (net.Conn, net.Conn) {
	ab, ba := newHalf(), newHalf()
	a, b := net.Pipe() // for addresses and deadlines, which nobody waits for
	return &memoryConn{Conn: a, in: ba, out: ab}, &memoryConn{Conn: b, in: ab, out: ba}
}

type memoryConn struct {
	net.Conn
	in, out *half
}

func (c *memoryConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *memoryConn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *memoryConn) Close() error                { c.in.close(); c.out.close(); return c.Conn.Close() }

type half struct {
	mu     sync.Mutex
	cond   sync.Cond
	buf    fifo
	closed bool
}

func newHalf() *half {
	h := new(half)
	h.cond.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.buf.len() == 0 {
		if h.closed {
			return 0, io.EOF
		}
		h.cond.Wait()
	}
	return h.buf.read(p), nil
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, io.ErrClosedPipe
	}
	h.buf.write(p)
	h.cond.Broadcast()
	return len(p), nil
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.cond.Broadcast()
}

// maxCallAllocs is what a call may allocate, both sides together: the request (Message, value) and the goroutine that serves
// it, the reply (value), and what goes with them.
const maxCallAllocs = 5

func TestACallAllocatesLittle(t *testing.T) {
	if raceEnabled {
		t.Log("allocations are not counted under the race detector")
		return
	}
	mux := NewMux()
	mux.SetCall(echo)
	a, err := NewAcceptor(&AcceptorConfig{Config: Config{Mux: mux}})
	require.NoError(t, err)
	here, there := memoryPipe()
	served := make(chan error, 1)
	go func() { served <- a.Serve(there, "alice") }()
	s, err := Dial(t.Context(), here, "bob", nil, nil)
	require.NoError(t, err)
	body := make([]byte, 128)
	ctx := t.Context()
	call := func() {
		if _, err := s.Call(ctx, "", body); err != nil {
			t.Error(err)
		}
	}
	for range 200 {
		call()
	}
	n := testing.AllocsPerRun(2000, call)
	t.Logf("%.1f allocations for a call", n)
	require.LessOrEqual(t, n, float64(maxCallAllocs))
	var observers registry.Observers // neither those that may come, nor one that is there, change that
	s.ForDiagnostics().SetWatch(&registry.Watch{Observers: &observers})
	require.LessOrEqual(t, testing.AllocsPerRun(2000, call), float64(maxCallAllocs))
	defer observers.Add(new(countedCalls))()
	require.LessOrEqual(t, testing.AllocsPerRun(2000, call), float64(maxCallAllocs))
	require.NoError(t, s.Close())
	require.NoError(t, <-served)
	<-s.readerDone
}

// countedCalls is a registry.Observer that counts.
type countedCalls struct{ atomic.Int64 }

func (c *countedCalls) Observe(registry.Measure, string, time.Duration) { c.Add(1) }
