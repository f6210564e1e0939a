package record_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/record"
)

// keepRecords has a shelf keep records that no peer has acknowledged.
func keepRecords(t *testing.T, s *shelf, sizes ...int) {
	t.Helper()
	for i, n := range sizes {
		s.kept = append(s.kept, string(text("k", uint64(i+1), n)))
	}
	s.place.Next += uint64(len(sizes))
}

// What is kept may be more than the window of the next stream: it comes bit by bit, each within the window.
//
// Row: N10
func TestWhatIsKeptComesThroughASmallerWindow(t *testing.T) {
	for name, c := range map[string]struct {
		sizes  []int
		reader record.Options
	}{
		"records":                {[]int{1, 1, 1, 1, 1, 1, 1, 1, 1}, record.Options{Window: 2}},
		"bytes":                  {[]int{400, 400, 400, 400, 400, 400}, record.Options{WindowBytes: 1000}},
		"a small one, large one": {[]int{100, 900, 100, 900}, record.Options{WindowBytes: 1000}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kept := newShelf()
				keepRecords(t, kept, c.sizes...)
				w := newTwins(t, &record.Options{Store: kept}, &c.reader, faultnet.LinkOptions{})
				for i := range c.sizes {
					r := expectRecord(t, w.both[1], uint64(i+1))
					require.NoError(t, w.both[1].AckRecord(r.Seq))
				}
				require.NoError(t, w.both[0].Barrier(soon(t, time.Minute)))
			})
		})
	}
}

// Row: N13
func TestARecordIsKeptWhileAnotherHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := newShelf()
		kept.slow = func() time.Duration { return 10 * time.Millisecond }
		w := newTwins(t, &record.Options{Store: kept}, nil, faultnet.LinkOptions{})
		_, err := w.both[0].WriteRecord(t.Context(), []byte("a"))
		require.NoError(t, err)
		expectRecord(t, w.both[1], 1)
		done := make(chan error, 1)
		second, third := make(chan struct{}), make(chan struct{})
		go func() {
			_, err := w.both[0].WriteRecord(t.Context(), []byte("b"))
			done <- err
			close(second)
		}()
		synctest.Wait() // the Store is at the second
		go func() {
			_, err := w.both[0].WriteRecord(t.Context(), []byte("c"))
			done <- err
			close(third)
		}()
		synctest.Wait()
		require.NoError(t, w.both[1].Fail(1, 1, true, "later"))
		synctest.Wait()
		quiet(time.Minute)
		require.NoError(t, <-done)
		select {
		case err := <-done:
			require.NoError(t, err)
		default:
			require.Fail(t, "the third record is not kept")
		}
		place, _, wrong := kept.state()
		require.NoError(t, wrong)
		require.Equal(t, uint64(4), place.Next)
		require.NoError(t, w.both[0].Resend())
		for seq := range uint64(3) {
			expectRecord(t, w.both[1], seq+1)
		}
		require.NoError(t, w.both[1].AckRecord(3))
		require.NoError(t, w.both[0].Barrier(soon(t, time.Minute)))
		<-second
		<-third
	})
}

// Row: N12
func TestARecordIsKeptWhenThePeerHasClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := newShelf()
		kept.slow = func() time.Duration { return 10 * time.Millisecond }
		w := newTwins(t, &record.Options{Store: kept}, nil, faultnet.LinkOptions{})
		done := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := w.both[0].WriteRecord(t.Context(), []byte("a"))
				done <- err
			}()
			synctest.Wait()
		}
		require.NoError(t, w.both[1].Close())
		quiet(time.Minute)
		require.Len(t, done, 2)
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		place, _, wrong := kept.state()
		require.NoError(t, wrong)
		require.Equal(t, uint64(3), place.Next)
	})
}

// What AckRecord has taken is kept, also when the stream breaks before the peer is told.
//
// Row: N11
func TestAPlaceIsKeptWhenTheStreamBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := newShelf()
		w := newTwins(t, nil, &record.Options{Store: kept, AckDelay: time.Hour}, faultnet.LinkOptions{})
		for range 3 {
			_, err := w.both[0].WriteRecord(t.Context(), []byte("a"))
			require.NoError(t, err)
		}
		expectRecord(t, w.both[1], 1)
		expectRecord(t, w.both[1], 2)
		synctest.Wait()
		require.NoError(t, w.both[1].AckRecord(2))
		w.link.Cut()
		<-w.both[1].Done()
		place, _, wrong := kept.state()
		require.NoError(t, wrong)
		require.Equal(t, uint64(2), place.Applied)
	})
}

// The accepting side finds out that it cannot serve after it has accepted.
//
// Row: N21
func TestWhatIsKeptAndTooLargeIsToldToTheOpener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := newShelf()
		keepRecords(t, kept, 500)
		link := faultnet.NewLink(faultnet.LinkOptions{})
		here, there := link.Ends()
		both, errs := openBoth(t.Context(), here, there, &record.Options{MaxRecord: 100}, &record.Options{Store: kept})
		require.ErrorIs(t, errs[1], record.ErrTooLarge)
		if err := errs[0]; err == nil {
			<-both[0].Done()
			errs[0] = both[0].Err()
		}
		var e *record.Error
		require.ErrorAs(t, errs[0], &e)
		require.True(t, e.Remote, "%v", e)
		require.Contains(t, e.Text, "too large")
		require.NotErrorIs(t, e, record.ErrProtocol)
	})
}
