package record_test

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// Writers come to their turn in the order in which they have come, whoever gives up between them: each waits for those before it, and
// for nobody else.
//
// Row: N11, N14
func TestSixtyFourWritersShareAWindowOfOne(t *testing.T) {
	for _, linger := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			const writers, each = 64, 6
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			w := newTwins(t, &record.Options{Window: 1, Linger: linger}, nil, faultnet.LinkOptions{})
			var last atomic.Uint64
			var wrote, gaveUp atomic.Int64
			var all sync.WaitGroup
			for i := range writers {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				all.Go(func() {
					for k := range each {
						ctx, cancel := t.Context(), context.CancelFunc(func() {})
						if rng.IntN(3) == 0 {
							ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(50))*time.Millisecond)
						}
						before := last.Load()
						seq, err := w.both[0].WriteRecord(ctx, fmt.Appendf(nil, "%d.%d", i, k))
						cancel()
						if err != nil {
							require.ErrorIs(t, err, context.DeadlineExceeded)
							gaveUp.Add(1)
							continue
						}
						wrote.Add(1)
						last.Store(max(last.Load(), seq))
						require.LessOrEqual(t, seq-before, uint64(writers+1), "seed %d: overtaken", seed)
					}
				})
			}
			var applier sync.WaitGroup
			var got int64
			applier.Go(func() {
				require.NoError(t, record.Apply(t.Context(), w.both[1], func(context.Context, record.Record) error {
					got++
					time.Sleep(time.Millisecond)
					return nil
				}, nil))
			})
			all.Wait()
			require.NoError(t, w.both[0].CloseWrite())
			applier.Wait()
			require.Equal(t, wrote.Load(), got)
			require.Equal(t, int64(writers*each), wrote.Load()+gaveUp.Load())
			require.Positive(t, gaveUp.Load())
		})
	}
}

// Row: N14
func TestABatchIsWrittenWholeOrNotAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		w := newTwins(t, &record.Options{Window: 7}, nil, faultnet.LinkOptions{})
		var all sync.WaitGroup
		var mu sync.Mutex
		taken := map[string]int{} // writer and batch -> size
		for i := range 16 {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			all.Go(func() {
				for k := range 20 {
					name, n := fmt.Sprintf("%d.%d", i, k), 1+rng.IntN(7)
					batch := make([][]byte, n)
					for j := range batch {
						batch[j] = fmt.Appendf(nil, "%s %d/%d", name, j, n)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(30))*time.Millisecond)
					if _, err := w.both[0].WriteBatch(ctx, batch); err == nil {
						mu.Lock()
						taken[name] = n
						mu.Unlock()
					}
					cancel()
				}
			})
		}
		got := map[string]int{}
		var applier sync.WaitGroup
		applier.Go(func() {
			for r, err := range w.both[1].Records(t.Context()) {
				require.NoError(t, err)
				var name string
				var j, n int
				_, err := fmt.Sscanf(string(r.Payload), "%s %d/%d", &name, &j, &n)
				require.NoError(t, err)
				require.Equal(t, got[name], j, "parts of a batch are one after the other")
				got[name]++
				require.NoError(t, w.both[1].AckRecord(r.Seq))
				time.Sleep(time.Millisecond)
			}
		})
		all.Wait()
		require.NoError(t, w.both[0].CloseWrite())
		applier.Wait()
		require.Equal(t, taken, got)
		require.Less(t, len(got), 16*20, "none was cancelled")
	})
}

// Row: N10
// Claim: record.Record.Payload, record.Record.Seq
func TestSeveralReadersGetEachRecordOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total = 2000
		w := newTwins(t, &record.Options{Window: 50}, nil, faultnet.LinkOptions{})
		var mu sync.Mutex
		seen := map[uint64]bool{}
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				last := uint64(0)
				for {
					r, err := w.both[1].ReadRecord(t.Context())
					if err != nil {
						require.Equal(t, io.EOF, err)
						return
					}
					require.Greater(t, r.Seq, last)
					last = r.Seq
					require.Equal(t, string(text("r", r.Seq, 6)), string(r.Payload))
					mu.Lock()
					require.False(t, seen[r.Seq])
					seen[r.Seq] = true
					mu.Unlock()
				}
			})
		}
		var acks sync.WaitGroup
		acks.Go(func() { // what all have read is applied
			for n := 0; n < total; {
				time.Sleep(time.Millisecond)
				mu.Lock()
				for seen[uint64(n+1)] {
					n++
				}
				mu.Unlock()
				require.NoError(t, w.both[1].AckRecord(uint64(n)))
			}
		})
		for seq := range uint64(total) {
			_, err := w.both[0].WriteRecord(t.Context(), text("r", seq+1, 6))
			require.NoError(t, err)
		}
		require.NoError(t, w.both[0].Barrier(t.Context()))
		require.NoError(t, w.both[0].CloseWrite())
		readers.Wait()
		acks.Wait()
		require.Len(t, seen, total)
	})
}

