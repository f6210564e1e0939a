package session

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime/metrics"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/resume"
)

// A wholeRun is a session of two sides, one of which is hostile, from its beginning to its end.
type wholeRun struct {
	t    *testing.T
	m    *middle
	work sync.WaitGroup

	mu   sync.Mutex
	errs []error // that are of no type
}

// wholeConfig is small, so that a peer that gets more than it may is found.
var wholeConfig = Config{
	MaxMessage: 8 << 10, MaxInFlight: 4, MaxStreams: 4, MessageWindow: 2000, StreamWindow: 2000, ReplayWindow: minReplayWindow,
	RequestTimeout: 20 * time.Second, Heartbeat: time.Second, ResumeWindow: 10 * time.Second, CloseTimeout: time.Second,
	ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, HandshakeTimeout: time.Second,
}

// mostTime is how long, in virtual time, all of it may take.
const mostTime = 5 * time.Minute

// FuzzWholeSession: whatever a peer that is in the middle of a session sends, the other side neither panics nor hangs, holds no more than
// its limits, ends all calls with errors of a type, and leaves nothing behind.
func FuzzWholeSession(f *testing.F) {
	for mode := range byte(8) {
		f.Add([]byte{mode})
		f.Add([]byte{mode, 0, 3, 2, 0, 9, 1, 0, 7, 3})
		f.Add([]byte{mode, 0, 2, 5, 0, 4, 0, 1, 5, 2, 1, 6, 2, 14})
		f.Add([]byte{mode, 0, 5, 14, 0, 8, 13, 3, 0, 4, 14})
		f.Add([]byte{mode, 12, 4, 0, 0, 0, 0x12, 1, 0, 0, 0, 0, 0, 0, 0, 1, 'd', 'a', 't', 'a'})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || len(data) > 1<<12 {
			return
		}
		inBubble(t, func(t *testing.T) { wholeSession(t, data[0], data[1:]) })
	})
}

// wholeSession makes one run. The bits of mode say which side is honest, whether the session outlives its carriers, and who ends it how.
func wholeSession(t *testing.T, mode byte, script []byte) {
	cfg := wholeConfig
	if mode&2 != 0 {
		cfg.ResumeWindow = -1
	}
	began, before := time.Now(), allocated()
	w := &wholeRun{t: t}
	w.m = newMiddle(t, cfg, mode&1 != 0, script, w.bounded)
	for mux, s := range map[*Mux]*Session{w.m.mux: w.m.dialer, w.m.ours: w.m.accepted} {
		mux.SetCall(echo)
		mux.SetLink("message", func(*Message) { time.Sleep(time.Millisecond) })
		mux.SetStream("echo", func(st *Stream) { _, _ = io.Copy(st, st) })
		w.use(s)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		w.work.Wait()
		w.end(w.m.honest.Load(), mode&4 != 0)
		w.end(w.m.dialer, false)
		w.end(w.m.accepted, false)
		<-w.m.dialer.Done()
		<-w.m.accepted.Done()
		w.m.end()
	}()
	select {
	case <-over:
	case <-time.After(mostTime):
		require.Fail(t, "it hangs", "after %v", mostTime)
	}
	require.Less(t, time.Since(began), mostTime)
	require.Less(t, allocated()-before, uint64(32<<20))
	time.Sleep(time.Second) // handlers may outlive a session that was lost
	for _, s := range []*Session{w.m.dialer, w.m.accepted} {
		<-s.readerDone
		<-s.writerDone
		wantZero(t, s)
	}
	require.Empty(t, w.m.acceptor.Sessions())
	require.Zero(t, w.m.acceptor.cfg.Quota.Snapshot().Sessions)
	require.Empty(t, w.errs)
}

// allocated returns how many bytes the process has ever allocated on the heap.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// use begins everything that an application does on its side.
func (w *wholeRun) use(s *Session) {
	ctx := func() context.Context { return within(w.t, 20*time.Second) }
	for _, size := range []int{0, 100, 5000} {
		w.work.Go(func() {
			_, err := s.Call(ctx(), "", make([]byte, size))
			w.ended(err)
		})
		w.work.Go(func() { w.ended(s.Send(ctx(), "message", make([]byte, size))) })
	}
	w.work.Go(func() { w.ended(s.Flush(ctx())) })
	kinds := []*StreamOptions{nil}
	if s == w.m.dialer {
		kinds = append(kinds, &StreamOptions{Dedicated: true}, &StreamOptions{Dedicated: true, Resumable: true})
	}
	for _, opts := range kinds {
		if opts != nil && opts.Resumable && s.cfg.ResumeWindow < 0 {
			continue
		}
		w.work.Go(func() {
			st, err := s.OpenStream(ctx(), "echo", opts)
			w.ended(err)
			if err == nil {
				w.stream(st)
			}
		})
	}
}

// stream writes and reads at once, and closes.
func (w *wholeRun) stream(st *Stream) {
	w.ended(st.SetDeadline(time.Now().Add(20 * time.Second)))
	w.work.Go(func() {
		_, err := st.Write(make([]byte, 5000))
		w.ended(err)
		w.ended(st.CloseWrite())
	})
	_, err := io.Copy(io.Discard, st)
	w.ended(err)
	w.ended(st.Close())
}

// end ends a side.
func (w *wholeRun) end(s *Session, shutdown bool) {
	if shutdown {
		w.ended(s.Shutdown(within(w.t, 10*time.Second)))
		return
	}
	w.ended(s.Close())
}

// ended notes an error that is of no type.
func (w *wholeRun) ended(err error) {
	if _, typed := errors.AsType[*Error](err); err == nil || typed {
		return
	}
	if slices.ContainsFunc([]error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, os.ErrDeadlineExceeded, context.DeadlineExceeded, context.Canceled, syscall.ECONNRESET,
		syscall.EPIPE, ErrSessionLost, resume.ErrLost, resume.ErrProtocol,
	}, func(target error) bool { return errors.Is(err, target) }) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs = append(w.errs, err)
}

// bounded requires that a side holds no more than its limits.
func (w *wholeRun) bounded(s *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg := &s.cfg
	bodies := 4*cfg.MaxInFlight + 2      // requests and replies, of those that are cancelled too; the message that passes the window
	streams := int64(4 * cfg.MaxStreams) // of both sides, those that have ended and are unread too
	credit := floorFor(int(streams)) + streams*int64(cfg.StreamWindow)
	most := int64(bodies*2*cfg.MaxMessage+cfg.MessageWindow+cfg.ReplayWindow) + credit + streams*bufferCost
	assert.LessOrEqual(w.t, cfg.Quota.Snapshot().Bytes, most)
	assert.LessOrEqual(w.t, s.requests.running, 2*cfg.MaxInFlight)
	assert.LessOrEqual(w.t, s.shared.theirs, cfg.MaxStreams)
	assert.LessOrEqual(w.t, s.shared.theirsKept, 2*cfg.MaxStreams)
	assert.LessOrEqual(w.t, s.shared.handlers, 3*cfg.MaxStreams)
	assert.LessOrEqual(w.t, len(s.out.urgent), maxUrgent+2000)
	in, purse := &s.shared.in, &s.shared.purse
	assert.LessOrEqual(w.t, in.total(), credit)
	assert.GreaterOrEqual(w.t, min(in.unused, in.unread, in.spare, in.due, purse.left, purse.kept), int64(0))
	for _, st := range s.shared.open {
		st.in.mu.Lock()
		assert.LessOrEqual(w.t, st.in.buf.len(), cfg.StreamWindow)
		st.in.mu.Unlock()
	}
}
