package boltstore

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/peerlane/peerlane/record"
)

func TestANewStoreStandsAtTheBeginningOfALogOfItsOwn(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	orders := storeIn(t, db)
	p := begin(t, orders)
	require.Equal(t, record.Place{Log: p.Log, Next: 1}, p)
	require.NotZero(t, p.Log)
	require.Empty(t, tail(t, orders, 1))
	require.NoError(t, orders.End(0))
	require.Equal(t, p, place(t, storeIn(t, db)), "made anew")

	other, err := New(db, "payments")
	require.NoError(t, err)
	require.NotEqual(t, p.Log, place(t, other).Log)
}

func TestNewWantsAName(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	for _, name := range []string{"", strings.Repeat("n", bbolt.MaxKeySize+1)} {
		_, err := New(db, name)
		require.ErrorIs(t, err, record.ErrInvalid, "%d bytes", len(name))
	}
	_, err := New(db, strings.Repeat("n", bbolt.MaxKeySize))
	require.NoError(t, err)
}

func TestStoresInOneDBKnowNothingOfEachOther(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "db"))
	a := storeIn(t, db)
	b, err := New(db, "payments")
	require.NoError(t, err)
	require.NoError(t, a.Append(1, payloads(1, 3), 0))
	require.NoError(t, b.Append(1, payloads(1, 1), 0))
	require.NoError(t, a.Applied(record.LogID{1}, 0))
	require.Equal(t, numbers(1, 3), tail(t, a, 1))
	require.Equal(t, numbers(1, 1), tail(t, b, 1))
	require.Zero(t, place(t, b).Peer)
	require.NoError(t, b.DropLog())
	require.Equal(t, numbers(1, 3), tail(t, a, 1))
}

func TestAppendKeepsRecordsUnderTheirNumbers(t *testing.T) {
	s := newStore(t)
	require.NoError(t, s.Append(1, payloads(1, 3), 0))
	require.NoError(t, s.Append(4, payloads(4, 4), 2))
	p := place(t, s)
	require.Equal(t, uint64(5), p.Next)
	require.Equal(t, uint64(2), p.Acked)
	require.Equal(t, numbers(3, 4), tail(t, s, 3))
	require.Equal(t, numbers(4, 4), tail(t, s, 4))
	require.Empty(t, tail(t, s, 5))

	for _, c := range []struct{ first, acked uint64 }{{0, 0}, {4, 0}, {6, 0}, {5, 5}} {
		require.ErrorIs(t, s.Append(c.first, payloads(1, 1), c.acked), record.ErrRange, "%+v", c)
	}
	require.NoError(t, s.Append(5, payloads(5, 4), 1), "of no records")
	require.Equal(t, p, place(t, s))
}

func TestARecordOfNoBytesIsKept(t *testing.T) {
	s := newStore(t)
	require.NoError(t, s.Append(1, func(yield func([]byte) bool) { _ = yield(nil) && yield([]byte{}) }, 0))
	n := 0
	for r, err := range s.Tail(1) {
		require.NoError(t, err)
		require.Empty(t, r.Payload)
		n++
	}
	require.Equal(t, 2, n)
}

func TestAppendIsOneTransaction(t *testing.T) {
	s := newStore(t)
	txid := func() (id int) {
		require.NoError(t, s.db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil }))
		return id
	}
	before := txid()
	require.NoError(t, s.Append(1, payloads(1, 1000), 0))
	require.Equal(t, before+1, txid())
	require.NoError(t, s.Append(1001, payloads(1001, 1001), 500))
	require.Equal(t, before+2, txid())
	begin(t, s)
	require.NoError(t, s.End(500), "nothing new")
	require.Equal(t, before+2, txid())
}

func TestATransactionForgetsNoMoreThanItMay(t *testing.T) {
	s := newStore(t)
	kept := func() (n int) {
		require.NoError(t, s.view("count", func(b *bbolt.Bucket) error { n = b.Bucket(recordsKey).Stats().KeyN; return nil }))
		return n
	}
	const all = 5000
	require.NoError(t, s.Append(1, payloads(1, all), 0))
	begin(t, s)
	require.NoError(t, s.End(all))
	require.Equal(t, all-trimRecords, kept())
	require.Equal(t, uint64(all), begin(t, s).Acked)
	require.Empty(t, tail(t, s, all+1))

	require.NoError(t, s.Append(all+1, payloads(all+1, all+100), all))
	require.Equal(t, all-2*trimRecords-100, kept())
	for n := uint64(all + 101); kept() > 100; n += 10 {
		require.NoError(t, s.Append(n, payloads(n, n+9), n-1))
		require.Less(t, n, uint64(2*all), "it never ends")
	}
}