// Everyone who waits wakes, at whatever moment the stream ends, and learns why.
//
// Row: N12, N13, N24
func TestEveryoneWakesWhenAStreamEnds(t *testing.T) {
	ends := map[string]func(w *twins){
		"close":            func(w *twins) { _ = w.both[0].Close() },
		"closes":           func(w *twins) { go func() { _ = w.both[0].Close() }(); _ = w.both[0].Close() },
		"both close":       func(w *twins) { go func() { _ = w.both[1].Close() }(); _ = w.both[0].Close() },
		"peer closes":      func(w *twins) { _ = w.both[1].Close() },
		"with error":       func(w *twins) { _ = w.both[0].CloseWithError(300, "why") },
		"peer, with error": func(w *twins) { _ = w.both[1].CloseWithError(300, "why") },
		"cut":              func(w *twins) { w.link.Cut() },
		"failure":          failSome,
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			for range 30 {
				synctest.Test(t, func(t *testing.T) { endAmongMany(t, end) })
			}
		})
	}
}

// failSome fails one of the records that are being applied.
func failSome(w *twins) {
	for errors.Is(w.both[1].Fail(w.both[1].Snapshot().Applied+1, 4, false, "no"), record.ErrRange) {
		time.Sleep(time.Millisecond)
	}
}

func endAmongMany(t *testing.T, end func(w *twins)) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	o := &record.Options{Window: 1 + rng.IntN(8), CloseTimeout: time.Second}
	w := newTwins(t, o, o, faultnet.LinkOptions{Delay: time.Duration(rng.IntN(1e6)), Buffer: 100 + rng.IntN(1<<16)})
	var all sync.WaitGroup
	for i, s := range w.both { // one direction is applied slowly, the other is not
		for range 4 {
			all.Go(func() {
				for {
					if _, err := s.WriteRecord(t.Context(), text("x", 1, 100)); err != nil {
						wantTyped(t, seed, err)
						return
					}
				}
			})
			all.Go(func() {
				for {
					if err := s.Barrier(t.Context()); err != nil {
						wantTyped(t, seed, err)
						return
					}
					if s.Err() != nil || w.both[1-i].Err() != nil {
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		all.Go(func() {
			err := record.Apply(t.Context(), s, func(context.Context, record.Record) error {
				time.Sleep(time.Duration(1+30*i) * time.Millisecond)
				return nil
			}, nil)
			if err != nil { // the other side may have ended its log
				wantTyped(t, seed, err)
			}
		})
	}
	time.Sleep(time.Duration(rng.IntN(1 << (10 + rng.IntN(18)))))
	end(w)
	began := time.Now()
	all.Wait()
	require.Less(t, time.Since(began), 3*time.Second, "seed %d", seed)
	_, _ = w.both[0].Close(), w.both[1].Close()
	<-w.both[0].Done()
	<-w.both[1].Done()
}

func wantTyped(t *testing.T, seed uint64, err error) {
	t.Helper()
	var e *record.Error
	var f *record.RecordFailure
	require.True(t, errors.As(err, &e) || errors.As(err, &f), "seed %d: %v", seed, err)
	require.NotErrorIs(t, err, record.ErrProtocol, "seed %d", seed)
}

// Row: N24
func TestCloseIsCalledFromWhereItLikes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwins(t, nil, nil, faultnet.LinkOptions{})
		_, err := w.both[0].WriteRecord(t.Context(), []byte("x"))
		require.NoError(t, err)
		err = record.Apply(t.Context(), w.both[1], func(context.Context, record.Record) error {
			require.NoError(t, w.both[1].Close())
			require.NoError(t, w.both[1].Close())
			return nil
		}, nil)
		require.ErrorIs(t, err, record.ErrClosed)
		synctest.Wait()
		require.ErrorIs(t, w.both[0].Barrier(t.Context()), record.ErrPeerClosed)
		require.NoError(t, w.both[0].Close())
		require.NoError(t, w.both[0].Close())
	})
}
