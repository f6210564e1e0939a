package record_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/peerlanetest"
	"github.com/peerlane/peerlane/record"
	"github.com/peerlane/peerlane/session"
)

// quotaOf returns two sides of a session, of which Bob has a quota of so many bytes.
func quotaOf(t *testing.T, limit int64) (*peerlanetest.Sessions, *session.Quota) {
	quota := &session.Quota{MaxBytes: limit}
	return peerlanetest.NewSessions(t, &peerlanetest.SessionsOptions{Delay: time.Millisecond,
		Accept: &session.AcceptorConfig{Config: session.Config{Quota: quota}}}), quota
}

// openDedicated opens a record stream on a stream with its own connection.
func openDedicated(t *testing.T, p *peerlanetest.Sessions, name string) (*record.Stream, error) {
	st, err := p.Alice.OpenStream(t.Context(), name, &session.StreamOptions{Dedicated: true})
	require.NoError(t, err)
	return record.OpenConn(t.Context(), st, nil)
}

// What a server holds of the records of a peer that its application does not read is in the peer's share. The rest waits with the peer, and
// comes once the application reads.
func TestRecordsThatNobodyReadsAreInTheQuota(t *testing.T) {
	for _, size := range []int{1000, 500 << 10} {
		synctest.Test(t, func(t *testing.T) {
			const limit, streams, total = 4 << 20, 6, 3 << 20
			p, quota := quotaOf(t, limit)
			read := make(chan struct{})
			var got, serving sync.WaitGroup
			got.Add(streams)
			record.Handle(p.ToBob, "log", nil, func(s *record.Stream) {
				<-read
				for range total / size {
					r, err := s.ReadRecord(t.Context())
					require.NoError(t, err)
					require.Len(t, r.Payload, size)
					require.NoError(t, s.AckRecord(r.Seq))
				}
				got.Done()
				_, err := s.ReadRecord(t.Context())
				require.ErrorIs(t, err, io.EOF)
			})
			var all []*record.Stream
			for range streams {
				s, err := openDedicated(t, p, "log")
				require.NoError(t, err)
				all = append(all, s)
			}
			for _, s := range all {
				serving.Go(func() {
					for range total / size {
						_, err := s.WriteRecord(t.Context(), make([]byte, size))
						require.NoError(t, err)
					}
					require.NoError(t, s.Barrier(t.Context()))
					require.NoError(t, s.Close())
				})
			}
			time.Sleep(10 * time.Second)
			require.LessOrEqual(t, quota.Snapshot().Bytes, int64(limit))
			require.Greater(t, quota.Snapshot().Bytes, int64(limit/2))
			close(read)
			got.Wait()
			serving.Wait()
			time.Sleep(10 * time.Second)
			require.Zero(t, quota.Snapshot().Bytes)
		})
	}
}

// A stream for whose records there is no room for long ends, with an error that says why, and so does not keep what it has for ever.
func TestAStreamWithoutRoomForItsRecordsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, quota := quotaOf(t, 1<<20)
		served := make(chan error, 1)
		record.Handle(p.ToBob, "log", nil, func(s *record.Stream) {
			<-s.Done()
			served <- s.Err()
		})
		s, err := openDedicated(t, p, "log")
		require.NoError(t, err)
		for err == nil {
			_, err = s.WriteRecord(t.Context(), make([]byte, 100<<10))
		}
		require.ErrorIs(t, err, record.ErrBusy)
		require.ErrorContains(t, err, "no memory")
		require.ErrorIs(t, <-served, record.ErrBusy)
		time.Sleep(10 * time.Second)
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// What a server keeps of the records that a peer does not apply is in the peer's share. Its writers wait, for as long as they like, and
// go on once the peer applies.
func TestRecordsThatThePeerDoesNotApplyAreInTheQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, streams, size, count = 4 << 20, 6, 10 << 10, 300
		p, quota := quotaOf(t, limit)
		opened := make(chan struct{})
		record.Handle(p.ToBob, "log", nil, func(s *record.Stream) {
			<-opened
			for range count {
				_, err := s.WriteRecord(t.Context(), make([]byte, size))
				require.NoError(t, err)
			}
			require.NoError(t, s.Barrier(t.Context()))
		})
		var all []*record.Stream
		for range streams {
			s, err := openDedicated(t, p, "log")
			require.NoError(t, err)
			all = append(all, s)
		}
		close(opened)
		time.Sleep(time.Minute)
		require.LessOrEqual(t, quota.Snapshot().Bytes, int64(limit))
		require.Greater(t, quota.Snapshot().Bytes, int64(limit/2))
		var applying sync.WaitGroup
		for _, s := range all {
			applying.Go(func() {
				for range count {
					r, err := s.ReadRecord(t.Context())
					require.NoError(t, err)
					require.NoError(t, s.AckRecord(r.Seq))
				}
				require.NoError(t, s.Close())
			})
		}
		applying.Wait()
		time.Sleep(10 * time.Second)
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// A writer that waits for room in the quota ends with its ctx, and a stream that waits for it with its Close.
func TestWaitsForTheQuotaEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, quota := quotaOf(t, 1<<20)
		wrote := make(chan error, 1)
		record.Handle(p.ToBob, "log", nil, func(s *record.Stream) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			for {
				if _, err := s.WriteRecord(ctx, make([]byte, 100<<10)); err != nil {
					wrote <- err
					return
				}
			}
		})
		record.Handle(p.ToBob, "full", nil, func(s *record.Stream) { time.Sleep(time.Second) })
		s, err := openDedicated(t, p, "log")
		require.NoError(t, err)
		require.ErrorIs(t, <-wrote, context.DeadlineExceeded)
		_ = s.Close()
		time.Sleep(10 * time.Second)
		require.Zero(t, quota.Snapshot().Bytes)
		s, err = openDedicated(t, p, "full")
		require.NoError(t, err)
		for err == nil {
			_, err = s.WriteRecord(t.Context(), make([]byte, 100<<10))
		}
		require.False(t, errors.Is(err, record.ErrBusy), "it was closed first: %v", err)
		_ = s.Close()
		time.Sleep(10 * time.Second)
		require.Zero(t, quota.Snapshot().Bytes)
	})
}

// A stream that there is no room for is refused, and its peer learns why.
func TestAStreamWithoutRoomIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, quota := quotaOf(t, 1<<20)
		record.Handle(p.ToBob, "log", nil, func(s *record.Stream) { _, _ = s.ReadRecord(t.Context()) })
		part := quota.Hold(p.Bob.Peer(), "")
		defer part.Leave()
		require.NoError(t, part.Take(0, 850<<10))
		_, err := openDedicated(t, p, "log")
		require.ErrorIs(t, err, record.ErrBusy)
		require.ErrorIs(t, err, session.ErrUnavailable)
		var e *record.Error
		require.ErrorAs(t, err, &e)
		require.True(t, e.Remote)
		part.Release(0, 850<<10)
		time.Sleep(time.Second)
		require.Zero(t, quota.Snapshot().Bytes)
		s, err := openDedicated(t, p, "log")
		require.NoError(t, err)
		require.NoError(t, s.Close())
	})
}
