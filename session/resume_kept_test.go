package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
)

// Row: S4. 10 MiB in parts, compressed or not, over a carrier that is cut again and again, and longer apart than ReadTimeout.
func TestALargeBodySurvivesCutsAndLongAbsence(t *testing.T) {
	text := bytes.Repeat([]byte("peerlane "), 10<<20/9)
	noise := make([]byte, 10<<20)
	_, _ = rand.Read(noise)
	for name, body := range map[string][]byte{"compressed": text, "noise": noise} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				cfg := Config{ReadTimeout: time.Second, RequestTimeout: -1, ReplayWindow: 64 << 10}
				r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}, opts: faultnet.LinkOptions{Delay: time.Millisecond}}
				runs := 0
				r.mux.SetCall(func(m *Message) ([]byte, error) { runs++; return echo(m) })
				var told []byte
				r.mux.SetLink("tell", func(m *Message) { told = bytes.Clone(m.Value) })
				r.prepare = func(i int, l *faultnet.Link) { l.CutAfter(int64(1<<20 + i*4096)) }
				if name == "compressed" {
					r.prepare = func(i int, l *faultnet.Link) { l.CutAfter(int64(200 + i*300)) }
				}
				r.dial(cfg, AcceptorConfig{Config: cfg})
				done := make(chan struct{})
				var absent sync.WaitGroup
				absent.Go(func() {
					for {
						select {
						case <-done:
							return
						case <-time.After(time.Millisecond):
						}
						if r.dialer.State() == StateDetached {
							r.block(true)
							time.Sleep(5 * time.Second) // far beyond ReadTimeout
							r.block(false)
							_ = r.dialer.Reconnect(t.Context())
						}
					}
				})
				answer, err := r.dialer.Call(t.Context(), "", body)
				require.NoError(t, err)
				require.True(t, bytes.Equal(body, answer))
				require.Equal(t, 1, runs)
				require.NoError(t, r.dialer.Send(t.Context(), "tell", body))
				require.NoError(t, r.dialer.Flush(t.Context()))
				require.True(t, bytes.Equal(body, told))
				close(done)
				absent.Wait()
				v := r.dialer.Snapshot()
				require.GreaterOrEqual(t, v.Resumes, uint64(3))
				t.Logf("%d resumes, %d bytes sent again", v.Resumes, v.Resent)
			})
		})
	}
}

// Row: S4. Defect S-f. Defect S-h.
// Claim: session.Config.ReplayWindow
func TestWhatDoesNotFitWaitsWhileThereIsNoCarrier(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		cfg := Config{ReplayWindow: 16 << 10, ResumeWindow: time.Hour, RequestTimeout: -1}
		limited := cfg
		limited.MessageWindow, limited.StreamWindow = 64<<10, 64<<10
		r := &road{pair: &pair{t: t, mux: NewMux(), ours: NewMux()}}
		var told int
		r.mux.SetLink("tell", func(m *Message) { told += len(m.Value) })
		got := make(chan []byte, 1)
		r.mux.SetStream("in", func(st *Stream) {
			b, _ := io.ReadAll(st)
			got <- b
		})
		r.mux.SetCall(echo)
		r.dial(cfg, AcceptorConfig{Config: limited})
		st, err := r.dialer.OpenStream(t.Context(), "in", nil)
		require.NoError(t, err)
		r.lose()

		body := make([]byte, 1000)
		_, _ = rand.Read(body)
		sent := 0
		for ; ; sent++ {
			if err := r.dialer.Send(within(t, time.Minute), "tell", body); err != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				asError(t, err, NotSent)
				break
			}
		}
		require.InDelta(t, 64<<10, sent*(len(body)+messageCharge), 2000, "as much as the peer's MessageWindow")

		require.NoError(t, st.SetWriteDeadline(time.Now().Add(time.Minute)))
		n, err := st.Write(make([]byte, 200<<10))
		var e net.Error
		require.ErrorAs(t, err, &e)
		require.True(t, e.Timeout())
		require.LessOrEqual(t, n, 64<<10+fragment)

		began := time.Now()
		_, err = r.dialer.Call(within(t, time.Minute), "", body)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(began))
		_, _, _ = r.dialer.Snapshot(), r.dialer.Conn(), r.dialer.RTT() // nothing of these waits
		require.NoError(t, st.SetDeadline(time.Time{}))
		require.Equal(t, time.Minute, time.Since(began), "S-h")
		require.LessOrEqual(t, r.dialer.Snapshot().Unacked, 16<<10)

		r.block(false)
		require.NoError(t, r.dialer.Reconnect(t.Context()))
		require.NoError(t, r.dialer.Flush(t.Context()))
		require.Equal(t, sent*len(body), told, "all that Send took, and no more")
		require.NoError(t, st.CloseWrite())
		require.Len(t, <-got, n, "all that Write took, and no more")
	})
}

// A session that has lost its carrier keeps what its windows allow, whatever its application asks of it.
func TestTheMemoryOfADetachedSessionIsBounded(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	inBubble(t, func(t *testing.T) {
		cfg := Config{ResumeWindow: time.Hour, DisableCompression: true}
		r := newRoad(t, cfg, AcceptorConfig{Config: cfg}, faultnet.LinkOptions{})
		r.mux.SetLink("tell", func(*Message) {})
		r.mux.SetStream("in", func(st *Stream) { _, _ = io.Copy(io.Discard, st) })
		var streams []*Stream
		for range 4 {
			st, err := r.dialer.OpenStream(t.Context(), "in", nil)
			require.NoError(t, err)
			streams = append(streams, st)
		}
		r.lose()
		idle := heap()
		ctx := within(t, time.Minute)
		var wg sync.WaitGroup
		for _, st := range streams {
			wg.Go(func() {
				require.NoError(t, st.SetWriteDeadline(time.Now().Add(time.Minute)))
				_, err := io.Copy(st, zeros{})
				require.Error(t, err)
			})
		}
		wg.Go(func() {
			body := make([]byte, 10_000)
			for r.dialer.Send(ctx, "tell", body) == nil {
			}
		})
		wg.Wait()
		used := heap() - idle
		t.Logf("a detached session holds %d KiB, of which %d KiB for the next carrier", used>>10, r.dialer.Snapshot().Unacked>>10)
		require.LessOrEqual(t, r.dialer.Snapshot().Unacked, 1<<20)
		require.Less(t, used, int64(6<<20))
		require.Equal(t, StateDetached, r.dialer.State())
	})
}

// Calls that gave up leave nothing behind, however many there are while the writer waits for a carrier.
func TestCallsThatGaveUpDoNotPileUpWhileThereIsNoCarrier(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		cfg := Config{ResumeWindow: time.Hour, ReplayWindow: 4 << 10, RequestTimeout: time.Second}
		r := newRoad(t, cfg, AcceptorConfig{Config: cfg}, faultnet.LinkOptions{})
		r.mux.SetCall(echo)
		r.lose()
		body := make([]byte, 8<<10)
		_, _ = rand.Read(body)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				for range 50 {
					_, err := r.dialer.Call(t.Context(), "", body)
					require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				}
			})
		}
		wg.Wait()
		require.Zero(t, r.dialer.Snapshot().InFlightOut)
		r.dialer.mu.Lock()
		waiting := r.dialer.out.ready.len()
		r.dialer.mu.Unlock()
		require.Less(t, waiting, 500, "of 5000 calls that gave up")
		r.block(false)
		require.NoError(t, r.dialer.Reconnect(t.Context()))
		_, err := r.dialer.Call(t.Context(), "", body)
		require.NoError(t, err)
	})
}
