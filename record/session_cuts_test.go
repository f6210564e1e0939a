package record_test

import (
	"context"
	"crypto/sha256"
	"hash"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// Both directions at once, over a session whose carriers are cut at random: the session resumes, and the stream does not notice.
//
// Row: N10, N12
func TestARecordStreamSurvivesTheCutsOfItsSession(t *testing.T) {
	for _, c := range []struct{ cuts, rounds int }{{1, 6}, {10, 4}, {100, 2}} {
		for round := range c.rounds {
			synctest.Test(t, func(t *testing.T) { surviveCuts(t, c.cuts, round%2 == 1) })
		}
	}
}

func surviveCuts(t *testing.T, cuts int, fromBob bool) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Duration(rng.IntN(1e6)), CutDelivers: rng.IntN(2) == 0},
		session.Config{ResumeWindow: time.Hour})
	o := func() *record.Options {
		return &record.Options{Window: 1 + rng.IntN(1<<rng.IntN(11)), WindowBytes: 8<<10 + rng.IntN(1<<18), MaxRecord: 4 << 10, NoBatchAck: rng.IntN(3) == 0}
	}
	from, to := h.connect(t, fromBob, o(), o())
	h.cutEach(rng, cuts)
	var all sync.WaitGroup
	stop := make(chan struct{})
	var written, read [2]hash.Hash
	var counts [2]uint64
	for i, way := range [][2]*record.Stream{{from, to}, {to, from}} {
		written[i], read[i] = sha256.New(), sha256.New()
		writes := rand.New(rand.NewPCG(seed, uint64(10+i)))
		all.Go(func() { counts[i] = writeUntil(t, way[0], writes, written[i], stop) })
		all.Go(func() {
			require.NoError(t, record.Apply(t.Context(), way[1], func(_ context.Context, r record.Record) error {
				read[i].Write(r.Payload)
				return nil
			}, nil))
		})
	}
	all.Go(func() {
		for h.carriers() <= cuts {
			time.Sleep(time.Millisecond)
		}
		close(stop)
	})
	all.Wait()
	for i := range written {
		require.Equal(t, written[i].Sum(nil), read[i].Sum(nil), "seed %d", seed)
	}
	require.Equal(t, counts[0], to.Snapshot().Applied, "seed %d", seed)
	require.Equal(t, counts[1], from.Snapshot().Applied, "seed %d", seed)
	t.Logf("seed %d: %d cuts, %d and %d records", seed, h.carriers()-1, counts[0], counts[1])
}

// writeUntil writes records, with a barrier now and then, until stop is closed, and returns how many.
func writeUntil(t *testing.T, s *record.Stream, rng *rand.Rand, sum hash.Hash, stop <-chan struct{}) uint64 {
	b := make([]byte, 2048)
	for n := uint64(0); ; n++ {
		for i := range b[:32] {
			b[i] = byte(rng.Uint32())
		}
		p := b[:rng.IntN(1+rng.IntN(len(b)))]
		seq, err := s.WriteRecord(t.Context(), p)
		require.NoError(t, err)
		require.Equal(t, n+1, seq)
		sum.Write(p)
		if rng.IntN(50) == 0 {
			require.NoError(t, s.BarrierTo(t.Context(), seq))
		}
		select {
		case <-stop:
			require.NoError(t, s.CloseWrite())
			require.NoError(t, s.Barrier(t.Context()))
			return seq
		default:
		}
	}
}

// Row: N13
func TestABarrierWaitsAcrossALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{})
		from, to := h.connect(t, false, nil, nil)
		_, err := from.WriteRecord(t.Context(), []byte("a"))
		require.NoError(t, err)
		r := expectRecord(t, to, 1)
		h.lose()
		met := make(chan error, 1)
		go func() { met <- from.Barrier(t.Context()) }()
		require.NoError(t, to.AckRecord(r.Seq))
		quiet(30 * time.Second)
		require.Empty(t, met)
		h.find()
		quiet(time.Second)
		require.Len(t, met, 1)
		require.NoError(t, <-met)
	})
}

// Row: N13
func TestALostSessionEndsEveryCallWithHowFarThePeerHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{}, session.Config{ResumeWindow: 20 * time.Second})
		o := &record.Options{Window: 5}
		from, to := h.connect(t, false, o, o)
		for range 5 {
			_, err := from.WriteRecord(t.Context(), []byte("a"))
			require.NoError(t, err)
		}
		expectRecord(t, to, 1)
		expectRecord(t, to, 2)
		require.NoError(t, to.AckRecord(2))
		require.NoError(t, from.BarrierTo(t.Context(), 2))
		h.lose()
		_, err := from.WriteBatch(t.Context(), [][]byte{{1}, {2}})
		require.NoError(t, err)
		calls := map[string]func() error{
			"barrier":    func() error { return from.Barrier(t.Context()) },
			"barrier to": func() error { return from.BarrierTo(t.Context(), 3) },
			"write":      func() error { _, err := from.WriteRecord(t.Context(), []byte("b")); return err },
			"read":       func() error { _, err := from.ReadRecord(t.Context()); return err },
			"read batch": func() error { _, err := from.ReadBatch(t.Context(), make([]record.Record, 3)); return err },
		}
		ended := make(map[string]chan error)
		for name, call := range calls {
			ch := make(chan error, 1)
			ended[name] = ch
			go func() { ch <- call() }()
		}
		synctest.Wait()
		began := time.Now()
		<-from.Done()
		require.InDelta(t, 20, time.Since(began).Seconds(), 1)
		<-to.Done()
		for name, ch := range ended {
			wantLost(t, name, <-ch, 2)
			if name != "write" && name != "barrier" { // again, of a stream that has ended
				wantLost(t, name, calls[name](), 2)
			}
		}
		wantLost(t, "Err", from.Err(), 0)
		wantLost(t, "Resend", from.Resend(), 2)
		wantLost(t, "CloseWrite", from.CloseWrite(), 2)
		wantLost(t, "AckRecord", to.AckRecord(2), 0)
		wantLost(t, "Fail", to.Fail(3, 1, true, ""), 0)
		wantLost(t, "Close", from.Close(), 2)
	})
}

func wantLost(t *testing.T, what string, err error, applied uint64) {
	t.Helper()
	var e *record.Error
	require.ErrorAs(t, err, &e, what)
	require.ErrorIs(t, err, session.ErrSessionLost, what)
	require.Equal(t, applied, e.Applied, what)
}
