package record_test

import (
	"context"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlane/peerlane/internal/faultnet"
	"github.com/peerlane/peerlane/record"
)

// slowShelf is a Store whose Append takes its time.
type slowShelf struct {
	record.Store
	nap time.Duration
}

func (s *slowShelf) Append(first uint64, records iter.Seq[[]byte], acked uint64) error {
	time.Sleep(s.nap)
	return s.Store.Append(first, records, acked)
}

// Who waits for a Store that is slow is bounded by its ctx; the record is taken all the same.
func TestWriteRecordDoesNotWaitForAStoreBeyondItsCtx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwins(t, &record.Options{Store: &slowShelf{newShelf(), time.Minute}}, nil, faultnet.LinkOptions{})
		began := time.Now()
		seq, err := w.both[0].WriteRecord(soon(t, time.Second), []byte("x"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 1, seq)
		require.Equal(t, time.Second, time.Since(began))
		r, err := w.both[1].ReadRecord(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, r.Seq)
	})
}
