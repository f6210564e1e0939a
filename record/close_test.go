package record_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// What was written before Close is read by the peer's application, in order and to its end, or Close names it: over random ends of both
// sides, slow readers, cuts that are resumed and cuts that are not.
//
// Row: N12, N24
func TestCloseLosesNothingSilently(t *testing.T) {
	for seed := range uint64(120) {
		synctest.Test(t, func(t *testing.T) { closeAtRandom(t, rand.New(rand.NewPCG(seed, 3)), seed) })
	}
}

// fate is what one side knows of its own records, and was given of the other's.
type fate struct {
	wrote  uint64 // WriteRecord has returned nil for
	closed error
	read   uint64
	quit   bool // it has read no more because it did not want to
}

func closeAtRandom(t *testing.T, rng *rand.Rand, seed uint64) {
	h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Duration(rng.IntN(int(20 * time.Millisecond)))},
		session.Config{ResumeWindow: 10 * time.Second, StreamWindow: 1 << (8 + rng.IntN(8))})
	opts := &record.Options{Window: 1 << rng.IntN(9), CloseTimeout: 20 * time.Second}
	from, to := h.connect(t, rng.IntN(2) == 0, opts, opts)
	var fates [2]fate
	var all sync.WaitGroup
	for i, s := range []*record.Stream{from, to} {
		own := rand.New(rand.NewPCG(rng.Uint64(), 4))
		all.Go(func() { live(t, s, own, &fates[i]) })
	}
	if rng.IntN(2) == 0 {
		all.Go(func() {
			time.Sleep(time.Duration(rng.IntN(int(300 * time.Millisecond))))
			h.lose()
			if rng.IntN(3) > 0 {
				time.Sleep(time.Duration(rng.IntN(int(time.Second))))
				h.find()
			}
		})
	}
	all.Wait()
	for i, f := range fates {
		peer := fates[1-i]
		require.LessOrEqual(t, f.read, peer.wrote+1, "seed %d, side %d", seed, i) // one may have been cut off in WriteRecord
		if f.closed == nil {
			require.True(t, peer.read >= f.wrote || peer.quit, "seed %d, side %d: %d records, %d were read, and Close says nothing",
				seed, i, f.wrote, peer.read)
			continue
		}
		var e *record.Error
		require.ErrorAs(t, f.closed, &e, "seed %d, side %d", seed, i)
		require.Equal(t, "close", e.Op)
		require.LessOrEqual(t, e.Applied, peer.read, "seed %d, side %d: not applied, and said to be", seed, i)
	}
}

// live is one side: it writes some records, reads some or all, and closes when both are done.
func live(t *testing.T, s *record.Stream, rng *rand.Rand, f *fate) {
	naps := [2]int{1 + rng.IntN(int(3*time.Millisecond)), 1 + rng.IntN(int(3*time.Millisecond))}
	writes, reads, acks := rng.IntN(200), rng.IntN(300), rng.IntN(3) > 0
	if rng.IntN(2) == 0 {
		reads = 1 << 30
	}
	var both sync.WaitGroup
	both.Go(func() {
		for range writes {
			seq, err := s.WriteRecord(soon(t, 30*time.Second), []byte("x"))
			if err != nil {
				return
			}
			f.wrote = seq
			time.Sleep(time.Duration(naps[0]))
		}
		_ = s.CloseWrite() // the stream may have ended
	})
	read := func() {
		for range reads {
			r, err := s.ReadRecord(soon(t, time.Minute))
			if err != nil {
				return
			}
			require.Equal(t, f.read+1, r.Seq)
			f.read = r.Seq
			if acks {
				_ = s.AckRecord(r.Seq) // likewise
			}
			time.Sleep(time.Duration(naps[1]))
		}
		f.quit = true
	}
	read()
	if rng.IntN(2) == 0 {
		both.Wait()
	}
	f.closed = s.Close()
	both.Wait()
}

// A slow link is no error, however long the records take: something moves all the time.
func TestCloseWaitsForASlowLink(t *testing.T) {
	for _, rate := range []int{8 << 10, 32 << 10} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwins(t, &record.Options{CloseTimeout: 5 * time.Second}, nil, faultnet.LinkOptions{Rate: rate, Buffer: 4 << 10})
				const n, size = 10, 30_000
				for range n {
					_, err := w.both[0].WriteRecord(t.Context(), make([]byte, size))
					require.NoError(t, err)
				}
				var reading sync.WaitGroup
				reading.Go(func() {
					for seq := range uint64(n) {
						expectRecord(t, w.both[1], seq+1)
					}
					_, err := w.both[1].ReadRecord(t.Context())
					require.Equal(t, io.EOF, err)
				})
				began := time.Now()
				require.NoError(t, w.both[0].Close())
				require.Greater(t, time.Since(began), 5*time.Second)
				reading.Wait()
			})
		})
	}
}

