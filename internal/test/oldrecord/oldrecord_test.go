package oldrecord_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/internal/test/oldrecord"
	"github.com/peerlane/peerlane/record"
)

const total = 300

func payload(side string, seq uint64) []byte {
	return fmt.Appendf(nil, "%s %0*d", side, seq*37%500, seq)
}

// both runs fn with an old and a new side of one stream: opened by the one, and by the other.
func both(t *testing.T, opts *record.Options, fn func(t *testing.T, old *oldrecord.Peer, now *record.Stream)) {
	for _, oldOpens := range []bool{true, false} {
		t.Run(fmt.Sprintf("old opens: %v", oldOpens), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old, now := meet(t, opts, oldOpens)
				fn(t, old, now)
				_ = now.Close() // may have ended for what the test was about
			})
		})
	}
}

func meet(t *testing.T, opts *record.Options, oldOpens bool) (old *oldrecord.Peer, now *record.Stream) {
	t.Helper()
	here, there := faultnet.Pipe(faultnet.LinkOptions{Delay: time.Millisecond})
	var wg sync.WaitGroup
	var oldErr, newErr error
	wg.Go(func() {
		if oldOpens {
			old, oldErr = oldrecord.Open(here)
		} else {
			old, oldErr = oldrecord.Accept(there)
		}
	})
	if oldOpens {
		now, newErr = record.AcceptConn(t.Context(), there, opts)
	} else {
		now, newErr = record.OpenConn(t.Context(), here, opts)
	}
	wg.Wait()
	require.NoError(t, oldErr)
	require.NoError(t, newErr)
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	return old, now
}

// writeOld writes total records from the old side, and sends again what fails.
func writeOld(t *testing.T, old *oldrecord.Peer) {
	for seq := uint64(1); seq <= total; {
		records := [][]byte{payload("old", seq)}
		if seq%3 == 0 && seq < total {
			records = append(records, payload("old", seq+1))
		}
		err := old.Send(records...)
		if f := (*oldrecord.Failure)(nil); errors.As(err, &f) {
			require.True(t, f.Retryable)
			require.NoError(t, old.Resend())
			continue
		}
		require.NoError(t, err)
		seq += uint64(len(records))
	}
	awaitOld(t, old)
	require.NoError(t, old.End())
}

func awaitOld(t *testing.T, old *oldrecord.Peer) {
	for {
		err := old.Await(total)
		if err == nil {
			return
		}
		var f *oldrecord.Failure
		require.ErrorAs(t, err, &f)
		require.NoError(t, old.Resend())
	}
}

// applyNew applies what the old side writes, and fails some.
func applyNew(t *testing.T, now *record.Stream, rng *rand.Rand) {
	var applied uint64
	require.NoError(t, record.Apply(t.Context(), now, func(_ context.Context, r record.Record) error {
		require.Equal(t, string(payload("old", r.Seq)), string(r.Payload))
		if rng.IntN(20) == 0 {
			return &record.RecordFailure{Code: 7, Retryable: true, Message: "again"}
		}
		applied++
		require.Equal(t, applied, r.Seq)
		return nil
	}, nil))
	require.Equal(t, uint64(total), applied)
}

// writeNew writes total records from the new side.
func writeNew(t *testing.T, now *record.Stream) {
	again := func(err error) {
		var f *record.RecordFailure
		require.ErrorAs(t, err, &f)
		require.True(t, f.Retryable)
		require.NoError(t, now.Resend())
	}
	for seq := uint64(1); seq <= total; {
		got, err := now.WriteRecord(t.Context(), payload("new", seq))
		if err != nil {
			again(err)
			continue
		}
		require.Equal(t, seq, got)
		seq++
	}
	require.NoError(t, now.CloseWrite())
	for err := now.Barrier(t.Context()); err != nil; err = now.Barrier(t.Context()) {
		again(err)
	}
}

// readOld applies what the new side writes at the old one, and fails some.
func readOld(t *testing.T, old *oldrecord.Peer, rng *rand.Rand) {
	for due := uint64(1); ; {
		seq, b, err := old.Receive()
		if err == io.EOF {
			require.Equal(t, uint64(total+1), due)
			return
		}
		require.NoError(t, err)
		require.Equal(t, due, seq)
		require.Equal(t, string(payload("new", seq)), string(b))
		if rng.IntN(20) == 0 {
			require.NoError(t, old.Fail(oldrecord.Failure{Seq: seq, Code: 3, Retryable: true, Message: "again"}))
			continue
		}
		due++
		require.NoError(t, old.Ack(seq))
	}
}

