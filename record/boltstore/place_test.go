package boltstore

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/peerlane/peerlane/record"
)

var peerLog = record.LogID{1, 2, 3}

func TestAppliedKeepsThePlace(t *testing.T) {
	s := newStore(t)
	at := func(log record.LogID, seq uint64) {
		t.Helper()
		p := place(t, s)
		require.Equal(t, log, p.Peer)
		require.Equal(t, seq, p.Applied)
	}
	require.ErrorIs(t, s.Applied(record.LogID{}, 0), record.ErrRange)
	require.NoError(t, s.Applied(record.LogID{9}, 0))
	require.NoError(t, s.Applied(peerLog, 0), "another one, for nothing is applied")
	at(record.LogID{}, 0)
	require.ErrorIs(t, s.Applied(record.LogID{9}, 1), record.ErrHistory)
	require.NoError(t, s.Applied(peerLog, 5))
	require.NoError(t, s.Applied(peerLog, 5))
	require.NoError(t, s.Applied(peerLog, 3))
	at(peerLog, 5)
	require.ErrorIs(t, s.Applied(record.LogID{9}, 6), record.ErrHistory)
	require.ErrorIs(t, s.Applied(record.LogID{9}, 0), record.ErrHistory)
	at(peerLog, 5)
}

func TestALogWhoseBeginningIsNotKnownIsTakenOnlyOnRequest(t *testing.T) {
	s := newStore(t)
	err := s.Applied(peerLog, 4)
	require.ErrorIs(t, err, record.ErrHistory)
	require.ErrorContains(t, err, "drop the place here (DropPlace) to read on from record 5")
	require.Zero(t, place(t, s).Peer)

	require.NoError(t, s.DropPlace())
	require.Equal(t, record.Place{Log: place(t, s).Log, Next: 1}, begin(t, s))
	require.NoError(t, s.Applied(peerLog, 4))
	require.Equal(t, uint64(4), place(t, s).Applied)
	require.NoError(t, s.End(0))
	require.NoError(t, s.DropPlace())
	require.NoError(t, s.Applied(record.LogID{9}, 0), "and another log as well")
	require.NoError(t, s.Applied(record.LogID{9}, 1))
	require.Equal(t, record.LogID{9}, place(t, s).Peer)

	s = newStore(t)
	require.NoError(t, s.Applied(peerLog, 0))
	begin(t, s)
	require.ErrorIs(t, s.Applied(peerLog, 4), record.ErrHistory, "begun by another stream")
}

// Claim: boltstore.ErrApplied
func TestCommitIsOneWithTheTransaction(t *testing.T) {
	s := newStore(t)
	require.ErrorContains(t, commit(s, record.Record{Seq: 1}), "no stream has begun")
	require.NoError(t, s.Applied(peerLog, 0))
	require.NoError(t, commit(s, record.Record{Seq: 1}))
	require.NoError(t, s.Applied(peerLog, 1), "what AckRecord does")

	refused := errors.New("refused")
	require.ErrorIs(t, s.db.Update(func(tx *bbolt.Tx) error {
		require.NoError(t, apply(tx, record.Record{Seq: 2}))
		require.NoError(t, s.Commit(tx, 2))
		require.ErrorIs(t, s.Commit(tx, 2), ErrApplied, "as the transaction sees it")
		return refused
	}), refused)
	require.Equal(t, uint64(1), place(t, s).Applied)
	require.NoError(t, commit(s, record.Record{Seq: 2}), "again")
	require.ErrorIs(t, commit(s, record.Record{Seq: 2}), ErrApplied)
	require.ErrorIs(t, commit(s, record.Record{Seq: 0}), ErrApplied)
	require.ErrorIs(t, commit(s, record.Record{Seq: 4}), record.ErrRange)
	require.Equal(t, numbers(1, 2), applied(t, s.db))

	require.NoError(t, s.db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(s.Commit(tx, 3), s.Commit(tx, 4), s.Commit(tx, 5))
	}), "several in one transaction")
	require.Equal(t, uint64(5), place(t, s).Applied)
}

func TestCommitWantsATransactionThatWrites(t *testing.T) {
	s := newStore(t)
	require.NoError(t, s.Applied(peerLog, 0))
	var over *bbolt.Tx
	require.ErrorIs(t, s.db.View(func(tx *bbolt.Tx) error { over = tx; return s.Commit(tx, 1) }), berrors.ErrTxNotWritable)
	require.ErrorContains(t, s.Commit(over, 1), "the transaction is over")
	other := openDB(t, filepath.Join(t.TempDir(), "other"))
	require.ErrorContains(t, other.Update(func(tx *bbolt.Tx) error { return s.Commit(tx, 1) }), "another DB")
	require.Zero(t, place(t, s).Applied)
}

func TestDropLogBeginsAnew(t *testing.T) {
	s := newStore(t)
	require.NoError(t, s.Append(1, payloads(1, 3), 0))
	require.NoError(t, s.Applied(peerLog, 0))
	require.NoError(t, s.Applied(peerLog, 2))
	before := place(t, s)
	require.NoError(t, s.DropLog())
	after := place(t, s)
	require.NotEqual(t, before.Log, after.Log)
	require.Equal(t, record.Place{Log: after.Log, Next: 1, Peer: peerLog, Applied: 2}, after)
	require.Empty(t, tail(t, s, 1))
	require.NoError(t, s.Append(1, payloads(1, 1), 0))
}
