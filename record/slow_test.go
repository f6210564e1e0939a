package record_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/heap"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// A peer that applies slowly, and then nothing at all: what a side holds stays at the window, of records large and small, however
// long it lasts.
//
// Row: N20
func TestASlowApplierCostsTheWindowAndNoMore(t *testing.T) {
	for _, size := range []int{10, 3000, 100 << 10} {
		synctest.Test(t, func(t *testing.T) {
			const window = 1 << 20
			before := heap.InUse()
			w := newTwins(t, &record.Options{WindowBytes: window, MaxRecord: 200 << 10}, &record.Options{MaxRecord: 200 << 10}, faultnet.LinkOptions{})
			payload := make([]byte, size)
			ctx, cancel := context.WithCancel(t.Context())
			var writer sync.WaitGroup
			writer.Go(func() {
				for {
					if _, err := w.both[0].WriteRecord(ctx, payload); err != nil {
						return
					}
				}
			})
			for seq := range uint64(300) {
				time.Sleep(time.Millisecond)
				synctest.Wait()
				r := expectRecord(t, w.both[1], seq+1)
				require.NoError(t, w.both[1].AckRecord(r.Seq))
				require.LessOrEqual(t, w.both[0].Snapshot().OutstandingBytes, window)
				require.LessOrEqual(t, int(w.both[1].Snapshot().PendingApply)*size, window)
			}
			quiet(time.Second) // the last acknowledgement is told
			s := w.both[0].Snapshot()
			require.Positive(t, s.Outstanding)
			require.LessOrEqual(t, heap.InUse()-before, int64(2*(2*window+128<<10)+1<<20), "records of %d bytes", size)
			quiet(time.Hour)
			require.Equal(t, s.Written, w.both[0].Snapshot().Written, "the writer waits")
			cancel()
			writer.Wait()
		})
	}
}

// A record stream whose peer applies slowly does not get in the way of the session's calls and messages.
//
// Row: N14, N20
func TestASlowApplierDoesNotHoldUpMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
		h.ToBob.SetCall(func(m *session.Message) ([]byte, error) { return m.Value, nil })
		arrived := make(chan time.Time, 1)
		h.ToBob.SetLink("news", func(*session.Message) { arrived <- time.Now() })
		alone := latency(t, h, arrived)
		from, to := h.connect(t, false, nil, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			for payload := make([]byte, 30<<10); ; {
				if _, err := from.WriteRecord(ctx, payload); err != nil {
					return
				}
			}
		})
		all.Go(func() {
			_ = record.Apply(ctx, to, func(context.Context, record.Record) error {
				time.Sleep(10 * time.Millisecond)
				return nil
			}, nil)
		})
		quiet(time.Second)
		require.Greater(t, from.Snapshot().OutstandingBytes, 2<<20, "the window is full")
		for range 50 {
			require.LessOrEqual(t, latency(t, h, arrived), 3*alone)
		}
		cancel()
		all.Wait()
	})
}

// latency returns how long a call and a message take together.
func latency(t *testing.T, h *highway, arrived <-chan time.Time) time.Duration {
	began := time.Now()
	_, err := h.Alice.Call(t.Context(), "", []byte("ping"))
	require.NoError(t, err)
	require.NoError(t, h.Alice.Send(t.Context(), "news", []byte("x")))
	return (<-arrived).Sub(began)
}
