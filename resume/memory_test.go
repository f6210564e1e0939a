package resume

import (
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/flow"
	"github.com/peerlane/peerlane/internal/test/heap"
)

// The figures of the package doc: what a detached conn holds on the accepting side, with nothing kept and with both windows
// full, and that nothing is held after the time of patience.
//
// Row: S4, S5, S-e
func TestMemoryOfDetachedConnsIsBounded(t *testing.T) {
	const conns, window = 200, 64 << 10
	for name, test := range map[string]struct {
		full  bool
		limit int64
	}{
		"idle": {false, 14 << 10},
		"full": {true, 2*window + 2*(flow.MaxBatch+headerSize) + 14<<10},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			h.opts.Buffer = 4 * window
			l, err := NewListener(h, &Options{Window: window, ResumeWindow: 3 * time.Second})
			require.NoError(t, err)
			goroutines, before := runtime.NumGoroutine(), heap.WithStacks()
			servers := withoutCarrier(t, h, l, conns, test.full)
			each := (heap.WithStacks() - before) / conns
			t.Logf("%s: %d bytes", name, each)
			require.LessOrEqual(t, each, test.limit, name)
			for _, s := range servers {
				<-s.Done()
				_ = s.Close() // what was received and not read
			}
			synctest.Wait() // Done is closed by a goroutine
			require.LessOrEqual(t, runtime.NumGoroutine(), goroutines+2, "goroutines")
			left := (heap.WithStacks() - before) / conns
			t.Logf("%s, after: %d bytes", name, left)
			require.Less(t, left, int64(8<<10), "%s: what is left are the conns themselves", name)
			runtime.KeepAlive(servers)
			require.NoError(t, l.Close())
		})
	}
}

// withoutCarrier returns so many conns whose dialing side is gone, with full windows in both directions if so.
func withoutCarrier(t *testing.T, h *hub, l *Listener, conns int, full bool) []*Conn {
	data := make([]byte, l.opts.Window)
	wire := append(header{kind: kindData, length: len(data)}.append(header{kind: kindStart}.append(nil)), data...)
	servers := make([]*Conn, conns)
	for i := range servers {
		c, _ := send(t, h, hello{kind: messageNew, buffer: maxWindow, resumeWindow: 1e6})
		s, err := l.Accept()
		require.NoError(t, err)
		servers[i] = s.(*Conn)
		if full {
			_, err = c.Write(wire)
			require.NoError(t, err)
			_, err = s.Write(data[:len(data)-headerSize])
			require.NoError(t, err)
			for n := 0; n < len(data); n = servers[i].queued() {
				runtime.Gosched()
			}
		}
		require.NoError(t, c.Close())
	}
	for {
		l.mu.Lock()
		n := len(l.detached)
		l.mu.Unlock()
		if n == conns {
			return servers
		}
		for _, s := range servers {
			select {
			case <-s.Done():
				require.FailNow(t, "a conn was given up before all had lost their carrier: this machine is too slow for the test")
			default:
			}
		}
		runtime.Gosched()
	}
}

func (c *Conn) queued() int {
	c.flow.Lock()
	defer c.flow.Unlock()
	return c.in.Len()
}

// An attached conn that is idle holds no window, whatever it has carried.
func TestIdleConnHoldsLittleMemory(t *testing.T) {
	const conns = 100
	h := newHub()
	l, err := NewListener(h, nil)
	require.NoError(t, err)
	before := heap.WithStacks()
	var all []net.Conn
	for range conns {
		c, err := Dial(h.dial, nil)
		require.NoError(t, err)
		s, err := l.Accept()
		require.NoError(t, err)
		say(t, c, s, string(make([]byte, 100<<10)))
		say(t, s, c, string(make([]byte, 100<<10)))
		all = append(all, c, s)
	}
	for i, c := range all { // the links, too, are left with little
		say(t, c, all[i^1], "x")
		require.NoError(t, c.(*Conn).AwaitAcked())
	}
	each := (heap.WithStacks() - before) / (2 * conns)
	t.Logf("%d bytes", each)
	require.LessOrEqual(t, each, int64(24<<10))
	for _, c := range all {
		_ = c.Close()
		<-c.(*Conn).Done()
	}
	require.NoError(t, l.Close())
}