func random(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// Row: N15
func TestAnOldWriterIsReadByANewReader(t *testing.T) {
	both(t, &record.Options{Window: 20}, func(t *testing.T, old *oldrecord.Peer, now *record.Stream) {
		rng := random(t)
		var wg sync.WaitGroup
		wg.Go(func() { writeOld(t, old) })
		applyNew(t, now, rng)
		wg.Wait()
		require.NoError(t, now.Err())
	})
}

// Row: N15
func TestANewWriterIsReadByAnOldReader(t *testing.T) {
	both(t, &record.Options{Linger: time.Millisecond}, func(t *testing.T, old *oldrecord.Peer, now *record.Stream) {
		rng := random(t)
		var wg sync.WaitGroup
		wg.Go(func() { readOld(t, old, rng) })
		writeNew(t, now)
		wg.Wait()
		require.NoError(t, now.Err())
	})
}

// The old side takes an acknowledgement in a BATCH for a breach: the new one, which has much to acknowledge while it writes, sends none.
//
// Row: N15
func TestOldAndNewGoBothWaysAtOnce(t *testing.T) {
	both(t, nil, func(t *testing.T, old *oldrecord.Peer, now *record.Stream) {
		rng := random(t)
		var all sync.WaitGroup
		all.Go(func() { applyNew(t, now, rng) })
		all.Go(func() { writeNew(t, now) })
		for due := uint64(1); due <= total; due++ { // the old side is synchronous: a record here, a record there
			for err := old.Send(payload("old", due)); err != nil; err = old.Send(payload("old", due)) {
				var f *oldrecord.Failure
				require.ErrorAs(t, err, &f)
				require.NoError(t, old.Resend())
			}
			seq, b, err := receive(t, old)
			require.NoError(t, err)
			require.Equal(t, due, seq)
			require.Equal(t, string(payload("new", seq)), string(b))
			require.NoError(t, old.Ack(seq))
		}
		awaitOld(t, old)
		require.NoError(t, old.End())
		_, _, err := receive(t, old)
		require.Equal(t, io.EOF, err)
		all.Wait()
		s := now.Snapshot()
		require.Zero(t, s.PiggybackOut)
		require.Zero(t, s.PiggybackIn)
		require.Positive(t, s.AcksOut)
		require.NoError(t, now.Err())
	})
}

// receive is Receive, which may come upon a failure.
func receive(t *testing.T, old *oldrecord.Peer) (uint64, []byte, error) {
	for {
		seq, b, err := old.Receive()
		if f := (*oldrecord.Failure)(nil); errors.As(err, &f) {
			require.NoError(t, old.Resend())
			continue
		}
		return seq, b, err
	}
}

// Row: N15
func TestTwoNewSidesPutAcknowledgementsIntoBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := faultnet.Pipe(faultnet.LinkOptions{Delay: time.Millisecond})
		o := &record.Options{Window: 20, AckDelay: 2 * time.Millisecond}
		var b *record.Stream
		var wg sync.WaitGroup
		wg.Go(func() { b, _ = record.AcceptConn(t.Context(), there, o) })
		a, err := record.OpenConn(t.Context(), here, o)
		require.NoError(t, err)
		wg.Wait()
		for _, way := range [][2]*record.Stream{{a, b}, {b, a}} {
			wg.Go(func() { writeNew(t, way[0]) })
			wg.Go(func() {
				require.NoError(t, record.Apply(t.Context(), way[1], func(context.Context, record.Record) error {
					time.Sleep(time.Millisecond) // so that there is more to apply, and more to write
					return nil
				}, nil))
			})
		}
		wg.Wait()
		require.Positive(t, a.Snapshot().PiggybackOut+b.Snapshot().PiggybackOut)
		_, _ = a.Close(), b.Close()
	})
}

// Row: N13
func TestTheEndsOfOldAndNewAreUnderstood(t *testing.T) {
	both(t, nil, func(t *testing.T, old *oldrecord.Peer, now *record.Stream) {
		_, err := now.WriteRecord(t.Context(), payload("new", 1))
		require.NoError(t, err)
		_, _, err = old.Receive()
		require.NoError(t, err)
		require.NoError(t, old.Fail(oldrecord.Failure{Seq: 1, Code: 9, Message: "never"}))
		require.NoError(t, old.Close(0, ""))
		var f *record.RecordFailure
		require.ErrorAs(t, now.Barrier(t.Context()), &f)
		require.Equal(t, record.RecordFailure{FailedSeq: 1, Code: 9, Message: "never"}, *f)
	})
	both(t, nil, func(t *testing.T, old *oldrecord.Peer, now *record.Stream) {
		require.NoError(t, now.CloseWithError(777, "enough"))
		_, _, err := old.Receive()
		require.Equal(t, &oldrecord.Closed{Code: 777, Text: "enough"}, err)
	})
	both(t, nil, func(t *testing.T, old *oldrecord.Peer, now *record.Stream) {
		require.NoError(t, now.Close())
		_, _, err := old.Receive()
		require.Equal(t, io.EOF, err)
	})
	synctest.Test(t, func(t *testing.T) {
		here, there := faultnet.Pipe(faultnet.LinkOptions{})
		var wg sync.WaitGroup
		wg.Go(func() { require.NoError(t, oldrecord.Refuse(there, 400, "not you")) })
		_, err := record.OpenConn(t.Context(), here, nil)
		var e *record.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, record.Error{Op: "open", Remote: true, Code: 400, Text: "not you"}, *e)
		wg.Wait()
	})
}

// Row: N11
func TestAnAcknowledgementOfWhatHasFailedIsABreach(t *testing.T) {
	both(t, nil, func(t *testing.T, old *oldrecord.Peer, now *record.Stream) {
		_, err := now.WriteBatch(t.Context(), [][]byte{{1}, {2}})
		require.NoError(t, err)
		_, _, err = old.Receive()
		require.NoError(t, err)
		require.NoError(t, old.Fail(oldrecord.Failure{Seq: 1, Retryable: true}))
		require.NoError(t, old.Ack(2))
		<-now.Done()
		require.ErrorIs(t, now.Err(), record.ErrProtocol)
	})
}