// Close names what the peer's application was not given.
func TestCloseNamesWhatThePeerWasNotGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
		from, to := h.connect(t, false, nil, nil)
		for range 5 {
			_, err := from.WriteRecord(t.Context(), []byte("x"))
			require.NoError(t, err)
		}
		expectRecord(t, to, 1)
		expectRecord(t, to, 2)
		require.NoError(t, to.AckRecord(1))
		require.NoError(t, to.Close())
		quiet(time.Second)
		err := from.Close()
		require.ErrorIs(t, err, record.ErrPeerClosed)
		require.ErrorContains(t, err, "was not given records 3 to 5")
		var e *record.Error
		require.ErrorAs(t, err, &e)
		require.EqualValues(t, 1, e.Applied)
		require.Equal(t, err, from.Close(), "again")
	})
	synctest.Test(t, func(t *testing.T) { // given, and not acknowledged
		h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
		from, to := h.connect(t, false, nil, nil)
		_, err := from.WriteRecord(t.Context(), []byte("x"))
		require.NoError(t, err)
		expectRecord(t, to, 1)
		require.NoError(t, to.Close())
		quiet(time.Second)
		require.NoError(t, from.Close())
	})
}

// A session that cannot say that the peer has the end makes Close say so.
func TestCloseOfAStreamWhoseSessionIsSilentIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{Heartbeat: -1, WriteTimeout: time.Hour})
		from, _ := h.connect(t, false, nil, nil)
		h.Links()[0].Freeze()
		_, err := from.WriteRecord(t.Context(), []byte("x"))
		require.NoError(t, err)
		began := time.Now()
		err = from.Close()
		var e *record.Error
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.LessOrEqual(t, time.Since(began), 11*time.Second)
		h.Links()[0].Thaw()
	})
}

// A Close from the function that applies does not wait for it.
func TestCloseFromApplyDoesNotWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{})
		done := make(chan error, 1)
		record.Handle(h.ToBob, "log", nil, func(s *record.Stream) {
			err := record.Apply(t.Context(), s, func(context.Context, record.Record) error {
				done <- s.Close()
				return nil
			}, nil)
			done <- err
		})
		s, err := record.Open(t.Context(), h.Alice, "log", nil)
		require.NoError(t, err)
		_, err = s.WriteRecord(t.Context(), []byte("x"))
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, <-done)
		require.ErrorIs(t, <-done, record.ErrClosed)
		require.Less(t, time.Since(began), time.Second)
		require.NoError(t, s.Close(), "it was given the record")
		require.False(t, errors.Is(s.Err(), record.ErrPeerClosed))
	})
}

// The session's Close closes its record streams first: what was written is read to its end.
func TestCloseOfTheSessionLosesNoRecord(t *testing.T) {
	for _, bob := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHighway(t, peerlanetest.SessionsOptions{Delay: 5 * time.Millisecond, Rate: 1 << 20}, session.Config{StreamWindow: 4 << 10})
			from, to := h.connect(t, bob, nil, nil)
			const n = 200
			for seq := range uint64(n) {
				_, err := from.WriteRecord(t.Context(), text("x", seq+1, 1000))
				require.NoError(t, err)
			}
			closed := make(chan error, 1)
			go func() {
				s := h.Alice
				if bob {
					s = h.Bob
				}
				closed <- s.Close()
			}()
			for seq := range uint64(n) {
				r := expectRecord(t, to, seq+1)
				require.Equal(t, text("x", seq+1, 1000), r.Payload)
				time.Sleep(time.Millisecond)
			}
			_, err := to.ReadRecord(soon(t, time.Minute))
			require.Equal(t, io.EOF, err)
			require.NoError(t, <-closed)
		})
	}
	synctest.Test(t, func(t *testing.T) { // what cannot leave is named
		h := newHighway(t, peerlanetest.SessionsOptions{Delay: time.Millisecond}, session.Config{Heartbeat: -1, WriteTimeout: time.Hour})
		from, _ := h.connect(t, false, nil, nil)
		h.Links()[0].Freeze()
		_, err := from.WriteRecord(t.Context(), []byte("x"))
		require.NoError(t, err)
		began := time.Now()
		var e *session.Error
		require.ErrorAs(t, h.Alice.Close(), &e)
		require.LessOrEqual(t, time.Since(began), 15*time.Second)
		h.Links()[0].Thaw()
	})
}

// What comes while Close waits for its own records to leave is for nobody, its end too: it is no breach of the protocol.
//
// Row: N12
func TestCloseTakesTheEndBehindRecordsThatItSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwins(t, nil, nil, faultnet.LinkOptions{Rate: 32 << 10, Buffer: 4 << 10})
		const n = 10
		for range n {
			_, err := w.both[0].WriteRecord(t.Context(), make([]byte, 30_000))
			require.NoError(t, err)
		}
		closed := make(chan error, 1)
		go func() { closed <- w.both[0].Close() }()
		time.Sleep(time.Second)
		_, err := w.both[1].WriteRecord(t.Context(), []byte("late"))
		require.NoError(t, err)
		quiet(time.Second)
		require.NoError(t, w.both[1].CloseWrite())
		for seq := range uint64(n) {
			expectRecord(t, w.both[1], seq+1)
		}
		_, err = w.both[1].ReadRecord(soon(t, time.Minute))
		require.Equal(t, io.EOF, err)
		require.NoError(t, <-closed)
		quiet(time.Second)
		err = w.both[1].Close()
		require.ErrorIs(t, err, record.ErrPeerClosed)
		require.ErrorContains(t, err, "was not given records 1 to 1")
	})
}
