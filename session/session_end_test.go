package session

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/codes"
	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/frame"
)

func TestWhatIsQueuedBehindAStuckWriterIsLetGo(t *testing.T) {
	for name, end := range map[string]func(w *wire){
		"cut":    func(w *wire) { _ = w.conn.Close() },
		"close":  func(w *wire) { _ = w.s.Close() },
		"goaway": func(w *wire) { w.failure(frame.TypeGoAway, 0, codes.GoingAway) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := silent(t, Config{}, 0, generous)
				w.s.cfg.Mux.SetCall(echo)
				require.NoError(t, w.s.Send(t.Context(), "x", make([]byte, 500<<10))) // fills the writer
				synctest.Wait()
				results := make(chan error, 2)
				go func() {
					_, err := w.s.OpenStream(t.Context(), "x", nil)
					results <- err
				}()
				go func() {
					_, err := w.s.Call(t.Context(), "x", nil)
					results <- err
				}()
				w.request(2, "", "reply to me")
				synctest.Wait()
				require.False(t, w.s.Snapshot().Idle)
				require.Positive(t, w.s.cfg.Quota.Snapshot().Bytes)
				end(w)
				for range 2 {
					asError(t, <-results, NotSent)
				}
				_ = w.conn.Close()
				<-w.s.Done()
				wantZero(t, w.s)
			})
		})
	}
}

func TestAReplyThatStopsMidwayIsLetGo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := dialed(t, Config{}, 0, generous)
		part := start(frame.TypeResponse, 0, frame.Start{Total: 1 << 20}, make([]byte, 60<<10))
		result := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := w.s.Call(ctx, "", nil)
			result <- err
		}()
		w.want(frame.TypeRequest, 1)
		w.send(frame.TypeResponse, 0, 1, part)
		cancel()
		require.ErrorIs(t, <-result, context.Canceled)
		w.want(frame.TypeCancel, 1)
		w.send(frame.TypeContinue, 0, 1, make([]byte, 1000))

		go func() {
			_, err := w.s.Call(t.Context(), "", nil)
			result <- err
		}()
		w.want(frame.TypeRequest, 3)
		w.send(frame.TypeResponse, 0, 3, part)
		w.failure(frame.TypeError, 3, codes.Internal)
		require.ErrorIs(t, <-result, ErrInternal)
		wantZero(t, w.s)
	})
}

// Claim: session.Snapshot.LastActive, session.Snapshot.Idle
func TestSnapshotTellsTheLastUse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPair(t, Config{}, AcceptorConfig{})
		p.mux.SetCall(echo)
		time.Sleep(time.Minute)
		_, err := p.dialer.Call(t.Context(), "", nil)
		require.NoError(t, err)
		used := time.Now()
		time.Sleep(time.Hour) // heartbeats are no use
		for _, s := range []*Session{p.dialer, p.accepted} {
			require.True(t, s.Snapshot().Idle)
			require.Equal(t, used, s.Snapshot().LastActive)
		}
		require.Equal(t, "bob", p.dialer.Peer())
		require.NotNil(t, p.dialer.Conn())
	})
}

// What somebody has cut off has not stood still: Close says that nothing moved for CloseTimeout only when that is so.
func TestCloseThatIsCutOffIsNoTimeout(t *testing.T) {
	for name, cut := range map[string]func(r *road){
		"this side": func(r *road) { r.dialer.Abort() },
		"the peer":  func(r *road) { r.accepted.Abort() },
		"nobody":    func(*road) {},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newRoad(t, Config{}, AcceptorConfig{}, faultnet.LinkOptions{Delay: time.Millisecond})
				release := make(chan struct{})
				r.mux.SetLink("stuck", func(*Message) { <-release })
				require.NoError(t, r.dialer.Send(t.Context(), "stuck", nil))
				closed := make(chan error, 1)
				go func() { closed <- r.dialer.Close() }()
				time.Sleep(time.Second)
				cut(r)
				err := <-closed
				require.Len(t, lostThings(t, err), 1, "%v", err)
				if name == "nobody" {
					require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				} else {
					require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
				}
				close(release)
			})
		})
	}
}

// The reader of a dedicated stream whose own connection has died silently learns from the session that it has had all of it: its Read does
// not outlive the session until a transport gives up.
func TestAReadOfADedicatedStreamEndsWithItsSessionOnADeadConnection(t *testing.T) {
	for _, size := range []int{0, 1000} {
		for _, sealed := range []bool{false, true} {
			t.Run(fmt.Sprint(size, sealed), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					cfg := Config{}
					if sealed {
						cfg.Keys = keyring(t, 0)
					}
					r := newRoad(t, cfg, AcceptorConfig{Config: cfg}, faultnet.LinkOptions{Delay: time.Millisecond})
					read := make(chan error, 1)
					r.mux.SetStream("in", func(st *Stream) {
						n, err := io.Copy(io.Discard, st)
						require.EqualValues(t, size, n)
						read <- err
					})
					st, err := r.dialer.OpenStream(t.Context(), "in", &StreamOptions{Dedicated: true})
					require.NoError(t, err)
					_, err = st.Write(make([]byte, size))
					require.NoError(t, err)
					time.Sleep(time.Second)
					r.link(-1).Vanish()
					require.NoError(t, r.dialer.Close())
					began := time.Now()
					require.NoError(t, <-read)
					require.Less(t, time.Since(began), time.Second)
					r.link(-1).Cut()
				})
			})
		}
	}
}
