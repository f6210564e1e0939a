package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/peerlane/peerlane/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openDB opens a DB, and closes it at the end unless the test has.
func openDB(t testing.TB, path string, opts ...bbolt.Options) *bbolt.DB {
	t.Helper()
	o := bbolt.Options{Timeout: 5 * time.Second}
	if len(opts) > 0 {
		o = opts[0]
	}
	db, err := bbolt.Open(path, 0o600, &o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// newStore returns a Store in a new DB.
func newStore(t testing.TB) *Store {
	t.Helper()
	return storeIn(t, openDB(t, filepath.Join(t.TempDir(), "db")))
}

func storeIn(t testing.TB, db *bbolt.DB) *Store {
	t.Helper()
	s, err := New(db, "orders")
	require.NoError(t, err)
	return s
}

func begin(t testing.TB, s *Store) record.Place {
	t.Helper()
	p, err := s.Begin(func() {})
	require.NoError(t, err)
	return p
}

func place(t testing.TB, s *Store) record.Place {
	t.Helper()
	p, err := s.Place()
	require.NoError(t, err)
	return p
}

// payloads returns those of the records from..to.
func payloads(from, to uint64) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for n := from; n <= to; n++ {
			if !yield(payload(n)) {
				return
			}
		}
	}
}

func payload(n uint64) []byte { return fmt.Appendf(nil, "record %d", n) }

// tail returns the numbers that Tail yields, and checks the payloads.
func tail(t testing.TB, s *Store, from uint64) []uint64 {
	t.Helper()
	var all []uint64
	for r, err := range s.Tail(from) {
		require.NoError(t, err)
		require.Equal(t, string(payload(r.Seq)), string(r.Payload))
		all = append(all, r.Seq)
	}
	return all
}

func numbers(from, to uint64) []uint64 {
	var all []uint64
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

// effects is the application's data: for each record, how often it was applied.
var effects = []byte("effects")

// apply counts the effect of a record in a transaction.
func apply(tx *bbolt.Tx, r record.Record) error {
	b, err := tx.CreateBucketIfNotExists(effects)
	if err != nil {
		return err
	}
	key := recordKey(r.Seq)
	times := append(bytes.Clone(b.Get(key)), 1)
	return b.Put(key, times)
}

// applied returns the records that have had an effect, one for each time.
func applied(t testing.TB, db *bbolt.DB) []uint64 {
	t.Helper()
	var all []uint64
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(effects)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			all = append(all, slices.Repeat([]uint64{binary.BigEndian.Uint64(k)}, len(v))...)
			return nil
		})
	}))
	return all
}

// commit applies a record, and keeps its place with it.
func commit(s *Store, r record.Record) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if err := apply(tx, r); err != nil {
			return err
		}
		return s.Commit(tx, r.Seq)
	})
}

// connect opens a stream between two Stores, either of which may be nil, and returns both sides of it, or the errors.
func connect(t testing.TB, writer, reader record.Store) (w, r *record.Stream, werr, rerr error) {
	t.Helper()
	a, b := net.Pipe()
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		r, rerr = record.AcceptConn(context.Background(), b, &record.Options{Store: reader})
	}()
	w, werr = record.OpenConn(context.Background(), a, &record.Options{Store: writer})
	<-accepted
	return w, r, werr, rerr
}

// mustConnect is connect when nothing is in the way.
func mustConnect(t testing.TB, writer, reader record.Store) (w, r *record.Stream) {
	t.Helper()
	w, r, werr, rerr := connect(t, writer, reader)
	require.NoError(t, werr)
	require.NoError(t, rerr)
	t.Cleanup(func() { kill(w); kill(r) })
	return w, r
}

// kill ends a stream at once, as a lost session does, and waits until it has given its Store back.
func kill(s *record.Stream) { _ = s.CloseWithError(record.CodeApplication, "killed") }

// write writes the records from..to.
func write(t testing.TB, s *record.Stream, from, to uint64) {
	t.Helper()
	for n := from; n <= to; n++ {
		seq, err := s.WriteRecord(t.Context(), payload(n))
		require.NoError(t, err)
		require.Equal(t, n, seq)
	}
}

// read reads the record that has the number seq.
func read(t testing.TB, s *record.Stream, seq uint64) record.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := s.ReadRecord(ctx)
	require.NoError(t, err, "record %d", seq)
	require.Equal(t, seq, r.Seq)
	require.Equal(t, string(payload(seq)), string(r.Payload))
	return r
}

// take reads the records from..to, applies them with their places, and acknowledges them.
func take(t testing.TB, s *record.Stream, st *Store, from, to uint64) {
	t.Helper()
	for n := from; n <= to; n++ {
		require.NoError(t, commit(st, read(t, s, n)))
		require.NoError(t, s.AckRecord(n))
	}
}

// settle waits until the peer has applied what was written.
func settle(t testing.TB, s *record.Stream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, s.Barrier(ctx))
}