func TestEndGivesBackAndForgets(t *testing.T) {
	s := newStore(t)
	require.Error(t, s.End(0), "not begun")
	begin(t, s)
	require.NoError(t, s.Append(1, payloads(1, 5), 0))
	require.NoError(t, s.End(3))
	require.Equal(t, uint64(3), place(t, s).Acked)
	require.Error(t, s.End(3), "given back already")

	begin(t, s)
	require.ErrorIs(t, s.End(6), record.ErrRange)
	require.Equal(t, uint64(3), begin(t, s).Acked, "it was not given back")
	require.NoError(t, s.End(5))
	require.Equal(t, uint64(5), place(t, s).Acked)
}

func TestTailYieldsOutsideOfTransactions(t *testing.T) {
	s := newStore(t)
	const size = 100 << 10
	big := func(n uint64) []byte { return bytes.Repeat([]byte{byte(n)}, size) }
	require.NoError(t, s.Append(1, func(yield func([]byte) bool) {
		for n := uint64(1); n <= 10 && yield(big(n)); n++ {
		}
	}, 0))
	due := uint64(3)
	for r, err := range s.Tail(due) {
		require.NoError(t, err)
		require.Equal(t, due, r.Seq)
		require.NoError(t, s.db.Update(func(tx *bbolt.Tx) error { return apply(tx, r) }), "the DB is free meanwhile")
		require.Equal(t, big(due), r.Payload)
		due++
	}
	require.Equal(t, uint64(11), due)
	for range s.Tail(1) {
		break // not an error
	}
}

func TestErrorsOfTheDBAreToldAsTheyAre(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openDB(t, path)
	s := storeIn(t, db)
	require.NoError(t, s.Append(1, payloads(1, 3), 0))
	begin(t, s)
	require.NoError(t, db.Close())

	require.ErrorIs(t, s.Append(4, payloads(4, 4), 0), berrors.ErrDatabaseNotOpen)
	require.ErrorIs(t, s.Applied(record.LogID{1}, 0), berrors.ErrDatabaseNotOpen)
	require.ErrorContains(t, s.End(1), `boltstore "orders": end: database not open`)
	_, err := s.Begin(func() {})
	require.ErrorIs(t, err, berrors.ErrDatabaseNotOpen)
	_, err = s.Begin(func() {})
	require.ErrorIs(t, err, berrors.ErrDatabaseNotOpen, "one that has failed holds nothing")
	for _, err := range s.Tail(1) {
		require.ErrorIs(t, err, berrors.ErrDatabaseNotOpen)
	}
	_, err = New(db, "orders")
	require.ErrorIs(t, err, berrors.ErrDatabaseNotOpen)

	db = openDB(t, path, bbolt.Options{ReadOnly: true})
	s = storeIn(t, db)
	require.Equal(t, numbers(1, 3), tail(t, s, 1))
	require.ErrorIs(t, s.Append(4, payloads(4, 4), 0), berrors.ErrDatabaseReadOnly)
	require.NoError(t, s.Applied(record.LogID{1}, 0))
	require.ErrorIs(t, s.Applied(record.LogID{1}, 1), berrors.ErrDatabaseReadOnly)
	_, err = New(db, "payments")
	require.ErrorIs(t, err, berrors.ErrDatabaseReadOnly)
}

func TestAFullDiskLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openDB(t, path, bbolt.Options{MaxSize: 1 << 20})
	s := storeIn(t, db)
	var n uint64
	for {
		if err := s.Append(n+1, payloads(n+1, n+1000), 0); err != nil {
			require.ErrorIs(t, err, berrors.ErrMaxSizeReached)
			break
		}
		n += 1000
		require.Less(t, n, uint64(1<<20), "it never fills")
	}
	require.Equal(t, n+1, place(t, s).Next)
	require.NoError(t, db.Close())

	s = storeIn(t, openDB(t, path))
	require.Equal(t, numbers(1, n), tail(t, s, 1))
	require.NoError(t, s.Append(n+1, payloads(n+1, n+1000), 0))
}

// Claim: boltstore.ErrHeld
func TestBeginTellsTheOneBeforeAndWaitsForItsEnd(t *testing.T) {
	s := newStore(t)
	told := make(chan string, 3)
	began := make(chan string)
	_, err := s.Begin(func() { told <- "first" })
	require.NoError(t, err)
	for _, name := range []string{"second", "third"} {
		before := map[string]string{"second": "first", "third": "second"}[name]
		go func() {
			_, err := s.Begin(func() { told <- name })
			require.NoError(t, err)
			began <- name
		}()
		require.Equal(t, before, <-told)
	}
	select {
	case name := <-began:
		require.Fail(t, "too early", name)
	default:
	}
	require.NoError(t, s.End(0))
	require.Equal(t, "second", <-began)
	require.NoError(t, s.End(0))
	require.Equal(t, "third", <-began)
	require.ErrorIs(t, s.DropLog(), ErrHeld)
	require.ErrorIs(t, s.DropPlace(), ErrHeld)
	require.NoError(t, s.End(0))
	require.NoError(t, s.DropLog())
	require.NoError(t, s.DropPlace())
	require.Empty(t, told, "told by somebody who came after its end")
}
