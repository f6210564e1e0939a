package record_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/record"
)

// Records are applied in parallel, some fail and are sent again: each is applied once, and a barrier is met when all are.
//
// Row: N11, N13
// Claim: record.ApplyOptions.Parallel
func TestApplyInParallelAppliesEachRecordOnce(t *testing.T) {
	for round := range 40 {
		synctest.Test(t, func(t *testing.T) { applyInParallel(t, 1+round%9) })
	}
}

func applyInParallel(t *testing.T, parallel int) {
	const total = 200
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	o := &record.Options{Window: 1 + rng.IntN(30)}
	w := newTwins(t, o, &record.Options{AckDelay: time.Duration(rng.IntN(1<<22) - 1)},
		faultnet.LinkOptions{Delay: time.Duration(rng.IntN(1 << (1 + rng.IntN(22))))})
	var mu sync.Mutex
	applied, running, most, failures := map[uint64]int{}, 0, 0, 0
	ctx := soon(t, time.Hour) // ends what stands still
	var all sync.WaitGroup
	all.Go(func() {
		err := record.Apply(ctx, w.both[1], func(_ context.Context, r record.Record) error {
			mu.Lock()
			running++
			most = max(most, running)
			nap, fails := time.Duration(rng.IntN(1<<rng.IntN(23))), rng.IntN(10) == 0
			mu.Unlock()
			time.Sleep(nap)
			mu.Lock()
			defer mu.Unlock()
			running--
			if fails {
				failures++
				return &record.RecordFailure{Code: 5, Retryable: true, Message: "once more"}
			}
			applied[r.Seq]++
			return nil
		}, &record.ApplyOptions{Parallel: parallel})
		require.NoError(t, err, "seed %d", seed)
	})
	all.Go(func() { // the writer
		for seq := uint64(1); seq <= total; {
			_, err := w.both[0].WriteRecord(ctx, text("x", seq, 1))
			if err == nil {
				seq++
				continue
			}
			resend(t, w.both[0], err, seed)
		}
		require.NoError(t, w.both[0].CloseWrite())
		for {
			err := w.both[0].Barrier(ctx)
			if err == nil {
				break
			}
			resend(t, w.both[0], err, seed)
		}
		mu.Lock()
		defer mu.Unlock()
		require.Len(t, applied, total, "seed %d: a barrier was met too early", seed)
	})
	all.Go(func() { // acknowledgements are of what is applied
		for acked := uint64(0); acked < total && ctx.Err() == nil; time.Sleep(100 * time.Microsecond) {
			now := w.both[0].Snapshot().Acked
			mu.Lock()
			for ; acked < now; acked++ {
				require.Equal(t, 1, applied[acked+1], "seed %d: record %d of %d", seed, acked+1, now)
			}
			mu.Unlock()
		}
	})
	all.Wait()
	for seq := range uint64(total) {
		require.Equal(t, 1, applied[seq+1], "seed %d: record %d", seed, seq+1)
	}
	require.LessOrEqual(t, most, parallel)
	require.Equal(t, uint64(total), w.both[1].Snapshot().Applied)
	t.Logf("seed %d: parallel %d, %d failures", seed, parallel, failures)
}

func resend(t *testing.T, s *record.Stream, err error, seed uint64) {
	t.Helper()
	var f *record.RecordFailure
	require.ErrorAs(t, err, &f, "seed %d", seed)
	require.True(t, f.Retryable)
	require.NoError(t, s.Resend())
}

// Row: N13
func TestApplyThatIsCancelledFailsNoRecord(t *testing.T) {
	for _, parallel := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			w := newTwins(t, nil, nil, faultnet.LinkOptions{})
			for seq := range uint64(6) {
				_, err := w.both[0].WriteRecord(t.Context(), text("x", seq+1, 1))
				require.NoError(t, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var running atomic.Int64
			err := record.Apply(ctx, w.both[1], func(ctx context.Context, r record.Record) error {
				if r.Seq <= 2 {
					return nil
				}
				running.Add(1)
				<-ctx.Done()
				time.Sleep(time.Second)
				running.Add(-1)
				return ctx.Err()
			}, &record.ApplyOptions{Parallel: parallel})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Zero(t, running.Load(), "Apply waits for what it has begun")
			synctest.Wait()
			s := w.both[0].Snapshot()
			require.Equal(t, uint64(2), s.Acked)
			require.Zero(t, s.FailuresIn)
			require.NoError(t, w.both[1].Err())
		})
	}
}

// Row: N13
func TestApplyEndsTheStreamForAFailureThatIsFinal(t *testing.T) {
	for _, parallel := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			w := newTwins(t, nil, nil, faultnet.LinkOptions{})
			for seq := range uint64(6) {
				_, err := w.both[0].WriteRecord(t.Context(), text("x", seq+1, 1))
				require.NoError(t, err)
			}
			bad := errors.New("bad record")
			err := record.Apply(t.Context(), w.both[1], func(_ context.Context, r record.Record) error {
				if r.Seq == 3 {
					return bad
				}
				return nil
			}, &record.ApplyOptions{Parallel: parallel})
			require.ErrorIs(t, err, bad)
			var f *record.RecordFailure
			require.ErrorAs(t, w.both[0].Barrier(t.Context()), &f)
			require.Equal(t, record.RecordFailure{FailedSeq: 3, Applied: f.Applied, Code: 1, Message: "bad record"}, *f)
			require.LessOrEqual(t, f.Applied, uint64(2))
			require.NoError(t, w.both[0].BarrierTo(t.Context(), f.Applied))
		})
	}
}

// A panic of the function is Apply's own, whichever goroutine it was in.
func TestApplyPanicsWithWhatItsFunctionHasPanickedWith(t *testing.T) {
	for _, parallel := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			w := newTwins(t, nil, nil, faultnet.LinkOptions{})
			for range 5 {
				_, err := w.both[0].WriteRecord(t.Context(), []byte("x"))
				require.NoError(t, err)
			}
			value := func() (v any) {
				defer func() { v = recover() }()
				_ = record.Apply(t.Context(), w.both[1], func(_ context.Context, r record.Record) error {
					if r.Seq == 3 {
						panic("three")
					}
					return nil
				}, &record.ApplyOptions{Parallel: parallel})
				return nil
			}()
			require.Contains(t, value, "three", "parallel %d", parallel)
		})
	}
}
