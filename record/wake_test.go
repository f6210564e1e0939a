package record_test

import (
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/record"
)

// Row: N10
func TestTheEndOfADirectionWakesEveryReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwins(t, nil, nil, faultnet.LinkOptions{})
		var readers sync.WaitGroup
		for range 5 {
			readers.Go(func() {
				_, err := w.both[1].ReadRecord(soon(t, time.Minute))
				require.Equal(t, io.EOF, err)
			})
		}
		synctest.Wait()
		require.NoError(t, w.both[0].CloseWrite())
		readers.Wait()
	})
}

// The peer has ended its direction, and closes instead of sending a failed record again.
//
// Row: N13
func TestAReaderOfWhatHasFailedLearnsThatThePeerHasClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwins(t, nil, nil, faultnet.LinkOptions{})
		_, err := w.both[0].WriteRecord(t.Context(), []byte("x"))
		require.NoError(t, err)
		require.NoError(t, w.both[0].CloseWrite())
		expectRecord(t, w.both[1], 1)
		synctest.Wait()
		require.NoError(t, w.both[1].Fail(1, 7, true, "later"))
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				_, err := w.both[1].ReadRecord(soon(t, time.Minute))
				require.ErrorIs(t, err, record.ErrPeerClosed)
			})
		}
		synctest.Wait()
		var f *record.RecordFailure
		require.ErrorAs(t, w.both[0].Close(), &f, "the record that has failed was not sent again")
		readers.Wait()
	})
}

// Linger waits for others to go with a record: for none while nobody may write any, nor while somebody waits for the record.
//
// Row: N12
func TestLingerHoldsNobodyUp(t *testing.T) {
	patient := &record.Options{Window: 3, Linger: time.Hour, BatchBytes: 10}
	big := text("big", 1, 20)
	for name, hold := range map[string]func(t *testing.T, w *twins){
		"a barrier behind two batches": func(t *testing.T, w *twins) {
			w.link.Freeze()
			_, err := w.both[0].WriteRecord(t.Context(), text("full", 1, 200))
			require.NoError(t, err)
			synctest.Wait() // the writer is at it, and what follows will be two batches
			time.AfterFunc(time.Second, w.link.Thaw)
			_, err = w.both[0].WriteBatch(t.Context(), [][]byte{big, []byte("x")})
			require.NoError(t, err)
			require.NoError(t, w.both[0].Barrier(soon(t, time.Minute)))
		},
		"a barrier for what is sent again": func(t *testing.T, w *twins) {
			_, err := w.both[0].WriteRecord(t.Context(), []byte("x"))
			require.NoError(t, err)
			var f *record.RecordFailure
			require.ErrorAs(t, w.both[0].Barrier(soon(t, time.Minute)), &f)
			require.NoError(t, w.both[0].Resend())
			require.NoError(t, w.both[0].Barrier(soon(t, time.Minute)))
		},
		"a writer that waits for room": func(t *testing.T, w *twins) {
			for range 5 {
				_, err := w.both[0].WriteRecord(soon(t, time.Minute), []byte("x"))
				require.NoError(t, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwins(t, patient, nil, faultnet.LinkOptions{Buffer: 100})
				go func() {
					var failed bool
					for r, err := range w.both[1].Records(t.Context()) {
						if err != nil {
							return
						}
						if name == "a barrier for what is sent again" && !failed {
							failed = true
							_ = w.both[1].Fail(r.Seq, 1, true, "once")
							continue
						}
						_ = w.both[1].AckRecord(r.Seq)
					}
				}()
				hold(t, w)
			})
		})
	}
}

// Row: N11
func TestReadingAloneMeetsNoBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwins(t, nil, nil, faultnet.LinkOptions{})
		_, err := w.both[0].WriteBatch(t.Context(), [][]byte{{1}, {2}, {3}})
		require.NoError(t, err)
		for seq := range uint64(3) {
			expectRecord(t, w.both[1], seq+1)
		}
		_, err = w.both[1].WriteRecord(t.Context(), []byte("the other way")) // would carry an acknowledgement
		require.NoError(t, err)
		err = w.both[0].BarrierTo(soon(t, time.Hour), 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, w.both[1].AckRecord(2)) // and all before
		require.NoError(t, w.both[0].BarrierTo(soon(t, time.Minute), 1))
		require.NoError(t, w.both[0].BarrierTo(soon(t, time.Minute), 2))
		err = w.both[0].Barrier(soon(t, time.Hour))
		var e *record.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, uint64(2), e.Applied)
		require.True(t, e.Timeout())
	})
}

// Row: N13
// Claim: record.RecordFailure.FailedSeq, record.RecordFailure.Message, record.RecordFailure.Retryable
func TestAFailureEndsTheBarriersOfWhatItDropsAndNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwins(t, nil, nil, faultnet.LinkOptions{})
		_, err := w.both[0].WriteBatch(t.Context(), [][]byte{{1}, {2}, {3}})
		require.NoError(t, err)
		var ends [3]chan error
		for i := range ends {
			ends[i] = make(chan error, 1)
			go func() { ends[i] <- w.both[0].BarrierTo(t.Context(), uint64(i+1)) }()
			expectRecord(t, w.both[1], uint64(i+1))
		}
		synctest.Wait()
		require.NoError(t, w.both[1].Fail(2, 5, true, "later"))
		quiet(time.Minute)
		require.Empty(t, ends[0])
		for _, end := range ends[1:] {
			var f *record.RecordFailure
			require.ErrorAs(t, <-end, &f)
			require.Equal(t, record.RecordFailure{FailedSeq: 2, Code: 5, Retryable: true, Message: "later"}, *f)
		}
		require.NoError(t, w.both[1].AckRecord(1))
		require.NoError(t, <-ends[0])
	})
}

// What was written cannot leave; that is for Close to wait for.
//
// Row: N12
func TestCloseWakesEveryoneElseAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwins(t, &record.Options{Window: 2}, nil, faultnet.LinkOptions{Buffer: 100})
		w.link.Freeze()
		_, err := w.both[0].WriteBatch(t.Context(), [][]byte{text("x", 1, 100), text("x", 2, 100)})
		require.NoError(t, err)
		calls := map[string]func() error{
			"barrier":    func() error { return w.both[0].Barrier(t.Context()) },
			"barrier to": func() error { return w.both[0].BarrierTo(t.Context(), 1) },
			"write":      func() error { _, err := w.both[0].WriteRecord(t.Context(), nil); return err },
			"read":       func() error { _, err := w.both[0].ReadRecord(t.Context()); return err },
			"iterator": func() (last error) {
				for _, err := range w.both[0].Records(t.Context()) {
					last = err
				}
				return last
			},
		}
		began := time.Now()
		var all sync.WaitGroup
		for name, call := range calls {
			all.Go(func() {
				require.ErrorIs(t, call(), record.ErrClosed, name)
				require.Zero(t, time.Since(began), name)
			})
		}
		synctest.Wait()
		require.ErrorIs(t, w.both[0].Close(), os.ErrDeadlineExceeded)
		require.Equal(t, 5*time.Second, time.Since(began))
		all.Wait()
	})
}
